"""The caller's end, in whatever way it comes, at whatever moment: nothing is left running, and
nobody waits. And callers that fork, signal, wait and thread as they like."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tendril
from havoc import Program, kill, patient, wait_until
from tendril import _session

# What every program below begins with. `stay` says by a file that it runs, and runs on.
PREAMBLE = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
import tendril

@tendril.function(local=True)
def double(x):
    return 2 * x

@tendril.function(local=True)
def stay(x=0):
    Path(f"runs-{os.getpid()}").touch()
    while not Path("end").exists():
        time.sleep(0.005)
    return x

@tendril.function(local=True)
def stay_with_daemons(x=0):
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.closerange(0, 100)
            time.sleep(1000)
    subprocess.Popen(["setsid", "sleep", "1000"])
    return stay.local(x)

@tendril.function(local=True)
def big(x):
    return b"x" * (8 << 20)
"""


def program(text: str, folder: Path, **more: str) -> Program:
    """A program of these lines, behind the preamble."""
    (folder / "body.py").write_text(text)
    return Program(PREAMBLE + text, folder, **more)


def wait_running(one: Program, calls: int = 1) -> None:
    wait_until(lambda: len(list(one.folder.glob("runs-*"))) >= calls, "the calls run")


# -- killed ----------------------------------------------------------------------------------------

STAGES = {
    "idle": "double(1); Path('there').touch(); time.sleep(1000)",
    "call": "stay()",
    "map": "list(stay.map(range(10)))",
    "future": "future = stay.submit(); time.sleep(1000)",
    "daemons": "list(stay_with_daemons.map(range(10)))",
    "nested": "tendril.function(lambda x: list(stay.map([x, x])), local=True)(1)",
    "limited": "tendril.function(stay.local, local=True, memory='500 MB', cpu=1)()",
    "feeding": """
def inputs():
    yield 1
    Path("runs-feeder").touch()
    time.sleep(1000)
list(double.map(inputs()))
""",
}


@pytest.mark.parametrize(
    ("stage", "number"),
    [*((stage, signal.SIGKILL) for stage in STAGES), ("daemons", signal.SIGTERM)],
)
def test_caller_killed(stage: str, number: signal.Signals, tmp_path: Path) -> None:
    with program(STAGES[stage], tmp_path) as one:
        if stage == "idle":
            one.wait_for("there")
        else:
            wait_running(one)
        wait_until(lambda: len(one.left()) > 3, "its processes run")
        one.process.send_signal(number)
        one.assert_gone()


def test_caller_killed_at_any_time(tmp_path: Path) -> None:
    """From the first moments of a session on: while supervisor, zygote and runners come up."""
    text = "Path('begins').touch(); list(big.map(range(1000)))"
    for i in range(6):
        (tmp_path / "begins").unlink(missing_ok=True)
        with program(text, tmp_path) as one:
            one.wait_for("begins")
            time.sleep(i * 0.04)  # another moment each time
            one.process.kill()
            one.assert_gone()


def test_caller_killed_with_its_supervisor_stopped(tmp_path: Path) -> None:
    """It cannot see its caller's end; as soon as it runs again, it does."""
    with program("list(stay.map(range(2)))", tmp_path) as one:
        wait_running(one)
        supervisors = one.by_role("supervisor")
        for each in supervisors:
            kill(each.pid, signal.SIGSTOP)
        one.process.kill()
        for each in supervisors:
            kill(each.pid, signal.SIGCONT)
        one.assert_gone()


def test_caller_and_supervisor_killed(tmp_path: Path) -> None:
    with program("list(stay_with_daemons.map(range(10)))", tmp_path) as one:
        wait_running(one, 2)
        supervisors = {each.pid: each for each in one.by_role("supervisor")}
        inner = next(pid for pid, each in supervisors.items() if each.parent in supervisors)
        one.process.kill()
        kill(inner)
        one.assert_gone()


def test_guardian_killed(tmp_path: Path) -> None:
    """Nobody misses it as long as the supervisor lives."""
    text = "double(1); Path('there').touch(); time.sleep(1000)"
    with program(text, tmp_path) as one:
        one.wait_for("there")
        supervisors = {each.pid: each for each in one.by_role("supervisor")}
        assert len(supervisors) == 2
        kill(next(pid for pid, each in supervisors.items() if each.parent not in supervisors))
        wait_until(lambda: len(one.by_role("supervisor")) == 1, "the guardian is gone")
        one.process.kill()
        one.assert_gone()


def test_caller_forked_and_killed(tmp_path: Path) -> None:
    """A child of the caller holds copies of its sockets and lives on: that does not count."""
    text = """
double(1)
if os.fork() == 0:
    os.environ.pop("TENDRIL_TEST_MARK", None)
    Path(f"child-{os.getpid()}").touch()
    time.sleep(1000)
stay()
"""
    with program(text, tmp_path) as one:
        wait_running(one)
        wait_until(lambda: list(tmp_path.glob("child-*")), "the child runs")
        child = int(next(tmp_path.glob("child-*")).name.partition("-")[2])
        one.process.kill()
        wait_until(lambda: [each.pid for each in one.left()] == [child], "all else is gone")
        kill(child)
        one.assert_gone()


# -- Ctrl-C ----------------------------------------------------------------------------------------


def on_terminal(text: str, folder: Path) -> tuple[Program, int]:
    """A program on a pseudo-terminal of its own; the other side of that."""
    ours, theirs = pty.openpty()
    one = Program(
        "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + PREAMBLE + text,
        folder,
        terminal=theirs,
    )
    os.close(theirs)
    return one, ours


def read_rest(terminal: int, timeout: float) -> str:
    data = b""
    deadline = time.monotonic() + timeout
    while select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
        try:
            data += os.read(terminal, 1 << 16)
        except OSError:  # the program has closed it
            break
    return data.decode()


@pytest.mark.parametrize(
    "text",
    [
        "for x in stay.map(range(10)): pass",
        "for x in stay.map(iter(lambda: 1, 2), errors='return', retries=5): pass",
        "stay()",
        "stay.submit().result()",
        "list(stay_with_daemons.map(range(10)))",
        "with stay.map(range(10)) as results: time.sleep(1000)",
        "tendril.function(lambda x: list(stay.map([x, x])), local=True)(1)",
    ],
    ids=["map", "endless", "call", "future", "daemons", "with", "nested"],
)
def test_interrupted(text: str, tmp_path: Path) -> None:
    """A second is enough; whoever sees the program end finds that nothing runs any more."""
    one, terminal = on_terminal(text, tmp_path)
    with one:
        wait_running(one)
        os.write(terminal, b"\x03")
        code = one.process.wait(patient(1.0))
        left = one.left()
        seen = read_rest(terminal, 1)
        os.close(terminal)
    assert left == []
    assert code == -signal.SIGINT, seen
    assert seen.rstrip().endswith("KeyboardInterrupt"), seen
    assert "Exception ignored" not in seen and "Fatal" not in seen


def test_interrupted_and_caught(tmp_path: Path) -> None:
    """The program may go on: that map is cancelled, everything else works."""
    text = """
try:
    list(stay.map(range(10)))
except KeyboardInterrupt:
    print("caught", double(21), list(double.map(range(3))))
"""
    one, terminal = on_terminal(text, tmp_path)
    with one:
        wait_running(one)
        os.write(terminal, b"\x03")
        assert one.process.wait(10) == 0
        assert "caught 42 [0, 2, 4]" in read_rest(terminal, 1)
        os.close(terminal)


def test_interrupted_often(tmp_path: Path) -> None:
    """An impatient user: interrupts come in while the first one is dealt with."""
    one, terminal = on_terminal("list(stay_with_daemons.map(range(10)))", tmp_path)
    with one:
        wait_running(one)
        deadline = time.monotonic() + 10
        while one.process.poll() is None and time.monotonic() < deadline:
            os.write(terminal, b"\x03")
            time.sleep(0.002)
        assert one.process.wait(1) != 0
        one.assert_gone()
        os.close(terminal)


# -- the interpreter ends --------------------------------------------------------------------------

ENDS = {
    "map unread": "m = stay.map(range(10)); wait()",
    "map half read": "m = double.map(range(100_000)); next(m)",
    "futures": "futures = [stay.submit(x) for x in range(10)]; wait()",
    "map in daemon thread": """
threading.Thread(target=lambda: list(stay.map(range(10))), daemon=True).start(); wait()
""",
    "slow generator": """
def inputs():
    yield 1
    Path("runs-feeder").touch()
    time.sleep(1000)
m = double.map(inputs()); wait()
""",
    "generator on a queue": """
import queue
m = double.map(iter(queue.Queue().get, None)); next_ = threading.Timer(0, m.__next__)
next_.daemon = True
next_.start()
""",
    "endless generator": """
import itertools
m = double.map(itertools.count()); next(m)
""",
    "much output": """
@tendril.function(local=True)
def chatter(x):
    Path(f"runs-{x}").touch()
    while True:
        print("x" * 1000)
m = chatter.map(range(2)); wait()
""",
    "sys.exit": "m = stay.map(range(10)); wait(); sys.exit(7)",
    "exception": "m = stay.map(range(10)); wait(); 1 / 0",
    "exception in with": """
with stay.map(range(10)) as m:
    wait(); 1 / 0
""",
    "used at exit": """
import atexit
atexit.register(lambda: print(double(1), list(double.map(range(3)))))
double(1)
""",
    "closed and used": """
double(1); double.cluster.shutdown(); assert double(2) == 4
m = stay.map(range(10)); wait()
""",
    "thread going on": """
def main():
    assert list(double.map(range(1000))) == list(range(0, 2000, 2))
    print("done")
threading.Thread(target=main).start()
""",
    "dropped in a cycle": """
class Holder: pass
h = Holder(); h.h = h; h.m = stay.map(range(10)); wait()
del h
import gc; gc.collect()
assert double(1) == 2
""",
}
CODES = {"sys.exit": 7, "exception": 1, "exception in with": 1}
WAIT = """
def wait():
    while not list(Path(".").glob("runs-*")):
        time.sleep(0.005)
"""


@pytest.mark.parametrize("end", ENDS)
def test_interpreter_ends(end: str, tmp_path: Path) -> None:
    with program(WAIT + ENDS[end], tmp_path) as one:
        code, out, err = one.finish()
        left = one.left()
    assert left == []
    assert code == CODES.get(end, 0), err
    assert "Exception ignored" not in err and "Fatal" not in err, err
    if end == "thread going on":
        assert out == "done\n"


def test_used_after_the_session_has_ended(tmp_path: Path) -> None:
    """What was registered before us runs after us."""
    text = """
import atexit
def late():
    for use in (lambda: double(1), lambda: double.submit(1), lambda: double.map([1])):
        try:
            use()
        except tendril.ClosedError as error:
            print(error)
atexit.register(late)
import tendril
@tendril.function(local=True)
def double(x):
    return 2 * x
double(1)
"""
    with Program(text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "the interpreter is shutting down\n" * 3, "")
        assert one.left() == []


def test_interpreter_ends_at_once(tmp_path: Path) -> None:
    """While the session is still coming up."""
    with program("future = double.submit(1)", tmp_path) as one:
        code, _, err = one.finish()
        assert (code, err) == (0, "")
        assert one.left() == []


# -- threads ---------------------------------------------------------------------------------------


@tendril.function(local=True)
def double(x: int) -> int:
    return 2 * x


def in_threads(n: int, fn: Callable[[int], None]) -> None:
    """Run fn in n threads at once; the first exception of any is raised."""
    failed: list[BaseException] = []

    def main(i: int) -> None:
        try:
            fn(i)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=main, args=[i]) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if failed:
        raise failed[0]


def test_many_threads() -> None:
    """The very first use included: one session is made, whoever comes first."""
    _session.close_session()

    def work(i: int) -> None:
        for j in range(3):
            assert double(i) == 2 * i
            assert list(double.map(range(j * 10))) == list(range(0, j * 20, 2))
            assert double.submit(j).result(60) == 2 * j
            dropped = double.map(range(100))
            next(dropped)
            del dropped

    in_threads(20, work)


def test_maps_dropped_in_other_threads() -> None:
    """Where a map's last reference goes does not matter: another thread, a callback, a runner's."""
    maps = [double.map(range(1000)) for _ in range(20)]
    for one in maps:
        next(one)
    in_threads(4, lambda i: [maps.pop() for _ in range(5)] and None)
    assert not maps
    held = [double.map(range(1000))]
    next(held[0])
    done = threading.Event()

    def drop(_: object) -> None:
        held.clear()
        done.set()

    double.submit(1).add_done_callback(drop)
    assert done.wait(30)
    assert double(4) == 8


def test_map_read_by_many_threads() -> None:
    results = double.map(range(2000))
    got: list[int] = []

    def read(_: int) -> None:
        for value in results:
            got.append(value)

    in_threads(8, read)
    assert sorted(got) == list(range(0, 4000, 2))


def test_session_closed_under_threads(tmp_path: Path) -> None:
    """Whoever waits for a result is told, and nobody hangs."""
    _session.close_session()
    told = []

    @tendril.function(local=True)
    def stay(folder: str, i: int) -> None:
        (Path(folder) / str(i)).touch()
        time.sleep(1000)

    def wait(i: int) -> None:
        try:
            if i % 3 == 0:
                stay(str(tmp_path), i)
            elif i % 3 == 1:
                list(stay.map([str(tmp_path)] * 4, range(4)))
            else:
                stay.submit(str(tmp_path), i).result(60)
        except (tendril.ClosedError, tendril.Cancelled) as error:
            told.append(error)

    closer = threading.Thread(
        target=lambda: (
            wait_until(lambda: list(tmp_path.iterdir()), "a call runs"),
            _session.close_session(),
        )
    )
    closer.start()
    in_threads(9, wait)
    closer.join(30)
    assert len(told) == 9
    assert double(5) == 10


# -- callers that fork -----------------------------------------------------------------------------


def test_forked_child_is_refused(tmp_path: Path) -> None:
    """Every use says so, nothing hangs, not even the child's end; the parent goes on."""
    text = """
import gc
m = stay.map(range(10)); f = stay.submit(1); wait()
with stay.map(range(3)) as held:
    pid = os.fork()
    if pid == 0:
        for use in (lambda: double(1), lambda: double.submit(1), lambda: double.map([1]),
                    lambda: next(m), lambda: double.cluster):
            try:
                use()
                print("no error")
            except tendril.ForkedError as error:
                assert "spawn" in str(error), error
        m.cancel(); m.stats(); repr(m); f.cancel(); f.running(); m.cancelled
        print("refused")
    else:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
if pid == 0:
    del m, f, held
    gc.collect()
else:
    Path("end").touch()
    assert list(m) == list(range(10)) and f.result(30) == 1
    print("went on")
"""
    with program(WAIT + text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "refused\nwent on\n", "")
        assert one.left() == []


def test_forked_child_in_full_flight(tmp_path: Path) -> None:
    """Whatever our threads hold at that moment, the child can end, by any way out."""
    text = """
@tendril.function(local=True)
def chatter(x):
    print("x" * 200)
    return bytes(10_000)
import random
m = chatter.map(iter(lambda: 1, 2)); futures = [double.submit(i) for i in range(50)]
next(m)
sys.stdout = open(os.devnull, "w")
for i in range(100):
    next(m)
    pid = os.fork()
    if pid == 0:
        m.stats(); m.cancel()
        if i % 2:
            os._exit(0)
        sys.exit(0)
    deadline = time.monotonic() + 20
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            subprocess.run(["cat", f"/proc/{pid}/stack", f"/proc/{pid}/wchan"])
            os.kill(pid, 9)
            sys.exit("the child hangs")
        time.sleep(0.001)
assert [f.result(30) for f in futures] == list(range(0, 100, 2))
m.cancel()
"""
    with program(text, tmp_path) as one:
        code, _, err = one.finish(100)
        assert (code, err) == (0, "")
        assert one.left() == []


def test_multiprocessing_fork(tmp_path: Path) -> None:
    """A pool of forked workers beside a session, before, while and after it works."""
    text = """
import multiprocessing
def square(x):
    return x * x
def use(x):
    return double(x)
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        assert pool.map(use, [3]) == [6]  # no session in the parent: it has one of its own
    assert list(double.map(range(100))) == list(range(0, 200, 2))
    results = double.map(range(10_000)); next(results)
    with context.Pool(3) as pool:
        assert pool.map(square, range(100)) == [x * x for x in range(100)]
        try:
            pool.map(use, [1, 2])
        except tendril.ForkedError as error:
            print("refused")
    assert list(results) == list(range(2, 20_000, 2))
"""
    with program(text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "refused\n", "")
        assert one.left() == []


def test_fork_and_exec(tmp_path: Path) -> None:
    """A program that the caller starts inherits nothing of ours and may use Tendril itself."""
    (tmp_path / "inner.py").write_text(
        PREAMBLE
        + """
ours = {int(fd) for fd in os.listdir("/proc/self/fd")} - {0, 1, 2}
assert len(ours) <= 1, ours  # the one that lists them
print("inner", double(4))
"""
    )
    text = """
m = double.map(range(10_000)); next(m)
pid = os.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, "inner.py"])
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
subprocess.run([sys.executable, "inner.py"], check=True, close_fds=False)
assert len(list(m)) == 9999
"""
    with program(text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "inner 8\n" * 2, "")
        assert one.left() == []


def test_call_forks_with_a_session(tmp_path: Path) -> None:
    """In a runner it is the same: what a call forks may not use its runner's connection."""

    @tendril.function(local=True)
    def outer(nested_first: bool) -> str:
        if nested_first:
            assert double(1) == 2
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                double(2)
                os.write(theirs, b"no error")
            except tendril.ForkedError:
                os.write(theirs, b"refused")
            finally:
                os._exit(0)
        os.close(theirs)
        os.waitpid(pid, 0)
        said = os.read(ours, 100).decode()
        assert double(3) == 6
        return said

    assert outer(True) == "refused"
    assert outer(False) == "refused"


# -- callers with signals and children of their own ------------------------------------------------


def test_sigchld_and_wait_are_the_callers(tmp_path: Path) -> None:
    """No child of ours turns up in the caller's wait(), no SIGCHLD of ours in its handler."""
    text = """
mine, strange, signals = set(), [], 0
def on_child(number, frame):
    global signals
    signals += 1
signal.signal(signal.SIGCHLD, on_child)
over = False
def reap():
    while not over or mine:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            time.sleep(0.001)
            continue
        if pid not in mine or os.waitstatus_to_exitcode(status) != 7:
            strange.append((pid, status))
        mine.discard(pid)
waiter = threading.Thread(target=reap)
waiter.start()
for _ in range(3):  # three sessions: supervisors come and go
    assert list(double.map(range(100))) == list(range(0, 200, 2))
    double.cluster.shutdown()
time.sleep(0.1)
print(signals)
for _ in range(5):
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "sleep 0.05; exit 7"], os.environ)
    mine.add(pid)
    assert list(double.map(range(10))) == list(range(0, 20, 2))
over = True
waiter.join(30)
print(strange, signals > 0)
"""
    with program(text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "0\n[] True\n", "")


def test_caller_ignores_sigchld(tmp_path: Path) -> None:
    text = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
assert list(double.map(range(10))) == list(range(0, 20, 2))
@tendril.function(local=True)
def children():
    return subprocess.run(["sh", "-c", "exit 3"]).returncode
print(children())
"""
    with program(text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "3\n", "")  # a runner's own SIGCHLD is as usual
        assert one.left() == []


def test_signals_during_waits(tmp_path: Path) -> None:
    """A handler that returns interrupts nothing; one that raises does."""
    text = """
ticks = 0
def tick(number, frame):
    global ticks
    ticks += 1
    if ticks == 20:
        Path("end").touch()
signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
assert list(stay.map(range(3))) == [0, 1, 2]
signal.setitimer(signal.ITIMER_REAL, 0)
Path("end").unlink()
class Enough(Exception): pass
def raise_(number, frame):
    raise Enough
signal.signal(signal.SIGALRM, raise_)
signal.setitimer(signal.ITIMER_REAL, 0.1)
m = stay.map(range(3))
try:
    next(m)
except Enough:
    print("raised", m.cancelled, ticks >= 20, double(2))
"""
    with program(text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "raised True True 4\n", "")


def test_caller_stopped_and_continued(tmp_path: Path) -> None:
    text = """
def inputs():
    yield from range(2500)
    while not Path("end").exists():
        time.sleep(0.001)
    yield from range(2500, 5000)
print(sum(double.map(inputs())))
"""
    with program(text, tmp_path) as one:
        wait_until(lambda: one.by_role("runner"), "the runners are up")
        one.process.send_signal(signal.SIGSTOP)
        (tmp_path / "end").touch()
        time.sleep(0.1)
        one.process.send_signal(signal.SIGCONT)
        code, out, err = one.finish()
        assert (code, out, err) == (0, f"{5000 * 4999}\n", "")


def test_asyncio_caller(tmp_path: Path) -> None:
    """Futures in an event loop, beside child processes of asyncio's own."""
    text = """
import asyncio
async def main():
    child = await asyncio.create_subprocess_exec("sh", "-c", "exit 5")
    calls = [asyncio.wrap_future(double.submit(x)) for x in range(20)]
    assert await asyncio.gather(*calls) == list(range(0, 40, 2))
    assert await child.wait() == 5
    waiting = asyncio.wrap_future(stay.submit())
    while not list(Path(".").glob("runs-*")):
        await asyncio.sleep(0.005)
    waiting.cancel()
    try:
        await waiting
    except asyncio.CancelledError:
        print("cancelled")
    result = await asyncio.to_thread(lambda: list(double.map(range(5))))
    print(result)
asyncio.run(main())
"""
    with program(text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "cancelled\n[0, 2, 4, 6, 8]\n", "")
        assert one.left() == []


def test_output_has_no_reader(tmp_path: Path) -> None:
    """`program | head -1`: the calls' output goes nowhere; the program ends, and all with it."""
    (tmp_path / "program.py").write_text(
        PREAMBLE
        + """
@tendril.function(local=True)
def chatter(x):
    print("x" * 100)
    return x
print("first", flush=True)
try:
    print(sum(chatter.map(range(2000))), file=sys.stderr)
except BrokenPipeError:
    print("broken", file=sys.stderr)
"""
    )
    command = f"{sys.executable} program.py | head -1"
    with Program("", tmp_path / "..", argv=["sh", "-c", f"cd {tmp_path}; {command}"]) as one:
        _, out, err = one.finish()
        assert out == "first\n"
        assert err.startswith(("1999000", "broken")), err
        one.assert_gone()


def test_caller_closes_descriptors(tmp_path: Path) -> None:
    """As daemons do: our descriptors are gone too. That is told, and nothing hangs."""
    text = """
double(1)
time.sleep(0.1)  # until the session is at rest
os.closerange(3, 1000)
for use in (lambda: double(1), lambda: list(double.map([1])), lambda: double.submit(1).result()):
    try:
        use()
    except tendril.ClosedError as error:
        print("told")
"""
    with program(text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "told\n" * 3, "")
        one.assert_gone()
