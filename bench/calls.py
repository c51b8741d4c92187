"""The functions that the contenders call; workers import them from here."""

from __future__ import annotations

import fcntl
import time
from contextlib import suppress
from typing import Any


def noop(x: Any) -> Any:
    return x


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def add_one(array: Any) -> Any:
    """In place where the array may be written to; some peers hand out read-only memory."""
    if not array.flags.writeable:
        return array + 1
    array += 1
    return array


def wait_for_lock(payload: bytes) -> None:
    """Returns when the caller lets go of its lock on the file, or has removed it. The payload is
    the path and some bytes after a zero."""
    with suppress(FileNotFoundError), open(payload.partition(b"\0")[0]) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
