"""What all Python tests share: this machine as the place, programs run apart, a pseudo-terminal,
and after each module the proof that closing the session leaves no process behind."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import havoc
import pytest

# Whoever starts the tests in the background may have it ignored, which programs inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before tendril is used: what the tests see must not depend on who runs them, and where.
os.environ["TENDRIL_PLACE"] = os.environ.get("TENDRIL_TEST_PLACE", "local")
os.environ["TENDRIL_CORES"] = "2"
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="tendril-no-config-")
for name in ("TENDRIL_PROGRESS", "TQDM_DISABLE"):
    os.environ.pop(name, None)

SCRIPT_S = 60.0  # a script that has not ended by then hangs


class Ended(NamedTuple):
    """A program that has ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


class RunScript:
    """Runs a Python program apart, as a user would: a __main__ of its own, pipes or files as its
    standard streams."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, source: str) -> Path:
        """The program as a file in this test's folder."""
        path = self.folder / "script.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    def __call__(self, source: str, *arguments: str, check: bool = True, **environ: str) -> Ended:
        """Run a program to its end; check: it must exit by 0."""
        done = subprocess.run(
            [sys.executable, str(self.write(source)), *arguments],
            cwd=self.folder,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SCRIPT_S,
            check=False,
        )
        ended = Ended(
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )
        assert not check or ended.code == 0, f"exit code {ended.code}\n{ended.out}\n{ended.err}"
        return ended


@pytest.fixture
def run_script(tmp_path: Path) -> RunScript:
    return RunScript(tmp_path)


Terminal = Callable[..., Ended]


@pytest.fixture
def run_in_terminal(run_script: RunScript) -> Terminal:
    """Runs a program on a pseudo-terminal; `out` is all that the terminal was sent.

    once: a text, and what to do when the terminal shows it.
    """

    def run(
        source: str,
        *,
        once: tuple[str, Callable[[], None]] | None = None,
        pipe_stderr: bool = False,
        **environ: str,
    ) -> Ended:
        path = run_script.write(source)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
        with tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                [sys.executable, str(path)],
                cwd=run_script.folder,
                env={**os.environ, "TERM": "xterm", **environ},
                stdin=theirs,
                stdout=theirs,
                stderr=err if pipe_stderr else theirs,
                start_new_session=True,
            )
            os.close(theirs)
            try:
                out = _read_all(ours, once)
                code = process.wait(SCRIPT_S)
            finally:
                os.close(ours)
                process.kill()
                process.wait()
            err.seek(0)
            return Ended(code, out.decode("utf-8", "replace"), err.read().decode())

    return run


def _read_all(terminal: int, once: tuple[str, Callable[[], None]] | None) -> bytes:
    """Everything until the last process that has the other side open is gone."""
    deadline = time.monotonic() + SCRIPT_S
    data = b""
    while True:
        left = deadline - time.monotonic()
        assert left > 0, f"the program on the terminal hangs; so far: {data!r}"
        if not select.select([terminal], [], [], left)[0]:
            continue
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # EIO: nobody has the other side
            return data
        if not part:
            return data
        data += part
        if once is not None and once[0].encode() in data:
            once[1]()
            once = None


class Gate:
    """Where calls wait until the test lets them go on: a FIFO, so that nobody sleeps.

    The test holds its writing end; readers block until that closes. Only the path travels.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(self.path)
        self._writer = os.open(self.path, os.O_RDWR)

    def __getstate__(self) -> dict[str, str]:
        return {"path": self.path}

    def wait(self) -> None:
        """In a call: go on when the gate is open."""
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reader, True)
        os.read(reader, 1)  # the end of the file, once there is no writer
        os.close(reader)

    def open(self) -> None:
        """Let all go that wait, and all that will come."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    try:
        yield gate
    finally:
        gate.open()


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """Closing the session must end every process and thread of ours, module by module."""
    mark = uuid.uuid4().hex
    os.environ[havoc.MARK] = mark
    yield
    from tendril import _session

    for place in list(_session._sessions):
        _session.close_session(place)
    havoc.wait_until(lambda: not havoc.marked(mark), f"no process of mark {mark} is left")
    ours = [one for one in threading.enumerate() if one.name.startswith("tendril-")]
    for one in ours:
        one.join(havoc.PATIENCE_S)
    assert not [one.name for one in ours if one.is_alive()]
