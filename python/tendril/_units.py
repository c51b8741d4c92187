"""Reading durations and sizes as people write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime

_SECONDS = {
    "": 1.0,
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 1e-3,
    "m": 60.0, "min": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_BYTES = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
    "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40,
}  # fmt: skip
_NUMBER_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*")


def _parse(text: str, units: dict[str, Any], name: str, example: str) -> float:
    match = _NUMBER_UNIT.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{name}={text!r} is not understood; write for example {example}")
    return float(match[1]) * units[match[2].lower()]


def seconds(value: float | str | datetime.timedelta | None, name: str) -> float | None:
    """A duration in seconds: a number of seconds, text like "10 minutes", or a timedelta."""
    if value is None:
        return None
    if isinstance(value, str):
        value = _parse(value, _SECONDS, name, '"30s" or "10 minutes"')
    elif hasattr(value, "total_seconds"):
        value = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or text, not {type(value).__name__}")
    if not value > 0 or value > 1e9:
        raise ValueError(f"{name} must be more than 0 seconds and less than 30 years, not {value}")
    return float(value)


def size(value: float | str | list[Any] | None, name: str) -> int | None:
    """A size in bytes: a number, or text like "16 GiB"; of a list [least, most] the least."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    if value is None:
        return None
    if isinstance(value, str):
        value = _parse(value, _BYTES, name, '"16 GiB"')
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of bytes or text, not {type(value).__name__}")
    if not 1 <= value <= 2**60:
        raise ValueError(f"{name} must be from 1 byte to 1024 PiB, not {value}")
    return int(value)


def cores(value: float | list[Any] | None, name: str) -> float | None:
    """A number of cores; of a list [least, most] the least."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of cores, not {type(value).__name__}")
    if not 0 < value <= 10_000:
        raise ValueError(f"{name} must be more than 0 and at most 10000 cores, not {value}")
    return float(value)


def count(value: int, name: str) -> int:
    """A whole number, at least 0."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if not 0 <= value <= 1_000_000:
        raise ValueError(f"{name} must be from 0 to 1000000, not {value}")
    return value
