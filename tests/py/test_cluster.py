"""Machines one owns: a hub, agents that come, go and die, a server that is killed, and callers
beside each other. Hosts are processes of this machine here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import havoc
import numpy as np
import pytest
import tendril
from conftest import Ended, Gate, RunScript
from tendril._session import _supervisor_path, close_session

COMMAND_S = 60.0


class Cluster:
    """A cluster of this machine, in a folder; agents are started and ended one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agents: list[subprocess.Popen[bytes]] = []
        self.command("up", "-n", "0", "--folder", str(folder))
        self.place = str(folder / "client.token")

    def command(self, *arguments: str) -> str:
        """Run a command of ours to its end; what it prints."""
        done = subprocess.run(
            [_supervisor_path(), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def join(self, *options: str, cores: int = 1) -> subprocess.Popen[bytes]:
        """Start an agent; it is ready when this returns."""
        ours, theirs = os.pipe()
        with open(self.folder / f"agent-of-test-{len(self.agents)}.log", "wb") as log:
            agent = subprocess.Popen(
                [
                    *(_supervisor_path(), "agent", "--join", str(self.folder / "agent.token")),
                    *("--cores", str(cores), "--ready-fd", str(theirs), *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs],
            )
        os.close(theirs)
        self.agents.append(agent)
        ready = os.read(ours, 1)
        os.close(ours)
        assert ready == b"\0", Path(log.name).read_text()
        return agent

    def server(self) -> int:
        """The process id of its nats-server; 0: none runs just now."""
        try:
            return int((self.folder / "nats-server.pid").read_text().split()[0])
        except FileNotFoundError:
            return 0

    def end(self) -> None:
        close_session(self.place)
        for agent in self.agents:
            agent.kill()
            agent.wait()
        self.command("down", "--folder", str(self.folder))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "cluster")
    monkeypatch.setenv("TENDRIL_PLACE", cluster.place)
    try:
        yield cluster
    finally:
        cluster.end()


def note(folder: str, x: int) -> None:
    """Leave a trace of this run of a call."""
    with open(f"{folder}/{x}-{os.getpid()}-{time.monotonic_ns()}", "wb"):
        pass


def runs(folder: Path) -> list[int]:
    """The calls that have been begun, as often as they were."""
    return [int(entry.name.partition("-")[0]) for entry in folder.iterdir()]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


# -- as on one machine ----------------------------------------------------------------------------

SCRIPT = """
    import sys, tendril

    @tendril.function(region="us-east-1", vm_type="m6i.xlarge")
    def process(x):
        print("doing", x)
        print("to stderr", x, file=sys.stderr)
        if x == 3:
            raise KeyError("three")
        return x * x

    if __name__ == "__main__":
        print(process(2))
        print(list(process.map(range(3))))
        try:
            list(process.map(range(5)))
        except KeyError as error:
            print("raised", error, type(error.__cause__).__name__)
        print(process.submit(5).result())
"""


def test_the_same_script_runs_there_unchanged(cluster: Cluster, run_script: RunScript) -> None:
    cluster.join(cores=1)
    there = run_script(SCRIPT)
    here = run_script(SCRIPT, TENDRIL_PLACE="local")

    def of(ended: Ended) -> tuple[list[str], list[str]]:
        return sorted(ended.out.splitlines()), sorted(set(ended.err.splitlines()))

    assert of(there) == of(here)


def test_results_come_in_order_and_calls_go_to_all_agents(cluster: Cluster, gate: Gate) -> None:
    agents = [cluster.join() for _ in range(3)]

    def work(x: int) -> tuple[int, int]:
        if x < 3:
            gate.wait()  # until each has one
        return x, os.getppid()

    results = tendril.function(work).map(range(300))
    havoc.wait_until(lambda: results.stats().running >= 3, "each agent has a call")
    gate.open()
    got = list(results)
    assert [x for x, _ in got] == list(range(300))
    assert len({parent for _, parent in got}) == len(agents)  # each has a supervisor of its own


def test_large_values(cluster: Cluster) -> None:
    cluster.join(cores=2)

    @tendril.function
    def grow(array: np.ndarray, times: int) -> np.ndarray:
        array += 1
        return np.tile(array, times)

    for size, times in ((3_000_000, 1), (1_000, 20_000), (9_000_000, 3)):
        array = np.arange(size, dtype="u1")
        result = grow(array, times)
        assert np.array_equal(result, np.tile(array + np.uint8(1), times))
        result += 1  # it is ours
    big = list(grow.map([np.zeros(2_000_000, "u1")] * 5, [1] * 5))
    assert all(one.sum() == 2_000_000 for one in big)


def test_large_function(cluster: Cluster) -> None:
    cluster.join()
    table = os.urandom(5_000_000)
    assert tendril.function(lambda x: table[x])(4_999_999) == table[-1]


def test_maps_of_calls_stay_on_their_machine(cluster: Cluster) -> None:
    cluster.join(cores=1)

    def leaf(x: int) -> tuple[int, int]:
        return x, os.getppid()

    def outer(x: int) -> tuple[int, list[tuple[int, int]]]:
        return os.getppid(), list(tendril.function(leaf).map(range(x)))

    for parent, below in tendril.function(outer).map([2, 3]):
        assert {one for _, one in below} == {parent}


def test_cancelled_map_stops_there(cluster: Cluster, notes: Path) -> None:
    cluster.join(cores=2)

    def hang(x: int) -> None:
        note(str(notes), x)
        while True:
            time.sleep(60)

    results = tendril.function(hang).map(range(100))
    havoc.wait_until(lambda: len(runs(notes)) == 2, "two run")
    pids = [int(entry.name.split("-")[1]) for entry in notes.iterdir()]
    results.cancel()
    havoc.wait_until(lambda: not any(havoc.alive(pid) for pid in pids), "they are stopped")
    assert tendril.function(abs)(-3) == 3  # and others have the room
    assert len(runs(notes)) == 2


def test_two_callers_at_once(cluster: Cluster, run_script: RunScript) -> None:
    cluster.join(cores=2)
    source = """
        import sys, tendril
        k = int(sys.argv[1])
        add = tendril.function(lambda x: x + k)
        assert list(add.map(range(5000))) == [x + k for x in range(5000)]
    """
    path = run_script.write(source)
    callers = [subprocess.Popen([sys.executable, str(path), str(k)]) for k in range(3)]
    assert [caller.wait(COMMAND_S) for caller in callers] == [0, 0, 0]


# -- agents come and go ---------------------------------------------------------------------------


def test_new_agent_takes_work_at_once(cluster: Cluster, gate: Gate, notes: Path) -> None:
    cluster.join()

    def work(x: int) -> int:
        note(str(notes), x)
        gate.wait()
        return x

    results = tendril.function(work).map(range(50))
    havoc.wait_until(lambda: len(runs(notes)) == 1, "the first has work")
    cluster.join()
    havoc.wait_until(lambda: len(runs(notes)) == 2, "so has the second", havoc.patient(1.0) + 1)
    gate.open()
    assert list(results) == list(range(50))


def test_calls_wait_for_the_first_agent(cluster: Cluster) -> None:
    future = tendril.function(abs).submit(-7)
    assert not future.done()
    cluster.join()
    assert future.result(COMMAND_S) == 7


@pytest.mark.parametrize("victim", ["agent", "runner"])
def test_killed_agent_or_runner_costs_no_result(
    cluster: Cluster, gate: Gate, notes: Path, victim: str
) -> None:
    first = cluster.join()
    cluster.join()

    def work(x: int) -> int:
        note(str(notes), x)
        gate.wait()
        return x

    results = tendril.function(work, retries=1).map(range(30))
    havoc.wait_until(lambda: len(runs(notes)) == 2, "both have a call")
    if victim == "agent":
        first.kill()
        first.wait()
    else:
        os.kill(int(next(notes.iterdir()).name.split("-")[1]), signal.SIGKILL)
    gate.open()
    assert list(results) == list(range(30))
    assert set(runs(notes)) == set(range(30))


def test_drained_agent_finishes_what_it_has_begun(
    cluster: Cluster, gate: Gate, notes: Path
) -> None:
    first = cluster.join()

    def work(x: int) -> int:
        note(str(notes), x)
        gate.wait()
        return x

    results = tendril.function(work).map(range(20))
    havoc.wait_until(lambda: len(runs(notes)) == 1, "it has a call")
    first.terminate()
    cluster.join()
    havoc.wait_until(lambda: len(runs(notes)) == 2, "the other one takes what is left")
    assert first.poll() is None
    gate.open()
    assert list(results) == list(range(20))
    assert first.wait(COMMAND_S) == 0
    assert sorted(runs(notes)) == list(range(20))  # each once


def test_drained_agent_hands_back_at_a_second_signal(cluster: Cluster, notes: Path) -> None:
    first = cluster.join()

    def work(x: int) -> int:
        note(str(notes), x)
        while len(runs(notes)) < 2:  # the first attempt never ends
            time.sleep(0.01)
        return x

    future = tendril.function(work).submit(0)
    havoc.wait_until(lambda: runs(notes) == [0], "it has the call")
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGINT)
    assert first.wait(COMMAND_S) == 0
    cluster.join()
    assert future.result(COMMAND_S) == 0


# -- the server -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [1, 3])
def test_server_killed_in_the_middle(cluster: Cluster, notes: Path, kills: int) -> None:
    for _ in range(2):
        cluster.join()

    def work(x: int) -> int:
        note(str(notes), x)
        time.sleep(0.01)
        return x

    results = tendril.function(work).map(range(300))
    got = []
    for k in range(kills):
        got += [next(results) for _ in range(50)]
        server = cluster.server()
        os.kill(server, signal.SIGKILL)
        havoc.wait_until(lambda: not havoc.alive(server), "it is dead")  # noqa: B023
        havoc.wait_until(lambda: cluster.server() not in (0, server), f"it is back ({k})")  # noqa: B023
    got += list(results)
    assert got == list(range(300))


def test_server_is_away_when_a_call_is_made(cluster: Cluster) -> None:
    cluster.join()
    assert tendril.function(abs)(-1) == 1
    os.kill(cluster.server(), signal.SIGKILL)
    assert tendril.function(abs)(-2) == 2


# -- what is said ---------------------------------------------------------------------------------


def test_another_python_is_named(cluster: Cluster, tmp_path: Path) -> None:
    """An interpreter that says it is another one: what is compared is what it says."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.version_info = (3, 99, 0)")
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    fake.chmod(0o755)
    cluster.join("--python", str(fake))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(tendril.NotStarted, match=f"python: 3.99 there, {version} at the caller"):
        tendril.function(abs)(-1)


def wrong_token(cluster: Cluster) -> str:
    return str(cluster.folder / "agent.token")


def open_token(cluster: Cluster) -> str:
    path = cluster.folder / "open.token"
    path.write_text(Path(cluster.place).read_text())
    path.chmod(0o644)
    return str(path)


def no_token(cluster: Cluster) -> str:
    path = cluster.folder / "no.token"
    path.write_text("hello")
    path.chmod(0o600)
    return str(path)


def no_server(cluster: Cluster) -> str:
    place = cluster.folder / "kept.token"
    place.write_text(Path(cluster.place).read_text())
    place.chmod(0o600)
    cluster.command("down", "--folder", str(cluster.folder))
    return str(place)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (wrong_token, "agent"),
        (open_token, "chmod 600"),
        (no_token, "token"),
        (no_server, "nats://127.0.0.1"),
    ],
)
def test_place_that_cannot_be_reached(
    cluster: Cluster, place: Callable[[Cluster], str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENDRIL_PLACE", place(cluster))
    with pytest.raises(tendril.NotStarted, match=words):
        tendril.function(abs)(-1)
