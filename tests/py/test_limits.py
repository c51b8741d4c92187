"""Limits: memory and processors of a call, by control group and by polling; descriptors and memory
that the system refuses; depth of nested maps. Reaching one is an error with words, and no more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tendril
from havoc import Program, cgroups, descendants, wait_until
from tendril import _session

MIB = 1 << 20
LIMIT = "100 MiB"


@pytest.fixture(params=["by group", "polling"], scope="module")
def limits(request: pytest.FixtureRequest) -> Iterator[str]:
    """Sessions that limit in either way; what cannot be done on this machine is skipped."""
    _session.close_session()
    if request.param == "polling":
        os.environ["TENDRIL_LIMITS"] = "polling"
    try:
        session = _session.get_session()
        assert tendril.function(lambda: 1, local=True)() == 1
        wait_until(lambda: session.client.info()[2], "the supervisor says how it limits")
        way = session.client.info()[2]
        if request.param == "polling":
            assert way == "polling"
        elif way == "polling":
            pytest.skip("memory cannot be limited by control group here")
        yield way
        pid = session.client.info()[1]
        _session.close_session()
        assert cgroups({pid}) == []
    finally:
        os.environ.pop("TENDRIL_LIMITS", None)
        _session.close_session()


def eat(mib: int, hold: float = 0.0) -> int:
    """Use so much memory, for so many seconds."""
    data = bytearray(mib << 20)
    for at in range(0, len(data), 4096):
        data[at] = 1
    time.sleep(hold)
    return len(data) >> 20


EAT = """
import sys, time
data = bytearray(int(sys.argv[1]) << 20)
for at in range(0, len(data), 4096):
    data[at] = 1
time.sleep(0.5)
"""

eater = tendril.function(eat, local=True, memory=LIMIT)


def test_memory_suffices(limits: str) -> None:
    assert list(eater.map([20, 30, 40], [0.1] * 3)) == [20, 30, 40]


def test_memory_exceeded(limits: str) -> None:
    """The error tells limit and peak; it is a MemoryError too; the next call works."""
    with pytest.raises(tendril.OutOfMemory) as caught:
        eater(250, 2)
    error = caught.value
    assert isinstance(error, MemoryError)
    assert error.limit_bytes == 100 * MIB
    assert 90 * MIB <= error.peak_bytes <= 300 * MIB
    assert re.search(r"eat: call 0 went over its memory limit: .*\d+ MiB of 100 MiB", str(error))
    assert eater(10) == 10


def test_memory_exceeded_by_one_of_many(limits: str) -> None:
    """Its neighbours, of the same function and of others, do not feel it."""
    other = tendril.function(eat, local=True)
    unlimited = other.submit(150, 0.5)
    results = list(eater.map([10, 250, 20, 250, 30], [0.2, 2, 0.2, 2, 0.2], errors="return"))
    assert [r for r in results if isinstance(r, int)] == [10, 20, 30]
    assert [type(r) for r in results[1::2]] == [tendril.OutOfMemory] * 2
    assert [r.index for r in results[1::2]] == [1, 3]
    assert unlimited.result(60) == 150


def test_memory_exceeded_by_a_child(limits: str) -> None:
    """Whoever takes it, a child process of the call, or one that had been left by its parent."""

    @tendril.function(local=True, memory=LIMIT)
    def start(double: bool) -> str:
        print("starting")
        eat_250 = [sys.executable, "-c", EAT, "250"]
        if double:
            subprocess.run(["setsid", "--wait", *eat_250], check=False)
        else:
            subprocess.run(eat_250, check=True)
        return "survived"

    for double in (False, True):
        with pytest.raises(tendril.OutOfMemory) as caught:
            start(double)
        assert caught.value.last_output == "starting\n"
        assert caught.value.limit_bytes == 100 * MIB


def test_memory_exceeded_by_children_together(limits: str) -> None:
    """Each of them is small; together they are not."""

    @tendril.function(local=True, memory=LIMIT)
    def start() -> None:
        children = [subprocess.Popen([sys.executable, "-c", EAT, "40"]) for _ in range(5)]
        for child in children:
            child.wait()

    with pytest.raises(tendril.OutOfMemory):
        start()


def test_memory_shared_counts_once(limits: str) -> None:
    """Forked children that share what their parent has do not use it once more each."""

    @tendril.function(local=True, memory="150 MiB")
    def share() -> int:
        data = bytearray(60 << 20)
        for at in range(0, len(data), 4096):
            data[at] = 1
        pids = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                total = sum(data[at] for at in range(0, len(data), 4096))
                time.sleep(0.3)
                os._exit(total != len(data) // 4096)
            pids.append(pid)
        return sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)

    assert share() == 0


def test_memory_exceeded_is_retried(limits: str, tmp_path: Path) -> None:
    @tendril.function(local=True, memory=LIMIT, retries=1)
    def once(folder: str) -> str:
        first = not (Path(folder) / "tried").exists()
        (Path(folder) / "tried").touch()
        if first:
            eat(250, 2)
        return "done"

    assert once(str(tmp_path)) == "done"


def test_memory_too_little_to_begin(limits: str) -> None:
    """A limit that no runner can keep is said, not tried for ever."""
    tiny = tendril.function(lambda: eat(5, 1), local=True, memory="1 MiB")
    with pytest.raises((tendril.OutOfMemory, tendril.NotStarted), match="memory limit"):
        tiny()


def test_memory_of_many_runners(limits: str) -> None:
    """Groups come and go with their runners."""
    for i in range(2):
        fn = tendril.function(eat, local=True, memory=f"{100 + i} MiB")
        assert list(fn.map(range(1, 5))) == [1, 2, 3, 4]
    wait_until(lambda: groups_in_step(limits), "there are as many groups as runners")


def groups_in_step(limits: str) -> bool:
    """Whether there is a group for each runner, where there are groups, and no other."""
    pid = _session.get_session().client.info()[1]
    runners = [one for one in descendants(pid) if one.role == "runner"]
    return len(cgroups({pid})) == (0 if limits == "polling" else len(runners))


def test_groups_of_runners_that_left_children(limits: str) -> None:
    """A group is removed when the last process in it has ended, which may take its time."""

    @tendril.function(local=True, memory="200 MiB")
    def leave_children(x: int) -> int:
        for _ in range(4):
            if os.fork() == 0:
                eat(20, 100)
        return x

    assert list(leave_children.map(range(4))) == [0, 1, 2, 3]
    wait_until(lambda: groups_in_step(limits), "only groups of runners are left")


def test_cpu(limits: str) -> None:
    """Two busy processes of one call have one core's time; or, confined to it, they share it."""

    @tendril.function(local=True, cpu=1)
    def burn() -> tuple[float, int]:
        began = time.perf_counter()
        pid = os.fork()
        while time.perf_counter() - began < 0.6:
            pass
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        used = os.times()
        total = used.user + used.system + used.children_user + used.children_system
        return total / (time.perf_counter() - began), len(os.sched_getaffinity(0))

    share, cpus = burn()
    assert share < 1.4
    assert cpus == 1 or limits != "polling"


# -- what the system refuses -----------------------------------------------------------------------

PREAMBLE = """
import os, resource, sys, time
import tendril

@tendril.function(local=True)
def double(x):
    return 2 * x

held = []
resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def leave(n):
    "Use up all descriptors but so many."
    while held:
        os.close(held.pop())
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        for _ in range(n):
            os.close(held.pop())
"""


def test_no_descriptors_for_a_session(tmp_path: Path) -> None:
    text = """
for n in range(8):
    leave(n)
    try:
        double(1)
        print("works with", n)
    except tendril.TendrilError as error:
        assert "open files" in str(error), error
        print("refused", type(error).__name__)
leave(100)
print(double(21), list(double.map(range(3))))
"""
    with Program(PREAMBLE + text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, err) == (0, "")
        assert out.startswith("refused NotStarted\n")
        assert out.endswith("42 [0, 2, 4]\n")
        assert one.left() == []


def test_no_descriptors_for_runners(tmp_path: Path) -> None:
    """With a session at work: calls say why, or go on with the runners that are there."""
    text = """
@tendril.function(local=True)
def pid():
    time.sleep(0.01)
    return os.getpid()
one = pid()
leave(1)
assert pid() == one
import signal
os.kill(one, signal.SIGKILL)
try:
    pid()
    print("no error")
except tendril.NotStarted as error:
    assert "open files" in str(error), error
    print("refused")
leave(100)
print(pid() != one, double(2))
"""
    with Program(PREAMBLE + text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "refused\nTrue 4\n", "")
        assert one.left() == []


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    """Runners that come and go, maps, futures and sessions leave no descriptor open."""
    text = """
def use():
    @tendril.function(local=True)
    def leave_child(x):
        if os.fork() == 0:
            time.sleep(100)
        return x
    assert list(leave_child.map(range(6))) == list(range(6))
    m = double.map(range(100)); next(m); m.cancel()
    assert double.submit(1).result() == 2
    double.cluster.shutdown()
def opened():
    return len(os.listdir("/proc/self/fd"))
use()
before = opened()
for _ in range(2):
    use()
print(opened() - before)
"""
    with Program(PREAMBLE + text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "0\n", "")


def test_no_memory_for_arguments_and_results(tmp_path: Path) -> None:
    """The caller may not take more: an error there, at that call; smaller ones work."""
    text = """
@tendril.function(local=True)
def length(data):
    return len(data)
@tendril.function(local=True)
def zeros(n):
    return bytes(n)
assert length(b"x") == 1
data = bytes(200 << 20)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), resource.RLIM_INFINITY))
for use in (lambda: length(data), lambda: zeros(300 << 20)):
    try:
        use()
        print("no error")
    except (MemoryError, tendril.TendrilError) as error:
        print("refused")
print(length(b"xy"), len(zeros(1000)), list(double.map(range(3))))
"""
    with Program(PREAMBLE + text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "refused\nrefused\n2 1000 [0, 2, 4]\n", "")
        assert one.left() == []


PIDS = Path("/sys/fs/cgroup/pids")


@pytest.mark.skipif(not os.access(PIDS / "cgroup.procs", os.W_OK), reason="no pids control group")
def test_no_processes(tmp_path: Path) -> None:
    """The machine allows no more processes: runners cannot be forked, and that is said."""
    group = PIDS / f"havoc-{os.getpid()}"
    text = f"""
import signal
def pid():
    return os.getpid()
pid = tendril.function(pid, local=True)
one = pid()
open("{group}/pids.max", "w").write(open("{group}/pids.current").read())
os.kill(one, signal.SIGKILL)
while os.path.exists(f"/proc/{{one}}"):
    time.sleep(0.001)
open("{group}/pids.max", "w").write(open("{group}/pids.current").read())
try:
    pid()
    print("no error")
except tendril.NotStarted as error:
    print(error)
open("{group}/pids.max", "w").write("max")
print(double(2))
"""
    group.mkdir()
    try:
        enter = f"open('{group}/cgroup.procs', 'w').write('0')\n"
        with Program(enter + PREAMBLE + text, tmp_path) as one:
            code, out, err = one.finish()
            assert (code, err) == (0, "")
            assert "cannot fork" in out and "Resource temporarily unavailable" in out
            assert out.endswith("\n4\n")
            assert one.left() == []
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
        group.rmdir()


# -- depth -----------------------------------------------------------------------------------------

NESTED = """
import tendril
@tendril.function(local=True)
def deep(n):
    return deep(n + 1)
@tendril.function(local=True)
def wide(n):
    return list(wide.map([n + 1] * 3))
@tendril.function(local=True)
def count(n):
    return sum(count.map([n - 1] * 2)) if n else 1
def told(fn):
    try:
        fn(0)
    except tendril.NotStarted as error:
        assert "nested too deeply: all 8 runners wait" in str(error), error
        print("told")
"""


def test_maps_nested_too_deeply(tmp_path: Path) -> None:
    """However deep: an error that comes up through all levels; the pool works on afterwards."""
    text = """
for _ in range(2):
    told(deep)
    told(wide)
    assert count(3) == 8
"""
    with Program(NESTED + text, tmp_path, TENDRIL_RUNNERS="8") as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "told\n" * 4, "")
        assert one.left() == []


def test_maps_nested_deeply_and_killed(tmp_path: Path) -> None:
    """What nested calls have begun goes with the outer one."""
    text = """
import os, pathlib, time
@tendril.function(local=True)
def nest(n):
    if n:
        return list(nest.map([n - 1] * 2))
    pathlib.Path(f"runs-{os.getpid()}").touch()
    time.sleep(1000)
m = nest.map([3])
while len(list(pathlib.Path(".").glob("runs-*"))) < 2:
    time.sleep(0.005)
m.cancel()
print(count(2))
"""
    with Program(NESTED + text, tmp_path, TENDRIL_RUNNERS="12") as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "4\n", "")
        assert one.left() == []


def test_nested_calls_left_are_cancelled(tmp_path: Path) -> None:
    """A call that does not wait for what it has submitted: it is cancelled, and holds nobody up."""

    @tendril.function(local=True)
    def inner(folder: str) -> None:
        (Path(folder) / f"inner-{os.getpid()}").touch()
        time.sleep(1000)

    kept = []

    @tendril.function(local=True)
    def outer(folder: str) -> str:
        kept.append(inner.submit(folder))  # a global of the runner: no garbage yet
        while not list(Path(folder).iterdir()):
            time.sleep(0.005)
        return "done"

    @tendril.function(local=True)
    def after() -> str:
        return "cancelled" if all(one.cancelled() or one.exception(10) for one in kept) else "no"

    assert outer(str(tmp_path)) == "done"
    pid = int(next(tmp_path.iterdir()).name.partition("-")[2])
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the inner call ends")
    assert after() == "cancelled"
    nested = tendril.function(lambda: list(double.map(range(5))), local=True)
    assert nested() == [0, 2, 4, 6, 8]


@tendril.function(local=True)
def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize("name", ["TENDRIL_CORES", "TENDRIL_RUNNERS"])
def test_numbers_in_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _session.close_session()
    for text in ("many", "-1", "1000000", "1.5"):
        monkeypatch.setenv(name, text)
        with pytest.raises(tendril.ConfigurationError, match=name):
            double(1)
    monkeypatch.setenv(name, "2")
    assert double(1) == 2
    _session.close_session()
