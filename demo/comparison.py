"""The comparison: builtin `map` against `process.map`, the same function over the same files.

Both legs use one server and write each to a folder of its own. The clock of a leg runs from
the call of map to its last result. For `process.map` that includes the start of the runners
and their imports, provided that the comparing process has not used Tendril before: runners
stay warm, and a second map would show a time that nobody sees who runs a script. Builtin
`map` has no such cost to pay, it finds everything imported.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import s3fs  # noqa: F401 (as in the example: what a function's module imports, runners preload)
import tendril


@dataclass(frozen=True)
class Leg:
    name: str
    seconds: float


def job(folder: str) -> Callable[[str], str]:
    """The example's function without its print, writing to `folder`."""

    def process(filename: str) -> str:
        df = pd.read_parquet(filename)
        df = df[df.tip_amount != 0]

        outfile = folder + filename.split("/")[-1]
        df.to_parquet(outfile)
        return outfile

    return process


def function(folder: str):
    """The same as a Tendril function, decorated as in the example."""
    return tendril.function(region="us-east-1", vm_type="m6i.xlarge")(job(folder))


def compare(filenames: Sequence[str], plain_folder: str, mapped_folder: str) -> tuple[Leg, Leg]:
    """Time both legs; to be called before anything else in this process uses Tendril."""
    process = job(plain_folder)
    plain = _timed("map(process, filenames)", lambda: map(process, filenames))
    mapped_process = function(mapped_folder)
    mapped = _timed("process.map(filenames)", lambda: mapped_process.map(filenames))
    return plain, mapped


def _timed(name: str, start: Callable[[], Iterable[str]]) -> Leg:
    begin = time.perf_counter()
    for _ in start():
        pass
    return Leg(name, time.perf_counter() - begin)
