"""The other end: what runs inside a zygote and inside a runner.

A zygote is a clean interpreter that imports what the function's module imports and forks runners
when asked. A runner takes calls one at a time, runs them and gives the outcome back. Both are
started by the supervisor with the words ``zygote`` or ``runner`` and the number of a descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import pickle
import sys
import time
from collections.abc import Callable
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from tendril import _pickling, _tendril
from tendril._outcome import pack_exception

_END_S = 10.0  # a runner without connection is killed, much sooner than this

# The connection of this process when it is a runner: what a nested map asks for its pool.
seat: _tendril.Seat | None = None


def main(preload: list[str], needs: dict[str, str] | None = None) -> None:
    """Entry of the command that the caller composed; see _environment.command."""
    role, fd = sys.argv[-2], int(sys.argv[-1])
    sys.argv[:] = [""]
    sys.stdout = sys.__stdout__ = _stream(1)
    sys.stderr = sys.__stderr__ = _stream(2)
    _tendril.die_with(os.getppid())
    os.set_inheritable(fd, False)
    if needs is not None:
        _check(needs)
    if role == "zygote":
        _zygote(fd, preload)
    else:
        _serve_and_exit(fd)


def _check(needs: dict[str, str]) -> None:
    """Exits with words, which reach the caller, where versions are not those of the caller."""
    from importlib.metadata import PackageNotFoundError, version

    wrong = []
    for name, theirs in needs.items():
        try:
            ours = "{}.{}".format(*sys.version_info) if name == "python" else version(name)
        except PackageNotFoundError:
            ours = "not installed"
        if ours != theirs:
            wrong.append(f"{name}: {ours} there, {theirs} at the caller")
    if wrong:
        sys.exit(f"the environment on {os.uname().nodename} differs: {'; '.join(wrong)}")


# What sys.stdout and sys.stderr write to. Not found through them: a call may replace these.
_streams: dict[int, _tendril.Stream] = {}


def _stream(fd: int) -> io.TextIOWrapper:
    """A text file that writes a line at a time, and knows whose it is."""
    if fd not in _streams:
        _streams[fd] = _tendril.Stream(fd)
    return io.TextIOWrapper(
        _streams[fd],  # type: ignore[type-var]
        encoding="utf-8",
        errors="backslashreplace",
        write_through=True,
    )


def _zygote(fd: int, preload: list[str]) -> None:
    orders = _tendril.Seat(fd)
    gc.disable()
    for name in ("cloudpickle", *preload):
        try:
            __import__(name)
        except Exception:  # the call that needs it will say so
            continue
    _hold_standard_descriptors()
    gc.freeze()  # a collection in a runner would write to, and so copy, all that was imported
    orders.ready(_tendril.thread_count())
    while (order := orders.receive()) is not None:
        if order[0] == "fork":
            _fork(orders, fd, *order[1:])


def _hold_standard_descriptors() -> None:
    """Open what an import has closed of 0, 1 and 2, so that nothing else gets these numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(fd)


def _fork(
    orders: _tendril.Seat, orders_fd: int, runner: int, channel: int, out: int, err: int
) -> None:
    """Fork a runner as a grandchild, so that it becomes the supervisor's child."""
    try:
        middle = os.fork()
        if middle == 0:
            _fork_again(orders, orders_fd, runner, channel, out, err)
        _, status = os.waitpid(middle, 0)
        failed = os.waitstatus_to_exitcode(status)
    except ChildProcessError:  # a package has SIGCHLD ignored: the process between has said it
        failed = 0
    except OSError as error:  # no memory for another process, or too many of them
        failed = error.errno or errno.ENOMEM
    for number in (channel, out, err):
        os.close(number)
    if failed:
        orders.forked(runner, -failed if failed > 0 else -errno.ENOMEM)


def _fork_again(
    orders: _tendril.Seat, orders_fd: int, runner: int, channel: int, out: int, err: int
) -> None:
    """In the process between: exits by 0, or by the errno that kept it from forking."""
    code = errno.ENOMEM
    try:
        middle_fd = os.pidfd_open(os.getpid())
        pid = os.fork()
        if pid > 0:
            orders.forked(runner, pid)
            code = 0
            return
        os.close(orders_fd)
        _become_runner(middle_fd, channel, out, err)
    except OSError as error:
        code = error.errno or code
    finally:
        os._exit(code)


def _become_runner(middle_fd: int, channel: int, out: int, err: int) -> None:
    """In the grandchild: cut what ties it to the zygote, then serve until the end."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.setsid()
    import select

    poll = select.poll()
    poll.register(middle_fd, select.POLLIN)
    poll.poll()  # until our parent has ended and the supervisor is our parent
    os.close(middle_fd)
    _tendril.die_with(os.getppid())
    _serve_and_exit(channel)


def _serve_and_exit(channel: int) -> None:
    """Serve until the end, which waits for nobody: no other thread, no atexit function."""
    code = 1
    try:
        _mend_streams()
        _reseed()
        gc.enable()
        _serve(channel)
        code = 0
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    """Write out what Python's and C's streams hold, as far as the call has left them in order."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            continue
    _tendril.flush_stdout()


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _mend_streams() -> None:
    """A runner has sys.stdout and sys.stderr, whatever an import has done to them."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        if getattr(getattr(sys, name, None), "closed", True):
            setattr(sys, name, _stream(fd))


def _reseed() -> None:
    """Every runner draws its own random numbers; `random` sees to itself after a fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _volunteer_for_oom() -> None:
    """When the machine runs out of memory, the kernel shall take a runner, not its caller."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def _serve(channel: int) -> None:
    """Take calls until the connection closes; then the supervisor ends this process."""
    global seat
    seat = connection = _tendril.Seat(channel)
    _tendril.adopt_orphans()
    _volunteer_for_oom()
    _tendril.line_buffer_stdout()
    functions: dict[bytes, bytes | Callable[..., Any]] = {}
    prepared = False
    connection.hello()
    while (message := connection.receive()) is not None:
        kind = message[0]
        if kind == "call":
            if not prepared:  # by the first call the supervisor has put us where we belong
                connection.prepare(
                    _pickling.RUN_OF_RESULTS, _pickling.RUN_END,
                    _settle, _dumps_result, _failure, _streams[1], _streams[2],
                )  # fmt: skip
                prepared = True
            _, map_id, index, count, skip, attempt, marked, key, payload = message
            del message
            try:
                if count == 1:
                    given = functions, key, payload, skip
                    connection.one(map_id, index, attempt, _load_one, given)
                else:
                    given = functions, key, payload
                    connection.go(map_id, index, attempt, marked, skip, _load_run, given)
            except _tendril.Error:
                break  # the call has closed it
            del payload, given
        elif kind == "function":
            functions[message[1]] = message[2]
        elif kind == "forget":
            functions.pop(message[1], None)
    time.sleep(_END_S)  # whoever closed it, the death that is told is not to look like our wish


def _load(functions: dict[bytes, bytes | Callable[..., Any]], key: bytes) -> Callable[..., Any]:
    fn = functions[key]
    if isinstance(fn, bytes):
        fn = functions[key] = pickle.loads(fn)
    return fn


def _raiser(error: BaseException) -> Callable[..., Any]:
    """A function that raises, for each of the calls that could not even begin."""

    def fail(*args: Any) -> None:
        raise error

    return fail


def _load_run(
    functions: dict[bytes, bytes | Callable[..., Any]], key: bytes, payload: bytes
) -> tuple[Callable[..., Any], list[Any], bool]:
    """A function, the inputs of its calls, and whether these are tuples of arguments."""
    items = _pickling.loads_run(payload)
    try:
        return _load(functions, key), items, payload[0] == 2
    except SystemExit:
        raise
    except BaseException as error:
        return _raiser(error), items, False


def _load_one(
    functions: dict[bytes, bytes | Callable[..., Any]],
    key: bytes,
    payload: bytes | memoryview,
    skip: int,
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """A function, and the arguments of a single call of it."""
    return _load(functions, key), *_arguments(payload, skip)


def _arguments(payload: bytes | memoryview, skip: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Those of a single call, which may be one of a run."""
    if _pickling.is_large(payload):
        called, value = _pickling.loads_large(payload)
        if called == _pickling.CALLED_WITH_BOTH:
            return value
        return (value if called == _pickling.CALLED_WITH_SEVERAL else (value,)), {}
    if not _pickling.is_run(payload):
        return pickle.loads(payload)
    item = _pickling.loads_run(payload)[skip]
    if isinstance(item, _tendril.Unreadable):
        raise item.args[0]
    return (item if payload[0] == 2 else (item,)), {}


def _dumps_result(result: Any) -> bytes | _tendril.Block:
    try:
        return _pickling.dumps_any(result)
    except BaseException as error:
        text = f"the result cannot be sent back: {_pickling.explain(result, error)}"
    raise _pickling.PicklingError(text)


def _failure(error: BaseException) -> bytes:
    """The exception of a call as bytes."""
    if isinstance(error, _tendril.Error):
        text = f"the result cannot be sent back: {error.args[1]}"
        error = _pickling.PicklingError(text)
    return pack_exception(_without_our_frames(error))


_LAZY = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def _settle(result: Any) -> Any:
    """Coroutines are run, generators collected: what a caller elsewhere can use."""
    if type(result) not in _LAZY:
        return result
    if isinstance(result, GeneratorType):
        return list(result)
    import asyncio

    async def collect() -> list[Any]:
        return [item async for item in result]

    return asyncio.run(result if isinstance(result, CoroutineType) else collect())


def _without_our_frames(error: BaseException) -> BaseException:
    """Leave out the frames of this file at the top of the traceback: they say nothing."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return error.with_traceback(trace)


def connect_to_pool() -> int:
    """A descriptor to this runner's own pool, for a map inside a call."""
    assert seat is not None, "only a runner has a pool of its own"
    import socket

    ours, theirs = socket.socketpair()
    with theirs:
        seat.guest(theirs.fileno())
    return ours.detach()
