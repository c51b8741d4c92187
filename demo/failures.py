"""Bad input among good: each bad file is reported by its own error, each good one is finished.

The bad ones are the files of 2009, which have no `tip_amount` column; see the package's
docstring for why these.
"""

from collections.abc import Iterable, Sequence

from demo.comparison import function


class NotReported(Exception):
    """A bad file gave no error, or another than its own."""


def run(bad: Sequence[str], good: Sequence[str], folder: str) -> Iterable[tuple[str, str]]:
    """Map over the bad files, each followed by a good one; yields each file and its outcome."""
    filenames = [filename for pair in zip(bad, good, strict=True) for filename in pair]
    results = function(folder).map(filenames, errors="return")
    for filename, result in zip(filenames, results, strict=True):
        if filename in bad and not _names_the_column(result):
            raise NotReported(f"{filename}: wanted its AttributeError, got {result!r}")
        text = str(result)
        if isinstance(result, Exception):
            text = f"{type(result).__name__}: {text.splitlines()[0]}"
        yield filename, text


def _names_the_column(result: object) -> bool:
    return isinstance(result, AttributeError) and "tip_amount" in str(result)
