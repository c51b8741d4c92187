"""What a runner's process must be like for the function to feel at home: on this machine, the
same interpreter, module path, environment variables and working folder as the caller's; on another
one an interpreter and packages of the same versions."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from tendril import _pickling, _tendril

# One call, one core, unless the user says otherwise: every runner starting as many threads as
# there are cores would slow all of them down.
_THREAD_VARIABLES = (b"OMP_NUM_THREADS=", b"OPENBLAS_NUM_THREADS=", b"MKL_NUM_THREADS=")

# Arrow's allocator would start a thread at its import, and a zygote with threads may not fork.
_ARROW = b"JE_ARROW_MALLOC_CONF="

# Set anew for each test: runners that were started for it would serve one test only.
_PASSING = b"PYTEST_CURRENT_TEST="

_BOOT = "import sys; sys.path[:] = {path!r}; from tendril import _runner; _runner.main({preload!r})"

# On another machine: its own packages, and beside them what is there of ours.
_BOOT_AWAY = (
    "import sys; from os.path import exists; "
    "sys.path += [p for p in {path!r} if p not in sys.path and exists(p)]; "
    "from tendril import _runner; _runner.main({preload!r}, {needs!r})"
)


class Surroundings(NamedTuple):
    """A command, its environment and its folder, as the core wants them: strings that end by a
    zero byte, one after another."""

    argv: bytes
    env: bytes
    cwd: bytes


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


def _environment(environ: Mapping[str, str] | None, cpu: float | None, away: bool) -> bytes:
    """The variables of this process, with those added, and thread counts where none are set. On
    other machines they have their own, and only those added: this process's may be secrets."""
    block = b"" if away else _tendril.environ()
    if environ or _PASSING in block:
        pairs = (entry.partition(b"=") for entry in block.split(b"\0")[:-1])
        variables = {name: value for name, _, value in pairs}
        variables.pop(_PASSING[:-1], None)
        for name, value in (environ or {}).items():
            variables[os.fsencode(name)] = os.fsencode(value)
        block = b"".join(b"%b=%b\0" % pair for pair in variables.items())
    start = b"\0" + block
    threads = b"%d\0" % max(1, int(cpu or 1))
    defaults = {name: threads for name in _THREAD_VARIABLES}
    defaults[_ARROW] = b"background_thread:false\0"
    return block + b"".join(
        name + value for name, value in defaults.items() if b"\0" + name not in start
    )


@functools.lru_cache(maxsize=32)
def _needs(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions that runners on other machines must have, as this process has them."""
    from importlib.metadata import packages_distributions, version

    needs = {"python": "{}.{}".format(*sys.version_info)}
    names = packages_distributions()
    for package in packages:
        for name in names.get(package.partition(".")[0], ()):
            needs[name] = version(name)
    return needs


@functools.lru_cache(maxsize=32)
def _command(
    path: tuple[str, ...], preload: tuple[str, ...], flags: tuple[str, ...], away: bool
) -> bytes:
    if away:
        needs = _needs(preload)
        boot = _BOOT_AWAY.format(path=list(path), preload=list(preload), needs=needs)
    else:
        boot = _BOOT.format(path=list(path), preload=list(preload))
    words = [sys.executable, *flags, "-c", boot]
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def _folder() -> bytes:
    """The working folder; the runners' own when it was removed under us."""
    try:
        return os.getcwdb()
    except FileNotFoundError:
        return b""


def moment() -> tuple[Any, ...]:
    """What capture() depends on, apart from the function, as it is now."""
    return _tendril.environ(), _folder(), tuple(sys.path), len(sys.modules), sys.executable


def capture(
    fn: Any, environ: Mapping[str, str] | None, cpu: float | None, away: bool = False
) -> Surroundings:
    """What the runners of this function need.

    environ: variables to add; cpu: cores that a call may use, or None for one; away: they are on
    other machines, with an interpreter, packages and variables of their own.
    """
    preload = tuple(_pickling.packages_of(fn))
    return Surroundings(
        argv=_command(tuple(sys.path), preload, tuple(_flags()), away),
        env=_environment(environ, cpu, away),
        cwd=_folder(),
    )
