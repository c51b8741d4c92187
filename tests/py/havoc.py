"""What tests of faults have in common: programs run apart, and everything that they start is found
again, whatever it did to get away, by a variable in its environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MARK = "TENDRIL_TEST_MARK"
PATIENCE_S = 30.0  # for what must happen; a busy machine takes its time
GONE_S = 2.0  # what is promised for what must go, on a machine that has time for it


def wait_until(condition: Callable[[], object], what: str, timeout: float = PATIENCE_S) -> None:
    """Return as soon as the condition holds; fail when it does not within timeout seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:.1f} s: {what}"
        time.sleep(0.01)


def patient(seconds: float) -> float:
    """A promised time, for a machine that has as much else to do as this one."""
    return seconds * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    argv: tuple[str, ...]

    @property
    def role(self) -> str:
        """supervisor, zygote, runner, or other: by its command, and what its output is."""
        if self.argv[1:2] == ("supervise",):
            return "supervisor"
        if self.argv[-2:-1] == ("runner",):
            return "runner"
        if self.argv[-2:-1] != ("zygote",):
            return "other"
        try:
            heard = os.readlink(f"/proc/{self.pid}/fd/1").startswith("pipe:")
        except OSError:
            return "other"
        return "runner" if heard else "zygote"


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""  # it ended in this moment


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def _process(pid: int) -> Process | None:
    """A live process; zombies are nobody's work any more."""
    state, parent = [*_read(pid, "stat").rpartition(b")")[2].split(), b"Z", b"0"][:2]
    if state in (b"Z", b"X"):
        return None
    argv = _read(pid, "cmdline").decode(errors="replace").split("\0")[:-1]
    return Process(pid, int(parent), tuple(argv))


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    state = _read(pid, "stat").rpartition(b")")[2].split()[:1]
    return bool(state) and state[0] not in (b"Z", b"X")


def descendants(root: int) -> list[Process]:
    """Everything below a process."""
    rows = [one for one in map(_process, _pids()) if one]
    found: list[Process] = []
    parents = {root}
    while parents:
        level = [row for row in rows if row.parent in parents]
        found += level
        parents = {row.pid for row in level}
    return found


def marked(mark: str) -> list[Process]:
    """Every process that has the mark in its environment."""
    word = f"{MARK}={mark}".encode()
    found = [pid for pid in _pids() if word in _read(pid, "environ").split(b"\0")]
    return [one for one in map(_process, found) if one]


def cgroups(makers: set[int]) -> list[str]:
    """The control groups that these processes have made and not removed."""
    names = tuple(f"tendril-{pid}-" for pid in makers)
    found = []
    for folder, below, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(folder, name) for name in below if name.startswith(names)]
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; that it is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Program:
    """A Python program in a process of its own, and everything that it starts.

    On leaving, all of that is killed; `left` tells whether it had ended by itself.
    """

    def __init__(
        self,
        text: str,
        folder: Path,
        *,
        argv: list[str] | None = None,
        terminal: int | None = None,
        **more: str,
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder
        self.path = folder / "program.py"
        self.path.write_text(textwrap.dedent(text))
        self._makers: set[int] = set()
        environment = {
            **os.environ,
            "TENDRIL_PLACE": "local",
            "TENDRIL_CORES": "2",
            "PYTHONUNBUFFERED": "1",
            **more,
            MARK: self.mark,
        }
        self.process = subprocess.Popen(
            argv or [sys.executable, str(self.path)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE if terminal is None else terminal,
            stderr=subprocess.PIPE if terminal is None else terminal,
            text=True,
            start_new_session=terminal is not None,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for _ in range(100):
            left = self.left()
            for one in left:
                kill(one.pid)
            if not left:
                break
        self.process.kill()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.process.wait()

    def left(self) -> list[Process]:
        """What runs of it now, itself included."""
        found = marked(self.mark)
        self._makers |= {one.pid for one in found if one.role == "supervisor"}
        return found

    def by_role(self, role: str) -> list[Process]:
        return [one for one in self.left() if one.role == role]

    def wait_for(self, name: str) -> Path:
        """Wait until the program, or a call of it, has made that file in its folder."""
        path = self.folder / name

        def there() -> bool:
            assert path.exists() or self.process.poll() is None, self._failed()
            return path.exists()

        wait_until(there, f"{name} is made")
        return path

    def _failed(self) -> str:
        out, err = self.process.communicate()
        return f"it ended early ({self.process.returncode}):\n{out}\n{err}"

    def finish(self, timeout: float = PATIENCE_S) -> tuple[int, str, str]:
        """Wait for its end: exit code, output, error output."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def assert_gone(self, timeout: float | None = None) -> None:
        """Nothing of it is left, or nothing is left in time: no process, no control group."""
        timeout = patient(GONE_S) if timeout is None else timeout
        deadline = time.monotonic() + timeout
        while (left := self.left()) or cgroups(self._makers):
            assert time.monotonic() < deadline, (
                f"left after {timeout:.1f} s: {left} {cgroups(self._makers)}"
            )
            time.sleep(0.01)
