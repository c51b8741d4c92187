"""What a runner's process must be like for the function to feel at home: on this machine, the
same interpreter, module path, environment variables and working folder as the caller's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from tendril import _pickling

# One call, one core, unless the user says otherwise: every runner starting as many threads as
# there are cores would slow all of them down.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Set anew for each test: runners that were started for it would serve one test only.
_PASSING = "PYTEST_CURRENT_TEST"

_BOOT = "import sys; sys.path[:] = {path!r}; from tendril import _runner; _runner.main({preload!r})"


class Surroundings(NamedTuple):
    """A command, its environment and its folder, as the core wants them: strings that end by a
    zero byte, one after another."""

    argv: bytes
    env: bytes
    cwd: bytes


def _joined(words: list[str]) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def _flags() -> list[str]:
    """The interpreter flags that change what code means."""
    flags = sys.flags
    words = ["-O"] * flags.optimize
    if flags.ignore_environment:
        words.append("-E")
    if flags.no_user_site:
        words.append("-s")
    if flags.dont_write_bytecode:
        words.append("-B")
    return words + [f"-W{option}" for option in sys.warnoptions]


def capture(fn: Any, environ: Mapping[str, str] | None, cpu: float | None) -> Surroundings:
    """What the runners of this function need.

    environ: variables to add; cpu: cores that a call may use, or None for one.
    """
    boot = _BOOT.format(path=sys.path, preload=_pickling.packages_of(fn))
    variables = {**os.environ, **(environ or {})}
    variables.pop(_PASSING, None)
    for name in _THREAD_VARIABLES:
        variables.setdefault(name, str(max(1, int(cpu or 1))))
    return Surroundings(
        argv=_joined([sys.executable, *_flags(), "-c", boot]),
        env=_joined([f"{name}={value}" for name, value in sorted(variables.items())]),
        cwd=os.fsencode(os.getcwd()),
    )
