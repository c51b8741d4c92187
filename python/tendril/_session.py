"""One session a process and place: the core's client, and the thread that brings its news into
Python.

The thread prints what calls have written and completes futures. A map's results are taken by
whoever iterates over it, directly from the core.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tendril import _tendril
from tendril._outcome import Outcome
from tendril._place import LOCAL
from tendril.errors import ClosedError, ConfigurationError, ForkedError, NotStarted

FORKED = (
    "Tendril cannot be used in a process that was forked from one that uses it. Start such "
    "processes with multiprocessing.get_context('spawn') or 'forkserver'."
)
_REFRESH_S = 0.2
_FORK_PATIENCE_S = 1.0  # a stream may wait for a reader that is about to be forked


class Session:
    """The client of this process and its background thread."""

    def __init__(self, place: str) -> None:
        if nested():
            runner = sys.modules["tendril._runner"]
            self.client = _tendril.Client("", link_fd=runner.connect_to_pool())
        elif place != LOCAL:
            self.client = _tendril.Client("", place=place)
        else:
            self.client = _tendril.Client(
                _supervisor_path(),
                slots=_number_from_environment("TENDRIL_CORES", "cores", 100_000),
                runners_max=_number_from_environment("TENDRIL_RUNNERS", "runners", 4096),
            )
        self._print_lock = threading.RLock()  # held by whoever writes to a stream
        self._forking: set[int] = set()  # threads that hold it while they fork
        self._notices: dict[int, Callable[[], None]] = {}
        self._tickers: set[Callable[[], None]] = set()
        self._thread = threading.Thread(target=self._run, name="tendril-deliver", daemon=True)
        self._thread.start()

    def on_notice(self, map_id: int, callback: Callable[[], None]) -> None:
        """Call back from the thread when that map's first outcome is there."""
        self._notices[map_id] = callback

    def forget_notice(self, map_id: int) -> None:
        self._notices.pop(map_id, None)

    def add_ticker(self, tick: Callable[[], None]) -> None:
        """Call back a few times a second; for progress bars."""
        self._tickers.add(tick)
        self.client.wake()

    def remove_ticker(self, tick: Callable[[], None]) -> None:
        self._tickers.discard(tick)

    def next_outcome(self, core: _tendril.Map) -> Outcome:
        """The map's next outcome, after writing what was printed before it. The thread that
        reads writes, so that its own prints and those of its calls do not run into each other.
        """
        while (record := core.next(None)) is None:
            self.print_output()
        self.print_output()
        return Outcome(*record)

    def print_output(self) -> None:
        """Write what calls have written so far to sys.stdout and sys.stderr."""
        with self._print_lock:
            while (output := self.client.take_output()) is not None:
                _, _, stream, data = output
                text = data.decode("utf-8", "replace")
                # A stream that is closed, or broken otherwise, has no reader; map.logs has the
                # text. No result may be lost for it.
                with contextlib.suppress(Exception):
                    _write(sys.stdout if stream == 1 else sys.stderr, text)

    def _run(self) -> None:
        try:
            while True:
                self.client.wait(_REFRESH_S if self._tickers else None)
                self.print_output()
                while (map_id := self.client.take_notice()) is not None:
                    callback = self._notices.pop(map_id, None)
                    if callback is not None:
                        _call_back(callback)
                for tick in list(self._tickers):
                    try:
                        with self._print_lock:
                            tick()
                    except Exception:  # what it draws on is closed
                        self.remove_ticker(tick)
        except _tendril.Error:  # closed
            self._tell_futures()

    def _tell_futures(self) -> None:
        """Whoever waits for a future of the closed session hears of that."""
        for map_id in list(self._notices):
            if (callback := self._notices.pop(map_id, None)) is not None:
                _call_back(callback)

    def close(self) -> None:
        """Cancel everything and end every process of ours. Blocks until they are told."""
        self.client.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._tell_futures()

    def before_fork(self) -> None:
        """Let a thread that prints leave the stream: the child would wait for it for ever, since
        Python's streams have locks that a fork does not release.
        """
        if self._print_lock.acquire(timeout=_FORK_PATIENCE_S):
            self._forking.add(threading.get_ident())

    def after_fork_in_parent(self) -> None:
        if threading.get_ident() in self._forking:
            self._forking.remove(threading.get_ident())
            self._print_lock.release()

    def after_fork_in_child(self) -> None:
        """The lock may be held by a thread that the child does not have."""
        self._print_lock = threading.RLock()
        self._forking.clear()


def _call_back(callback: Callable[[], None]) -> None:
    """What a user's callback raises, also SystemExit, must not end the thread that all share."""
    try:
        callback()
    except BaseException:
        here = threading.current_thread()
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), here)))


def _write(stream: Any, text: str) -> None:
    """Whole lines to a stream, around a progress bar if one is shown there."""
    if stream is None:
        return
    if not text.endswith("\n"):
        text += "\n"
    tqdm_std = sys.modules.get("tqdm.std")
    if tqdm_std is not None and getattr(tqdm_std.tqdm, "_instances", None):
        with tqdm_std.tqdm.external_write_mode(file=stream):
            _write_any(stream, text)
    else:
        _write_any(stream, text)
    stream.flush()


def _write_any(stream: Any, text: str) -> None:
    """Write what the stream's encoding has, and the rest as escapes."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _number_from_environment(name: str, what: str, most: int) -> int:
    """The value of a variable; 0, which stands for the default, when it is not set."""
    text = os.environ.get(name, "0")
    if not text.isdecimal() or int(text) > most:
        raise ConfigurationError(f"{name}={text!r} is not a number of {what} (at most {most:,})")
    return int(text)


def _candidates() -> Iterator[str]:
    package = os.path.dirname(os.path.abspath(__file__))
    yield os.environ.get("TENDRIL_COMMAND", "")
    # lib/pythonX.Y/site-packages/tendril -> bin, for environments, --user and --prefix
    yield os.path.join(package, "..", "..", "..", "..", "bin", "tendril")
    yield os.path.join(package, "..", "bin", "tendril")  # pip install --target
    import sysconfig

    yield os.path.join(sysconfig.get_path("scripts"), "tendril")


def _supervisor_path() -> str:
    """The command `tendril` that was installed with this package."""
    for candidate in _candidates():
        if candidate and os.access(candidate, os.X_OK):
            return os.path.normpath(candidate)
    raise ConfigurationError(
        "the command `tendril` that belongs to this package was not found; "
        "install the package again, or name it in TENDRIL_COMMAND"
    )


_lock = threading.Lock()
_sessions: dict[str, Session] = {}  # by place
_forked = False
_closed = False


def nested() -> bool:
    """Whether this process is a runner: what its calls submit goes to the pool that it is of."""
    runner = sys.modules.get("tendril._runner")
    return runner is not None and runner.seat is not None


def get_session(place: str = LOCAL) -> Session:
    """The session of this process with a place, started when it is first needed."""
    if _forked:
        raise ForkedError(FORKED)
    session = _sessions.get(place)
    if session is not None:
        return session
    with _lock:
        if _closed:
            raise ClosedError("the interpreter is shutting down")
        if place not in _sessions:
            _sessions[place] = _start(place)
        return _sessions[place]


def _start(place: str) -> Session:
    try:
        return Session(place)
    except _tendril.Error as error:
        raise NotStarted(f"no session could be started: {error.args[1]}") from None
    except OSError as error:
        raise NotStarted(f"no session could be started: {error}") from error


def close_session(place: str = LOCAL) -> None:
    """End the session with a place; the next use starts another."""
    with _lock:
        session = _sessions.pop(place, None)
    if session is not None:
        session.close()


def _at_exit() -> None:
    global _closed
    _closed = True
    for place in list(_sessions):
        close_session(place)


def _before_fork() -> None:
    for session in list(_sessions.values()):
        session.before_fork()


def _after_fork_in_parent() -> None:
    for session in list(_sessions.values()):
        session.after_fork_in_parent()


def _after_fork_in_child() -> None:
    """The child has our memory, but not our threads: it must not touch the core."""
    global _lock, _forked
    _lock = threading.Lock()
    if nested():
        _forked = True  # the connection to its pool is the parent's too
    for session in _sessions.values():
        _forked = True
        session.after_fork_in_child()  # for its maps, which the child has too
        _keep_alive.append(session)  # its objects must not be finalised over here
    _sessions.clear()


_keep_alive: list[Session] = []
atexit.register(_at_exit)
os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
