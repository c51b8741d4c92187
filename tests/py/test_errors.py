"""What goes wrong, and what a person is told: the type, the place, the reason, the last output."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import havoc
import pytest
import tendril
from conftest import RunScript

MIB = 1 << 20


def error_of(fn: Callable[..., Any], *args: Any, **options: Any) -> BaseException:
    """The exception that a call of this function ends with."""
    with pytest.raises(BaseException) as caught:
        tendril.function(fn, **options)(*args)
    return caught.value


# -- the function's own exceptions ----------------------------------------------------------------


class OwnError(Exception):
    """With more to it than its text."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(code)
        self.code = code
        self.hint = hint

    def __reduce__(self) -> Any:
        return _own_error, (self.code, self.hint)


def _own_error(code: int, hint: str) -> OwnError:
    return OwnError(code, hint=hint)


def raise_here(x: int) -> None:
    raise OwnError(x, hint="look")  # the remote line


def test_own_type_with_the_remote_traceback_as_its_cause() -> None:
    error = error_of(raise_here, 3)
    assert isinstance(error, OwnError)
    assert (error.code, error.hint) == (3, "look")
    cause = error.__cause__
    assert isinstance(cause, tendril.RemoteTraceback)
    text = str(cause)
    assert "in raise_here" in text
    assert 'raise OwnError(x, hint="look")  # the remote line' in text
    assert __file__ in text
    assert "_runner.py" not in text
    shown = "".join(traceback.format_exception(error))
    assert "# the remote line" in shown
    assert "direct cause" in shown


def test_remote_line_of_a_script_is_shown(run_script: RunScript) -> None:
    ended = run_script(
        """
        import tendril

        def inner(x):
            return 1 / x  # the division

        @tendril.function
        def outer(x):
            return inner(x)

        outer(0)
        """,
        check=False,
    )
    assert ended.code == 1
    assert "return 1 / x  # the division" in ended.err
    assert "in outer" in ended.err
    assert "ZeroDivisionError: division by zero" in ended.err
    assert str(run_script.folder / "script.py") in ended.err


def test_chain_notes_and_groups_survive() -> None:
    def chained() -> None:
        try:
            {}["key"]
        except KeyError as first:
            error = ValueError("second")
            error.add_note("a note")
            raise error from first

    def grouped() -> None:
        raise ExceptionGroup("both", [ValueError("one"), OSError(2, "two")])

    error = error_of(chained)
    assert isinstance(error, ValueError)
    assert error.__notes__ == ["a note"]
    assert "KeyError: 'key'" in str(error.__cause__)
    assert "direct cause" in str(error.__cause__)
    group = error_of(grouped)
    assert isinstance(group, ExceptionGroup)
    assert isinstance(group.exceptions[1], FileNotFoundError)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("k"),
        OSError(13, "denied", "file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        SyntaxError("bad", ("f.py", 1, 2, "x =")),
        StopIteration(3),
        KeyboardInterrupt(),
        MemoryError("much"),
        RecursionError("deep"),
        AssertionError(),
        subprocess.CalledProcessError(3, ["cmd"], b"out", b"err"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_common_exceptions_come_back_as_they_are(error: BaseException) -> None:
    def fail() -> None:
        raise error

    back = error_of(fail)
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)


def test_error_in_an_imported_module_and_in_a_third_party_one() -> None:
    def parse() -> None:
        import json

        json.loads("{")

    error = error_of(parse)
    assert type(error).__name__ == "JSONDecodeError"
    assert error.pos == 1  # type: ignore[attr-defined]


class OddInit(Exception):
    """Cannot be rebuilt from its args: what pickle does by default."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Holder(Exception):
    """Holds something that cannot travel."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def test_exception_with_an_odd_init_comes_as_remote_error() -> None:
    def fail() -> None:
        raise OddInit(1, 2)

    error = error_of(fail)
    assert isinstance(error, tendril.RemoteError)
    assert error.type_name == f"{__name__}.OddInit"
    assert "OddInit: 1 and 2" in str(error)
    assert "missing 1 required positional argument" in str(error)
    assert "raise OddInit(1, 2)" in str(error.__cause__)
    assert error.index == 0


def test_exception_without_text() -> None:
    def fail() -> None:
        raise NoText

    assert isinstance(error_of(fail), NoText)


def test_exception_that_cannot_be_pickled_is_named_with_path_and_reason() -> None:
    def fail() -> None:
        print("before")
        raise Holder("with a lock")

    error = error_of(fail)
    assert isinstance(error, tendril.RemoteError)
    assert error.type_name == f"{__name__}.Holder"
    assert "with a lock" in str(error)
    assert "lock (a _thread.lock): TypeError: cannot pickle" in str(error)
    assert error.last_output == "before\n"
    assert "raise Holder" in str(error.__cause__)


def test_exception_that_cannot_be_read_here() -> None:
    class Stranger(Exception):
        def __reduce__(self) -> Any:
            return _only_there, (os.getpid(),)

    def fail() -> None:
        raise Stranger("x")

    error = error_of(fail)
    assert isinstance(error, tendril.RemoteError)
    assert "not over here" in str(error)


def _only_there(pid: int) -> Exception:
    if os.getpid() != pid:
        raise ValueError("not over here")
    return ValueError("made over there")


def test_exception_with_ten_megabytes_of_text() -> None:
    def fail() -> None:
        raise ValueError("x" * 10_000_000)

    assert len(str(error_of(fail))) == 10_000_000


def test_deep_recursion_in_the_function() -> None:
    def forever(n: int) -> int:
        return forever(n + 1)

    error = error_of(forever, 0)
    assert isinstance(error, RecursionError)
    assert "return forever(n + 1)" in str(error.__cause__)
    assert len(str(error.__cause__)) < 20_000


# -- what cannot be sent --------------------------------------------------------------------------

_lock = threading.Lock()


class Part:
    def __init__(self) -> None:
        self.fine = 1
        self.handle = {"deep": [1, threading.Lock()]}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((threading.Lock(),), "argument 0 cannot be sent: a _thread.lock: TypeError"),
        ((1, [2, (x for x in ())]), "argument 1 cannot be sent: [1] (a generator): TypeError"),
        (
            (Part(),),
            "argument 0 cannot be sent: handle['deep'][1] (a _thread.lock): TypeError: "
            "cannot pickle '_thread.lock' object",
        ),
        (({"a": sys._getframe()},), "argument 0 cannot be sent: ['a'] (a frame)"),
    ],
    ids=["lock", "generator", "attribute", "frame"],
)
def test_argument_is_named_with_path_and_reason(args: tuple[Any, ...], words: str) -> None:
    accept = tendril.function(lambda *args, **kwargs: None)
    for call in (accept, accept.submit):
        with pytest.raises(tendril.PicklingError) as caught:
            call(*args)
        assert words in str(caught.value)
    with pytest.raises(tendril.PicklingError, match="argument key cannot be sent"):
        accept(1, key=args[-1])


def test_argument_of_one_call_spoils_no_other() -> None:
    accept = tendril.function(lambda x: x)
    results = accept.map([1, threading.Lock(), 3], errors="return")
    one, error, three = results
    assert (one, three) == (1, 3)
    assert isinstance(error, tendril.PicklingError)
    assert "argument 0 cannot be sent: a _thread.lock" in str(error)
    assert [(one.index, one.attempts) for one in results.failures()] == [(1, 0)]
    assert list(accept.map([threading.Lock()] * 3, errors="skip")) == []


def test_function_is_named_with_path_and_reason() -> None:
    held = {"deep": threading.Lock()}

    def closes_over() -> Any:
        return held

    def uses_global() -> Any:
        return _lock

    def has_default(x: Any = _lock) -> Any:
        return x

    for fn, words in (
        (closes_over, "closes_over cannot be sent: held['deep'] (a _thread.lock): TypeError"),
        (uses_global, "uses_global cannot be sent: _lock (a _thread.lock): TypeError"),
        (has_default, "has_default cannot be sent: __defaults__[0] (a _thread.lock): TypeError"),
    ):
        f = tendril.function(fn)
        for call in (f, f.submit, lambda f=f: f.map([1])):
            with pytest.raises(tendril.PicklingError) as caught:
                call()
            assert words in str(caught.value)


def test_result_is_named_with_path_and_reason() -> None:
    def give() -> Any:
        print("so far")
        return {"parts": [1, Part()]}

    error = error_of(give)
    assert isinstance(error, tendril.PicklingError)
    assert (
        "the result cannot be sent back: ['parts'][1].handle['deep'][1] (a _thread.lock): TypeError"
    ) in str(error)


def test_result_that_cannot_be_read_here_is_named() -> None:
    class There:
        def __reduce__(self) -> Any:
            return _only_there, (os.getpid(),)

    give = tendril.function(There)
    with pytest.raises(
        tendril.PicklingError, match="the result of call 0 cannot be read here: ValueError: not"
    ):
        give()
    results = tendril.function(lambda i: There() if i == 1 else i).map(range(3), errors="return")
    zero, error, two = results
    assert (zero, two) == (0, 2)
    assert isinstance(error, tendril.PicklingError)
    assert "call 1" in str(error)
    assert len(results.failures()) == 1
    assert isinstance(give.submit().exception(), tendril.PicklingError)


class Refuses:
    """Its own pickling raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError("not me"), AttributeError("lost")], ids=["ValueError", "AttributeError"]
)
def test_what_pickling_itself_raises_is_told(error: Exception) -> None:
    words = f"{type(error).__name__}: {error}"
    with pytest.raises(tendril.PicklingError) as caught:
        tendril.function(len)([Refuses(error)])
    assert "[0]" in str(caught.value)
    assert words in str(caught.value)
    assert words in str(error_of(lambda: Refuses(error)))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_recursion_in_pickling_is_told() -> None:
    depth = 200_000
    with pytest.raises(tendril.PicklingError, match="nested too deeply"):
        tendril.function(len)(nested(depth))
    error = error_of(lambda: nested(depth))
    assert isinstance(error, tendril.PicklingError)
    assert "nested too deeply" in str(error)

    def fail() -> None:
        raise ValueError(nested(depth))

    error = error_of(fail)
    assert isinstance(error, tendril.RemoteError)
    assert "nested too deeply" in str(error)
    assert tendril.function(len)(nested(100)) == 1


def test_argument_that_unpickles_badly_is_the_calls_error() -> None:
    class Mine:
        def __reduce__(self) -> Any:
            return _only_there, (os.getpid(),)

    error = error_of(lambda x: x, Mine())
    assert isinstance(error, ValueError)
    assert "not over here" in str(error)


def test_missing_module_in_the_runner_is_the_calls_error() -> None:
    def needs() -> None:
        import no_such_module_anywhere  # noqa: F401

    assert isinstance(error_of(needs), ModuleNotFoundError)


# -- the process of a call ------------------------------------------------------------------------


def test_out_of_memory_tells_peak_and_limit() -> None:
    @tendril.function(memory="300 MiB")
    def work(mib: int) -> int:
        print(f"taking {mib} MiB")
        block = bytearray(mib * MIB)
        block[:: 4 << 10] = bytes(len(block) // (4 << 10))  # each page is really used
        deadline = time.monotonic() + 60
        while mib > 300 and time.monotonic() < deadline:
            time.sleep(0.1)  # where no group limits memory, somebody has to look
        return len(block)

    results = work.map([50, 600, 60], errors="return")
    small, error, other = results
    assert (small, other) == (50 * MIB, 60 * MIB)
    assert isinstance(error, tendril.OutOfMemory)
    assert isinstance(error, MemoryError)
    assert error.limit_bytes == 300 * MIB
    assert error.peak_bytes >= 0.9 * 300 * MIB
    assert error.index == 1
    assert error.last_output == "taking 600 MiB\n"
    assert "300 MiB" in str(error)
    assert f"{error.peak_bytes >> 20} MiB" in str(error)


def test_memory_of_child_processes_counts() -> None:
    """Where the kernel watches a group it ends the child, and the call hears of that."""

    @tendril.function(memory="300 MiB")
    def work() -> None:
        take = "import time; b = bytearray(600 << 20); b[::4096] = bytes(len(b) >> 12);"
        subprocess.run([sys.executable, "-c", take + "time.sleep(60)"], check=True)

    with pytest.raises((tendril.OutOfMemory, subprocess.CalledProcessError), match=r"SIGKILL|MiB"):
        work()


@pytest.mark.parametrize(
    ("end", "name", "code"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL", None),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "SIGTERM", None),
        (lambda: ctypes.string_at(0), "SIGSEGV", None),
        (os.abort, "SIGABRT", None),
        (lambda: os._exit(7), None, 7),
        (lambda: os._exit(0), None, 0),
        (lambda: sys.exit(3), None, 3),
        (lambda: sys.exit(), None, 0),
        (lambda: sys.exit("a text"), None, 1),
        (lambda: exit(4), None, 4),
    ],
    ids=["kill", "term", "segv", "abort", "_exit", "_exit0", "exit", "exit0", "exit-text", "quit"],
)
def test_runner_that_dies_is_that_calls_error(
    end: Callable[[], Any], name: str | None, code: int | None
) -> None:
    @tendril.function
    def work(i: int) -> int:
        print(f"call {i}")
        if i == 3:
            end()
        return i

    results = list(work.map(range(6), errors="return"))
    error = results[3]
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5]
    assert isinstance(error, tendril.RunnerCrashed)
    assert (error.signal, error.exit_code) == (name, code)
    assert (name or f"exit code {code}") in str(error)
    assert (error.index, error.attempts) == (3, 1)
    assert "call 3" in error.last_output.splitlines()
    assert "  | call 3" in str(error)


def test_exit_in_a_thread_or_child_is_not_the_calls_end() -> None:
    @tendril.function
    def work() -> int:
        thread = threading.Thread(target=sys.exit)
        thread.start()
        thread.join()
        return subprocess.call([sys.executable, "-c", "raise SystemExit(5)"])

    assert work() == 5


def test_timed_out_tells_how_long_and_the_last_output() -> None:
    @tendril.function(timeout=0.3)
    def work(i: int) -> int:
        print(f"call {i}")
        os.write(2, b"no newline")
        if i == 1:
            while True:
                pass  # not even a signal handler of Python's would get through
        return i

    results = work.map(range(3), errors="return")
    zero, error, two = results
    assert (zero, two) == (0, 2)
    assert isinstance(error, tendril.TimedOut)
    assert error.duration_s >= 0.3
    assert "ran longer than its timeout" in str(error)
    assert error.last_output == "call 1\nno newline"
    assert (error.index, error.attempts) == (1, 1)


def test_last_output_is_that_of_the_very_call() -> None:
    """One runner runs many calls: the words of others are not blamed on the one that fell."""

    @tendril.function
    def work(i: int) -> int:
        for line in range(3):
            print(f"call {i} line {line}")
        if i % 10 == 9:
            os._exit(1)
        return i

    for i, one in enumerate(work.map(range(40), errors="return")):
        if i % 10 == 9:
            assert isinstance(one, tendril.RunnerCrashed)
            assert one.last_output == "".join(f"call {i} line {line}\n" for line in range(3))


def test_last_output_is_the_end_of_it() -> None:
    def work() -> None:
        for i in range(10_000):
            print(f"line {i}")
        os._exit(1)

    error = error_of(work)
    assert isinstance(error, tendril.RunnerCrashed)
    assert error.last_output.endswith("line 9998\nline 9999\n")
    assert 1000 < len(error.last_output) <= 4 << 10


def test_crash_in_a_nested_call_is_told_by_its_own_type() -> None:
    @tendril.function
    def inner() -> None:
        print("inner dies")
        os.kill(os.getpid(), signal.SIGKILL)

    error = error_of(lambda: inner())
    assert isinstance(error, tendril.RunnerCrashed)
    assert error.signal == "SIGKILL"
    assert error.last_output == "inner dies\n"


def test_errors_of_ours_can_be_pickled() -> None:
    """They cross process borders themselves: from a nested call, or by multiprocessing."""

    @tendril.function
    def die() -> None:
        print("last words")
        os._exit(9)

    error = die.submit().exception()
    assert isinstance(error, tendril.RunnerCrashed)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (copy.exit_code, copy.index, copy.last_output) == (9, 0, "last words\n")


def test_what_a_call_leaves_running_ends_with_it(tmp_path: Path) -> None:
    """Children that the function forgot must not live on, crash or not."""
    note = tmp_path / "pid"

    @tendril.function
    def forget() -> None:
        child = subprocess.Popen(["sleep", "600"])
        note.write_text(str(child.pid))

    forget()
    pid = int(note.read_text())
    havoc.wait_until(lambda: not havoc.alive(pid), "the forgotten child ends")


def test_call_errors_are_of_one_family() -> None:
    for kind in (
        tendril.OutOfMemory,
        tendril.RunnerCrashed,
        tendril.TimedOut,
        tendril.Cancelled,
        tendril.MachineLost,
        tendril.SpotReclaimed,
        tendril.RemoteError,
        tendril.NotStarted,
    ):
        assert issubclass(kind, tendril.CallError)
        assert issubclass(kind, tendril.TendrilError)
    assert issubclass(tendril.SpotReclaimed, tendril.MachineLost)
    error = tendril.CallError("what")
    assert str(error) == "what"
    error.last_output = "a\nb\n"
    assert str(error) == "what\nIts last output:\n  | a\n  | b"


def test_runner_that_cannot_start_says_why(run_script: RunScript) -> None:
    ended = run_script("""
        import sys
        import tendril
        f = tendril.function(lambda: 1)
        sys.executable = "/no/such/python"
        try:
            f()
        except tendril.NotStarted as error:
            print(error)
    """)
    assert "/no/such/python" in ended.out


def test_command_that_is_missing_is_named(run_script: RunScript, tmp_path: Path) -> None:
    ended = run_script(
        """
        import tendril
        try:
            tendril.function(lambda: 1)()
        except tendril.TendrilError as error:
            print(error)
        """,
        TENDRIL_COMMAND="/bin/false",
    )
    assert ended.out
    assert "Traceback" not in ended.err
