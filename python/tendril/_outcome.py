"""Turning the core's record of a call into a value or an exception, and exceptions into bytes."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

from tendril import _pickling, _tendril, errors


class Outcome(NamedTuple):
    """One attempt's record, as the core gives it (see src/task/outcome.h)."""

    index: int
    count: int
    skip: int
    status: int
    attempt: int
    value: bytes | memoryview | None
    code: int
    pid: int
    started_ns: int
    duration_ns: int
    peak_bytes: int
    limit_bytes: int
    last_output: bytes | None
    detail: bytes | None

    @property
    def ok(self) -> bool:
        return self.status == _tendril.OUTCOME_OK


def value_of(outcome: Outcome) -> Any:
    """The result of a call that returned. Raises PicklingError when it cannot be read here."""
    assert outcome.value is not None
    try:
        return _pickling.loads_result(outcome.value)
    except Exception as error:
        raise unreadable(outcome.index, error) from error


def values_of(outcome: Outcome) -> list[Any]:
    """The results of calls that returned; some may be Unreadable. Raises PicklingError when there
    is only one, and it is."""
    assert outcome.value is not None
    if not _pickling.is_run(outcome.value):
        return [value_of(outcome)]
    values = _pickling.loads_run(outcome.value)
    if len(values) == outcome.count:
        return values
    return values[outcome.skip : outcome.skip + outcome.count]


def unreadable(index: int, error: BaseException) -> errors.PicklingError:
    """For a result that cannot be read."""
    wrapped = errors.PicklingError(
        f"the result of call {index} cannot be read here: {type(error).__name__}: {error}"
    )
    wrapped.__cause__ = error
    return wrapped


def error_of(outcome: Outcome, name: str) -> BaseException:
    """The exception for a call that did not return; name is the function's."""
    if outcome.status == _tendril.OUTCOME_RAISED:
        return _raised(outcome, name)
    who = f"{name}: call {outcome.index}"
    match outcome.status:
        case _tendril.OUTCOME_CRASHED:
            error = _crashed(outcome, who)
        case _tendril.OUTCOME_OUT_OF_MEMORY:
            error = errors.OutOfMemory(
                f"{who} went over its memory limit: it had {_size(outcome.peak_bytes)} "
                f"of {_size(outcome.limit_bytes)}"
            )
            error.limit_bytes = outcome.limit_bytes
        case _tendril.OUTCOME_TIMED_OUT:
            error = errors.TimedOut(
                f"{who} ran longer than its timeout and was stopped after "
                f"{outcome.duration_ns / 1e9:.1f} s"
            )
        case _tendril.OUTCOME_CANCELLED:
            error = errors.Cancelled(f"{who} was cancelled")
        case _:
            error = errors.NotStarted(f"{who} could not be started{_colon(outcome.detail)}")
    return _fill(error, outcome)


def tame(error: BaseException, index: int, name: str) -> BaseException:
    """What to raise for it where StopIteration would mean something else: the end of a loop."""
    if not isinstance(error, StopIteration):
        return error
    tamed = RuntimeError(f"{name}: call {index} raised StopIteration")
    tamed.__cause__ = error
    return tamed


def _fill(error: errors.CallError, outcome: Outcome) -> errors.CallError:
    error.index = outcome.index
    error.attempts = outcome.attempt
    error.duration_s = outcome.duration_ns / 1e9
    error.peak_bytes = outcome.peak_bytes
    error.last_output = (outcome.last_output or b"").decode("utf-8", "replace")
    return error


def _colon(detail: bytes | None) -> str:
    return f": {detail.decode('utf-8', 'replace').strip()}" if detail else ""


def _size(number: int) -> str:
    return f"{number / 2**20:.0f} MiB" if number >= 2**20 else f"{number} bytes"


def _crashed(outcome: Outcome, who: str) -> errors.RunnerCrashed:
    if outcome.code < 0:
        import signal

        try:
            name = signal.Signals(-outcome.code).name
        except ValueError:
            name = f"signal {-outcome.code}"
        text = f"{who}: its runner was killed by {name}"
        if name == "SIGKILL":
            text += " (by somebody, or by the kernel because the machine ran out of memory)"
    else:
        name = None
        text = f"{who} ended its runner: exit code {outcome.code}"
    error = errors.RunnerCrashed(text + _colon(outcome.detail))
    error.signal = name
    error.exit_code = None if name else outcome.code
    return error


def _raised(outcome: Outcome, name: str) -> BaseException:
    """The function's own exception, with the traceback over there as its cause."""
    assert outcome.value is not None
    try:
        packed = _pickling.loads_result(outcome.value)
    except Exception as error:
        packed = (None, "", "an exception", "", f"{type(error).__name__}: {error}")
    if packed[0] is not None:
        error, text = packed
        if text:
            error.__cause__ = errors.RemoteTraceback(text)
        return error
    _, text, type_name, message, why = packed
    error = errors.RemoteError(
        f"{name}: call {outcome.index} raised {type_name}: {message}\n"
        f"(the exception itself could not be brought back: {why})"
    )
    error.type_name = type_name
    error.__cause__ = errors.RemoteTraceback(text)
    return _fill(error, outcome)


def pack_exception(error: BaseException) -> bytes:
    """An exception as bytes: itself with its traceback's text, or only words for it."""
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        data = _pickling.dumps((error, text))
        pickle.loads(data)  # an exception whose __init__ wants more than args fails only here
    except BaseException as reason:
        kind = type(error)
        name = f"{kind.__module__}.{kind.__qualname__}"
        why = _pickling.explain(error, reason)
        return pickle.dumps((None, text, name, _safe_str(error), why), protocol=_pickling.PROTOCOL)
    return data


def _safe_str(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<its text could not be made>"
