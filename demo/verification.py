"""Verification: what a run left on S3 is, byte for byte of content, what plain pandas gives.

A digest is taken over values, index, column names and types of a frame, so it does not
depend on how Parquet happened to lay them out, and a lost, added, reordered or changed row
shows. Row counts are kept beside it because they make a mismatch readable.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd
import s3fs


class Mismatch(Exception):
    """Outputs differ from plain pandas; the text names each file and how."""


@dataclass(frozen=True)
class Digest:
    rows: int
    content: str

    @classmethod
    def of(cls, df: pd.DataFrame) -> "Digest":
        content = hashlib.sha256()
        for name, dtype in df.dtypes.items():
            content.update(f"{name}:{dtype};".encode())
        content.update(pd.util.hash_pandas_object(df, index=True).to_numpy().tobytes())
        return cls(len(df), content.hexdigest())


def expected(s3: s3fs.S3FileSystem, filenames: Iterable[str]) -> dict[str, Digest]:
    """By file name (without its folder), what plain pandas gives for each input."""

    def plain(filename: str) -> Digest:
        df = _read(s3, filename)
        return Digest.of(df[df.tip_amount != 0])

    return _each(plain, filenames)


def verify(s3: s3fs.S3FileSystem, folder: str, wanted: Mapping[str, Digest]) -> None:
    """Check that `folder` holds exactly the wanted files with the wanted content, or Mismatch."""
    found = _each(lambda filename: Digest.of(_read(s3, filename)), s3.ls(folder))
    problems = [f"{name}: missing" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"{name}: not asked for" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        want, have = wanted[name], found[name]
        if have.rows != want.rows:
            problems.append(f"{name}: {have.rows:,} rows where plain pandas gives {want.rows:,}")
        elif have != want:
            problems.append(f"{name}: {have.rows:,} rows as in plain pandas, but not the same ones")
    if problems:
        raise Mismatch(f"{folder} differs from plain pandas:\n  " + "\n  ".join(problems))


def _read(s3: s3fs.S3FileSystem, filename: str) -> pd.DataFrame:
    with s3.open(filename) as file:
        return pd.read_parquet(file)


def _each(digest: Callable[[str], Digest], filenames: Iterable[str]) -> dict[str, Digest]:
    filenames = list(filenames)
    with ThreadPoolExecutor() as pool:
        names = [filename.rsplit("/", 1)[-1] for filename in filenames]
        return dict(zip(names, pool.map(digest, filenames), strict=True))
