"""Bad input among good: each bad file is reported by its own error, each good one is finished.

The bad ones are the files of 2009, which have no `tip_amount` column; see the package's
docstring for why these.
"""

from collections.abc import Sequence

from demo.comparison import function


class NotReported(Exception):
    """A bad file gave no error, or another than its own."""


def run(bad: Sequence[str], good: Sequence[str], folder: str) -> list[tuple[str, str]]:
    """Map over the bad files, each followed by a good one; returns each file and its outcome."""
    filenames = [filename for pair in zip(bad, good, strict=True) for filename in pair]
    results = function(folder).map(filenames, errors="return")
    return [
        (filename, _outcome(filename, result, filename in bad))
        for filename, result in zip(filenames, results, strict=True)
    ]


def _outcome(filename: str, result: object, is_bad: bool) -> str:
    if is_bad and not _names_the_column(result):
        raise NotReported(f"{filename}: wanted its AttributeError, got {result!r}")
    if isinstance(result, Exception):
        return f"{type(result).__name__}: {str(result).splitlines()[0]}"
    return str(result)


def _names_the_column(result: object) -> bool:
    return isinstance(result, AttributeError) and "tip_amount" in str(result)
