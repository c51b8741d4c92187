"""What breaks under a call: its runner, the zygote, the supervisor, and what the call itself does
to them. In every case that call alone is lost, says why, and the next one works."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tendril
from havoc import alive, cgroups, descendants, kill, patient, wait_until
from tendril import _session


def supervisor() -> int:
    """The process id of this process's supervisor."""
    client = _session.get_session().client
    wait_until(lambda: client.info()[1], "the supervisor says who it is")
    return client.info()[1]


def by_role(role: str) -> list[int]:
    return [one.pid for one in descendants(supervisor()) if one.role == role]


def assert_session_ends() -> None:
    """Closing it returns when everything has ended, also what was stopped."""
    pid = supervisor()
    below = [one.pid for one in descendants(pid)]
    assert below
    _session.close_session()
    assert not [one for one in (pid, *below) if alive(one)]
    assert cgroups({pid}) == []


@tendril.function(local=True)
def pid_of_runner() -> int:
    return os.getpid()


@tendril.function(local=True)
def double(x: int) -> int:
    return 2 * x


def doubled(n: int) -> list[int]:
    """A map that stands some deaths."""
    return list(double.map(range(n), retries=5))


@tendril.function(local=True)
def stay(folder: str) -> str:
    """Say that the call runs, then stay until it is told to end, or for ever."""
    path = Path(folder)
    print("I stay")
    (path / f"runs-{os.getpid()}").touch()
    while not (path / "end").exists():
        time.sleep(0.005)
    return "stayed"


def running(folder: Path) -> list[int]:
    """The runners that are in a call of `stay`."""
    return [int(path.name.partition("-")[2]) for path in folder.glob("runs-*")]


def run(fn: tendril.Function, *args: object) -> list[object]:
    """Calls in a thread; its list gets the result or the exception."""
    got: list[object] = []

    def main() -> None:
        try:
            got.append(fn(*args))
        except BaseException as error:
            got.append(error)

    threading.Thread(target=main, daemon=True).start()
    return got


def crash_of(got: list[object]) -> tendril.RunnerCrashed:
    wait_until(lambda: got, "the call ends")
    assert isinstance(got[0], tendril.RunnerCrashed), got
    return got[0]


# -- a runner is killed ----------------------------------------------------------------------------


def test_runner_killed_idle() -> None:
    """The call that comes at that very moment has not begun: it is not lost with the runner."""
    seen = set()
    for _ in range(20):
        pid = pid_of_runner()
        assert pid not in seen
        seen.add(pid)
        kill(pid)


def test_runner_killed_running(tmp_path: Path) -> None:
    got = run(stay, str(tmp_path))
    wait_until(lambda: running(tmp_path), "the call runs")
    kill(running(tmp_path)[0])
    error = crash_of(got)
    assert error.signal == "SIGKILL"
    assert "stay: call 0: its runner was killed by SIGKILL" in str(error)
    assert error.last_output == "I stay\n"
    assert double(21) == 42


def test_runner_killed_running_is_retried(tmp_path: Path) -> None:
    got = stay.map([str(tmp_path)], retries=1)
    wait_until(lambda: running(tmp_path), "the call runs")
    (tmp_path / "end").touch()
    kill(running(tmp_path)[0])
    assert list(got) == ["stayed"]


def test_runner_killed_while_others_run(tmp_path: Path) -> None:
    """One runner's death is that call's alone."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lost, kept = run(stay, str(tmp_path / "a")), run(stay, str(tmp_path / "b"))
    wait_until(lambda: running(tmp_path / "a") and running(tmp_path / "b"), "both run")
    kill(running(tmp_path / "a")[0])
    crash_of(lost)
    (tmp_path / "b" / "end").touch()
    wait_until(lambda: kept, "the other call ends")
    assert kept == ["stayed"]


@tendril.function(local=True)
def big_after(delay: float | None, size: int) -> bytes:
    """A large result, from a runner that is killed so many seconds after it began."""
    if delay is not None:
        threading.Timer(delay, os.kill, [os.getpid(), signal.SIGKILL]).start()
    return b"x" * size


def test_runner_killed_finishing() -> None:
    """Killed at some point while it computes, pickles or sends: the result is whole, or the call
    has crashed; never anything else."""
    size = 16 << 20
    began = time.monotonic()
    assert len(big_after(None, size)) == size
    usual = time.monotonic() - began
    crashed = 0
    for i in range(10):
        try:
            assert len(big_after(usual * i / 8, size)) == size
        except tendril.RunnerCrashed as error:
            assert error.signal == "SIGKILL"
            crashed += 1
    assert crashed > 0
    assert double(2) == 4


class KilledByPickling:
    def __reduce__(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


def test_runner_killed_pickling() -> None:
    with pytest.raises(tendril.RunnerCrashed):
        tendril.function(lambda: KilledByPickling(), local=True)()
    assert double(2) == 4


def test_runner_killed_as_it_times_out(tmp_path: Path) -> None:
    for i in range(6):
        folder = tmp_path / str(i)
        folder.mkdir()
        got = stay.map([str(folder)], timeout=0.1)
        wait_until(lambda folder=folder: running(folder), "the call runs")
        threading.Timer(0.08 + i * 0.005, kill, [running(folder)[0]]).start()
        with pytest.raises((tendril.RunnerCrashed, tendril.TimedOut)):
            next(got)
    assert double(2) == 4


def test_runner_killed_as_it_is_cancelled(tmp_path: Path) -> None:
    for i in range(8):
        folder = tmp_path / str(i)
        folder.mkdir()
        future = stay.submit(str(folder))
        wait_until(lambda folder=folder: running(folder), "the call runs")
        if i % 2:
            kill(running(folder)[0])
            future.cancel()
        else:
            future.cancel()
            kill(running(folder)[0])
        if not future.cancelled():
            assert isinstance(future.exception(10), tendril.RunnerCrashed)
    assert double(2) == 4


def test_runner_stopped_times_out(tmp_path: Path) -> None:
    """A runner that does not move at all is ended by the timeout all the same."""
    got = stay.map([str(tmp_path)], timeout=0.5)
    wait_until(lambda: running(tmp_path), "the call runs")
    kill(running(tmp_path)[0], signal.SIGSTOP)
    with pytest.raises(tendril.TimedOut):
        next(got)
    wait_until(lambda: not alive(running(tmp_path)[0]), "the stopped runner is gone")
    assert double(2) == 4


def test_runner_stopped_is_cancelled(tmp_path: Path) -> None:
    got = stay.map([str(tmp_path)])
    wait_until(lambda: running(tmp_path), "the call runs")
    kill(running(tmp_path)[0], signal.SIGSTOP)
    got.cancel()
    wait_until(lambda: not alive(running(tmp_path)[0]), "the stopped runner is gone")


def test_runners_killed_all_the_time() -> None:
    """A killer at work during a map with retries: nothing is lost, and nothing comes twice."""
    over = threading.Event()

    def kill_some() -> None:
        dice = random.Random(1)
        while not over.wait(0.05):
            pids = by_role("runner")
            if pids:
                kill(dice.choice(pids))

    assert double(1) == 2
    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        slow = tendril.function(lambda x: time.sleep(0.01) or 2 * x, local=True, retries=1000)
        assert list(slow.map(range(150))) == [2 * x for x in range(150)]
    finally:
        over.set()
        killer.join()


# -- the zygote is killed --------------------------------------------------------------------------


def test_zygote_killed_idle() -> None:
    first = pid_of_runner()
    for zygote in by_role("zygote"):
        kill(zygote)
    assert pid_of_runner() == first  # the runners do not need it
    kill(first)
    assert pid_of_runner() != first


def test_zygote_killed_while_runners_start() -> None:
    """At whatever moment of its own start or of a runner's: calls come through."""
    assert double(1) == 2
    for i in range(10):
        for pid in by_role("runner"):
            kill(pid)
        results = double.map(range(10), retries=3)
        time.sleep(i * 0.004)  # another moment each time
        for pid in by_role("zygote"):
            kill(pid)
        assert list(results) == list(range(0, 20, 2))


def test_zygote_stopped_is_ended_with_the_session() -> None:
    assert double(1) == 2
    for pid in by_role("zygote"):
        kill(pid, signal.SIGSTOP)
    assert_session_ends()


# -- the supervisor is killed ----------------------------------------------------------------------


def test_supervisor_killed_idle() -> None:
    for _ in range(3):
        assert double(2) == 4
        old = supervisor()
        below = [one.pid for one in descendants(old)]
        kill(old)
        assert doubled(10) == list(range(0, 20, 2))  # whether or not it is noticed by now
        wait_until(lambda below=below: not any(map(alive, below)), "its processes end", patient(2))
        assert double(4) == 8
        assert supervisor() != old


def test_supervisor_killed_running(tmp_path: Path) -> None:
    got = run(stay, str(tmp_path))
    wait_until(lambda: running(tmp_path), "the call runs")
    kill(supervisor())
    assert "the supervisor process was lost" in str(crash_of(got))
    assert double(2) == 4


def test_supervisor_killed_running_is_retried(tmp_path: Path) -> None:
    got = stay.map([str(tmp_path)], retries=1)
    wait_until(lambda: running(tmp_path), "the call runs")
    (tmp_path / "end").touch()
    kill(supervisor())
    assert list(got) == ["stayed"]


def test_supervisor_terminated_running(tmp_path: Path) -> None:
    got = run(stay, str(tmp_path))
    wait_until(lambda: running(tmp_path), "the call runs")
    kill(supervisor(), signal.SIGTERM)
    crash_of(got)
    assert double(2) == 4


def test_supervisor_killed_while_runners_start() -> None:
    for i in range(6):
        assert doubled(1) == [0]
        for pid in by_role("runner"):
            kill(pid)
        results = double.map(range(10), retries=5)
        time.sleep(i * 0.004)  # another moment each time
        kill(supervisor())
        assert list(results) == list(range(0, 20, 2))


def test_supervisor_killed_leaves_no_grandchildren(tmp_path: Path) -> None:
    """What the calls had started goes with their runners, also when nobody is left to see to it."""
    got = run(daemonise, str(tmp_path), 3, True)
    wait_until(lambda: len(daemons(tmp_path)) == 3, "the daemons run")
    kill(supervisor())
    crash_of(got)
    wait_until(lambda: not any(map(alive, daemons(tmp_path))), "the daemons end", patient(2))


# -- what calls leave behind -----------------------------------------------------------------------

DAEMON = """
import os, sys, time
folder, depth = sys.argv[1], int(sys.argv[2])
os.setsid()
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
for fd in range(64):
    try: os.close(fd)
    except OSError: pass
open(os.path.join(folder, f"daemon-{os.getpid()}"), "w").close()
time.sleep(1000)
"""


@tendril.function(local=True)
def daemonise(folder: str, n: int, wait: bool) -> int:
    """Starts processes that do everything to get away: forked twice, in sessions of their own."""
    for _ in range(n):
        subprocess.run([sys.executable, "-c", DAEMON, folder, "2"], check=True)
    while wait or len(list(Path(folder).glob("daemon-*"))) < n:
        time.sleep(0.005)
    return os.getpid()


def daemons(folder: Path) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in folder.glob("daemon-*")]


def test_daemons_end_with_their_call(tmp_path: Path) -> None:
    runner = daemonise(str(tmp_path), 2, False)
    assert len(daemons(tmp_path)) == 2
    wait_until(lambda: not any(map(alive, daemons(tmp_path))), "the daemons end", patient(2))
    assert pid_of_runner() != runner


def test_daemons_end_with_a_cancelled_call(tmp_path: Path) -> None:
    got = daemonise.map([str(tmp_path)], [2], [True])
    wait_until(lambda: len(daemons(tmp_path)) == 2, "the daemons run")
    got.cancel()
    wait_until(lambda: not any(map(alive, daemons(tmp_path))), "the daemons end", patient(2))


def test_daemons_end_with_a_timed_out_call(tmp_path: Path) -> None:
    got = daemonise.map([str(tmp_path)], [1], [True], timeout=0.6)
    with pytest.raises(tendril.TimedOut):
        next(got)
    wait_until(lambda: not any(map(alive, daemons(tmp_path))), "the daemons end", patient(2))


def test_daemons_end_with_a_killed_runner(tmp_path: Path) -> None:
    got = run(daemonise, str(tmp_path), 2, True)
    wait_until(lambda: len(daemons(tmp_path)) == 2, "the daemons run")
    for pid in by_role("runner"):
        kill(pid)
    crash_of(got)
    wait_until(lambda: not any(map(alive, daemons(tmp_path))), "the daemons end", patient(2))


@tendril.function(local=True)
def bomb(folder: str, width: int, depth: int) -> None:
    """Children that fork children: width ** depth of them, none of which ever ends."""
    for _ in range(depth):
        for _ in range(width - 1):
            if os.fork() == 0:
                break
    (Path(folder) / str(os.getpid())).touch()
    while True:
        time.sleep(10)


def test_fork_bomb_ends_with_its_call(tmp_path: Path) -> None:
    bombs = bomb.map([str(tmp_path)], [4], [3])
    wait_until(lambda: len(list(tmp_path.iterdir())) >= 64, "the bomb has gone off")
    assert double(2) == 4  # its neighbours work
    bombs.cancel()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    wait_until(lambda: not any(map(alive, pids)), "all of it is gone", patient(4))


@tendril.function(local=True)
def leave_child() -> tuple[int, int]:
    return os.getpid(), subprocess.Popen(["sleep", "1000"]).pid


def test_children_end_with_their_call() -> None:
    """A result is given although the call left a child; the runner is not used again."""
    runner, child = leave_child()
    wait_until(lambda: not alive(child), "the child ends", patient(2))
    assert pid_of_runner() != runner


def test_ended_children_do_not_cost_the_runner() -> None:
    @tendril.function(local=True)
    def leave_zombie() -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended; nobody has waited for it
        return os.getpid()

    assert leave_zombie() == leave_zombie()


# -- what calls do to their runner -----------------------------------------------------------------


@tendril.function(local=True)
def break_with(how: Callable[[], None]) -> str:
    print("before")
    how()
    return "unharmed"


def test_call_closes_descriptors() -> None:
    with pytest.raises(tendril.RunnerCrashed, match="connection") as caught:
        break_with(lambda: os.closerange(0, 1024))
    assert caught.value.last_output == "before\n"
    assert double(2) == 4


def test_call_closes_output() -> None:
    """Output that nobody can write is the call's own business."""
    assert break_with(lambda: os.closerange(0, 3)) == "unharmed"
    assert double(2) == 4


def write_to_descriptors(data: bytes) -> None:
    for fd in range(3, 21):
        try:
            os.set_blocking(fd, False)
            os.write(fd, data)
        except OSError:
            continue


@pytest.mark.parametrize(
    "garbage",
    [b"x", b"hello world\n", b"\0" * 100, b"\xff" * 100, b"\x04\0\0\0", bytes(range(256))],
    ids=["short", "text", "zeros", "ones", "header", "all"],
)
def test_call_writes_to_descriptors(garbage: bytes) -> None:
    """Whatever it writes ends that call, and soon: it never hangs, nor does anybody else."""
    dice = random.Random(len(garbage))
    for data in (garbage, dice.randbytes(1000)):
        results = break_with.map([lambda data=data: write_to_descriptors(data)], timeout=10)
        with pytest.raises(tendril.RunnerCrashed, match="connection"):
            next(results)
    assert double(2) == 4


def test_call_reads_descriptors() -> None:
    """There is nothing to be read, and a connection made non-blocking serves as well."""

    def read() -> None:
        for fd in range(3, 21):
            try:
                os.set_blocking(fd, False)
                os.read(fd, 1 << 20)
            except OSError:
                continue

    runner = pid_of_runner()
    assert break_with(read) == "unharmed"
    assert pid_of_runner() == runner
    assert len(big_after(None, 4 << 20)) == 4 << 20


def test_call_kills_its_parent() -> None:
    with pytest.raises(tendril.RunnerCrashed):
        break_with(lambda: os.kill(os.getppid(), signal.SIGKILL) or time.sleep(100))
    assert double(2) == 4


def test_call_kills_its_group() -> None:
    with pytest.raises(tendril.RunnerCrashed, match="SIGKILL"):
        break_with(lambda: os.killpg(0, signal.SIGKILL))
    assert double(2) == 4


def test_call_stops_itself() -> None:
    results = break_with.map([lambda: os.kill(os.getpid(), signal.SIGSTOP)], timeout=0.3)
    with pytest.raises(tendril.TimedOut):
        next(results)
    assert double(2) == 4


def test_call_ignores_signals() -> None:
    def ignore() -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(100)

    with pytest.raises(tendril.TimedOut):
        next(break_with.map([ignore], timeout=0.3))
    assert double(2) == 4


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGBUS])
def test_call_dies_by_signal(number: signal.Signals) -> None:
    with pytest.raises(tendril.RunnerCrashed, match=number.name) as caught:
        break_with(lambda: os.kill(os.getpid(), number) or time.sleep(100))
    assert caught.value.signal == number.name
    assert caught.value.last_output.startswith("before\n")


def test_call_dies_in_c() -> None:
    with pytest.raises(tendril.RunnerCrashed, match="SIGSEGV"):
        break_with(lambda: ctypes.string_at(1))
    assert double(2) == 4


def test_call_exits() -> None:
    for code in (0, 3):
        for leave in (os._exit, sys.exit):
            with pytest.raises(tendril.RunnerCrashed, match=f"exit code {code}") as caught:
                break_with(lambda leave=leave, code=code: leave(code))
            assert caught.value.exit_code == code
    assert double(2) == 4


def test_call_forks_and_both_return() -> None:
    """The copy of a call must not answer for it."""
    results = break_with.map([lambda: os.fork()], timeout=10)
    assert next(results) == "unharmed"
    assert double(2) == 4
