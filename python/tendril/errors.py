"""What can go wrong, by type.

An exception that the user's function raises comes back as its own type, with the remote
traceback as its cause. Everything below is for what is not the function's own exception.
"""

from __future__ import annotations


class TendrilError(RuntimeError):
    """Base of every error that Tendril itself raises."""


class ConfigurationError(TendrilError):
    """Where the function should run is not configured; the text says what to do."""


class NotAvailable(TendrilError, NotImplementedError):
    """The option or place exists in the design and is not built yet."""


class ForkedError(TendrilError):
    """Tendril was used in a process forked from one that had used it."""


class ClosedError(TendrilError):
    """The session was closed, or the process that held its pool is gone."""


class PicklingError(TendrilError):
    """Something cannot be sent: the text names it, the path to what hurts, and the reason."""


class CallError(TendrilError):
    """A call did not finish.

    Attributes:
        index: number of the call in its map.
        attempts: how often it was tried.
        last_output: the last lines (at most 4 KiB) that this call wrote.
        duration_s: seconds that the last attempt ran.
        peak_bytes: most resident memory of its runner, or 0 when not known.
    """

    index: int = 0
    attempts: int = 0
    last_output: str = ""
    duration_s: float = 0.0
    peak_bytes: int = 0

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        if not self.last_output:
            return self.message
        lines = "\n".join(f"  | {line}" for line in self.last_output.splitlines())
        return f"{self.message}\nIts last output:\n{lines}"


class OutOfMemory(CallError, MemoryError):
    """The call went over its memory limit.

    Attributes:
        limit_bytes: the limit; peak_bytes tells how far it got.
    """

    limit_bytes: int = 0


class RunnerCrashed(CallError):
    """The process that ran the call died.

    Attributes:
        signal: name of the signal that killed it ("SIGSEGV"), or None.
        exit_code: its exit code when it exited by itself, or None.
    """

    signal: str | None = None
    exit_code: int | None = None


class TimedOut(CallError, TimeoutError):
    """The call ran longer than its timeout and was stopped."""


class Cancelled(CallError):
    """The call or its map was cancelled."""


class NotStarted(CallError):
    """No runner could be started for the call; the text says why."""


class MachineLost(CallError):
    """The machine that ran the call is gone."""


class SpotReclaimed(MachineLost):
    """The cloud took the spot machine back."""


class CallerLost(TendrilError):
    """The caller of an attached map died before it had submitted all inputs."""


class RemoteError(CallError):
    """Stands for an exception that could not be brought back as its own type.

    Attributes:
        type_name: the original type, as module.name.
    """

    type_name: str = ""


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a runner: the traceback over there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'
