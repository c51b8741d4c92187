"""What is measured. A case has a unit, says whether less is better, what is aimed at, and makes its
contenders: "ours" and others by name, each a function that measures once and returns a number in
the unit.
"""

from __future__ import annotations

import collections
import functools
import multiprocessing
import pickle
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.calls import add_one, noop, sleep
from bench.peers import PEERS, WORKERS, Peer, missing

Measure = Callable[[], float]
Contenders = dict[str, Measure]


@dataclass(frozen=True)
class Target:
    """What ours should be at most (or at least, where more is better): `factor` times the figure
    of the contender whose name starts with `peer`, or `factor` itself without one."""

    text: str
    factor: float
    peer: str = ""


@dataclass(frozen=True)
class Case:
    """name: for ONLY=. contenders: makes them, inside whatever they need. warm_up: whether they
    need a round that does not count; some have warmed up when made, or are new each time."""

    name: str
    title: str
    unit: str
    less_is_better: bool
    contenders: Callable[[], AbstractContextManager[Contenders]]
    targets: tuple[Target, ...] = ()
    warm_up: bool = True


@contextmanager
def _started() -> Iterator[list[Peer]]:
    """All peers, each with its workers at work."""
    with ExitStack() as stack:
        peers = [stack.enter_context(PEERS[name]()) for name in PEERS if name not in missing()]
        for peer in reversed(peers):  # what forks has forked by now, but for the executor
            assert next(iter(peer.calls.values()))(noop, 1) == 1
        yield peers[::-1]


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _consume(results: Iterable[Any]) -> None:
    collections.deque(results, maxlen=0)


# -- one call --------------------------------------------------------------------------------------


def _p50_us(call: Callable[[Any, int], Any], calls: int = 300, at_most_s: float = 1.0) -> float:
    end = time.perf_counter() + at_most_s
    times = [_seconds(functools.partial(call, noop, i)) for i in range(20)]
    while len(times) < calls and time.perf_counter() < end:
        times.append(_seconds(functools.partial(call, noop, len(times))))
    return statistics.median(times) * 1e6


def _echo(connection: socket.socket) -> None:
    while data := connection.recv(256):
        connection.sendall(data)


@contextmanager
def _ping_pong() -> Iterator[Callable[[Any, int], Any]]:
    """A child process that sends back what it gets: the least that a call to another process can
    cost. It gets what a call has to send, its pickled argument."""
    ours, theirs = socket.socketpair()
    child = multiprocessing.get_context("fork").Process(target=_serve, args=(ours, theirs))
    child.start()
    theirs.close()

    def call(_: Any, x: int) -> Any:
        ours.sendall(pickle.dumps((x,)))
        return pickle.loads(ours.recv(256))

    with ours:
        yield call
    child.join()


def _serve(ours: socket.socket, theirs: socket.socket) -> None:
    ours.close()
    _echo(theirs)


@contextmanager
def single_call() -> Iterator[Contenders]:
    with _ping_pong() as ping_pong, _started() as peers:
        calls = {name: call for peer in peers for name, call in peer.calls.items()}
        calls["socket ping-pong"] = ping_pong
        yield {name: functools.partial(_p50_us, call) for name, call in calls.items()}


@contextmanager
def array_100mb() -> Iterator[Contenders]:
    """A new array for each call, since some peers would remember the one that they have sent; the
    caller reads something of each page of what comes back."""
    import numpy

    items = 100_000_000 // 8

    def milliseconds(call: Callable[[Any, Any], Any]) -> float:
        array = numpy.ones(items)
        start = time.perf_counter()
        total = call(add_one, array)[::512].sum()
        elapsed = time.perf_counter() - start
        assert total == 2 * len(range(0, items, 512)), total
        return elapsed * 1000

    with _started() as peers:
        ways = {name: way for peer in peers for name, way in (peer.calls | peer.large).items()}
        yield {name: functools.partial(milliseconds, way) for name, way in ways.items()}


# -- many calls ------------------------------------------------------------------------------------

MAP_CALLS = 1_000_000
MAP_S = 1.0
BEST_OF = (500, 5_000, 50_000)
BEST_CALLS = 100_000

Work = Callable[[Any, Any], Iterable[Any]]


def _rate(work: Work, calls: int) -> float:
    return calls / _seconds(lambda: _consume(work(noop, range(calls))))


def _calls_for(work: Work) -> int:
    """As many calls as are done in about MAP_S, found by trying with ever more."""
    calls = 200
    while True:
        rate = _rate(work, calls)
        if calls / rate > 0.2 or calls == MAP_CALLS:
            return min(MAP_CALLS, int(rate * MAP_S))
        calls = min(MAP_CALLS, calls * 4)


def _with_size(way: Callable[[Any, Any, int], Iterable[Any]], size: int) -> Work:
    return lambda fn, inputs: way(fn, inputs, size)


def _best(way: Callable[[Any, Any, int], Iterable[Any]]) -> int:
    """The number of calls to a message with which a peer is quickest."""
    return max(BEST_OF, key=lambda size: _rate(_with_size(way, size), BEST_CALLS))


@contextmanager
def map_noop() -> Iterator[Contenders]:
    with _started() as peers:
        works: dict[str, Work] = {}
        for peer in peers:
            works |= peer.maps
            for name, way in peer.best.items():
                size = _best(way)
                works[name.format(size)] = _with_size(way, size)
        yield {
            name: functools.partial(_rate, work, _calls_for(work)) for name, work in works.items()
        }


@contextmanager
def _sleeping(durations: list[float]) -> Iterator[Contenders]:
    """Time over the ideal, which is set by the sum or by the longest. They sleep, so that other
    load on the machine counts little."""
    ideal = max(sum(durations) / WORKERS, max(durations))

    def over(work: Work) -> float:
        return (_seconds(lambda: _consume(work(sleep, durations))) / ideal - 1) * 100

    with _started() as peers:
        works = {name: work for peer in peers for name, work in peer.maps.items()}
        del works["Dask, batch_size=1,000"]  # for calls that cost nothing
        for work in works.values():
            _consume(work(sleep, [0.001] * 20))
        yield {name: functools.partial(over, work) for name, work in works.items()}


def calls_of_10ms() -> AbstractContextManager[Contenders]:
    return _sleeping([0.01] * 1000)


def mixed_durations() -> AbstractContextManager[Contenders]:
    """Half of them under 5 ms, the longest beyond 100 ms."""
    seeded = random.Random(1)
    return _sleeping([seeded.lognormvariate(0, 1.2) * 0.005 for _ in range(400)])


# -- fresh processes -------------------------------------------------------------------------------

_FIRST = {
    "ours": "import tendril\n@tendril.function\ndef f(x): return x\nprint(f(1), flush=True)",
    "Pool": (
        "from multiprocessing import Pool\ndef f(x): return x\n"
        f"with Pool({WORKERS}) as p: print(p.apply(f, (1,)), flush=True)"
    ),
    "ProcessPoolExecutor": (
        "from concurrent.futures import ProcessPoolExecutor\ndef f(x): return x\n"
        f"with ProcessPoolExecutor({WORKERS}) as e: print(e.submit(f, 1).result(), flush=True)"
    ),
    "joblib": (
        "from joblib import Parallel, delayed\ndef f(x): return x\n"
        f"print(Parallel({WORKERS})([delayed(f)(1), delayed(f)(2)]), flush=True)"
    ),
}
_FIRST_THROUGH_PEERS = (
    "from bench import peers\ndef f(x): return x\nif __name__ == '__main__':\n"
    " with peers.PEERS[{name!r}]() as p: print(p.calls[{way!r}](f, 1), flush=True)"
)
_FIRST |= {
    way: _FIRST_THROUGH_PEERS.format(name=name, way=way)
    for name, way in (("dask", "Dask"), ("ray", "Ray, task"))
    if name not in missing()
}


def _first_ms(code: str) -> float:
    """Until it prints something, or has ended; how long it takes to end after that counts for
    nobody."""
    start = time.perf_counter()
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        printed = process.stdout.read(1)
        elapsed = time.perf_counter() - start
        process.stdout.read()
    assert process.returncode == 0 and (printed or code == "pass"), code
    return elapsed * 1000


@contextmanager
def first_result() -> Iterator[Contenders]:
    codes = _FIRST | {"python -c pass": "pass"}
    yield {name: functools.partial(_first_ms, code) for name, code in codes.items()}


@contextmanager
def print_lines() -> Iterator[Contenders]:
    lines = 100_000
    code = (
        "import tendril, os\n@tendril.function\ndef f(n):\n  for i in range(n): print('line', i)\n"
        f"f({lines})"
    )
    plain = f"for i in range({lines}): print('line', i, flush=True)"

    def rate(text: str) -> float:
        command = [sys.executable, "-c", text]
        run = functools.partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
        return lines / _seconds(run)

    yield {"ours": lambda: rate(code), "plain Python, line by line": lambda: rate(plain)}


def _memory(*args: str) -> float:
    """What bench.memory prints; what peers complain of when they are ended early is not shown."""
    command = [sys.executable, "-m", "bench.memory", *args]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{args}: {run.stderr}")
    return float(run.stdout.split()[-1])


def _queued(peer: str, way: str) -> float:
    return _memory("queued", peer, way)


@functools.cache
def _streamed_rate(peer: str, way: str) -> float:
    return _memory("rate", peer, way)


def _endless(peer: str, way: str) -> float:
    return _memory("endless", peer, way, str(_streamed_rate(peer, way)))


@contextmanager
def _memories(
    measure: Callable[[str, str], float], ways: dict[str, list[str]]
) -> Iterator[Contenders]:
    yield {
        way: functools.partial(measure, peer, way)
        for peer in ways
        if peer not in missing()
        for way in ways[peer]
    }


def queued_memory() -> AbstractContextManager[Contenders]:
    ways = {
        "tendril": ["ours", "Tendril, submit"],
        "multiprocessing": ["Pool.apply_async"],
        "executor": ["ProcessPoolExecutor"],
        "joblib": ["loky, submit"],
        "dask": ["Dask"],
        "ray": ["Ray"],
    }
    return _memories(_queued, ways)


def endless_input() -> AbstractContextManager[Contenders]:
    ways = {
        "tendril": ["ours"],
        "multiprocessing": ["Pool.imap, default", "Pool.imap, chunksize=1,000"],
        "executor": ["ProcessPoolExecutor, default"],
        "joblib": ["joblib, return_as=generator"],
        "dask": ["Dask, default"],
    }
    return _memories(_endless, ways)


CASES = [
    Case(
        "single_call",
        "one no-op call, p50 of the round trip",
        "us",
        True,
        single_call,
        (
            Target("half of ProcessPoolExecutor's", 0.5, "ProcessPoolExecutor"),
            Target("3 x the raw socket ping-pong", 3, "socket ping-pong"),
        ),
    ),
    Case(
        "map_noop",
        "no-op calls through map",
        "calls/s",
        False,
        map_noop,
        (
            Target("as many as Pool.map at its best chunksize", 1, "Pool.map, best"),
            Target("10 x ProcessPoolExecutor at its default", 10, "ProcessPoolExecutor, default"),
            Target("50 x Dask", 50, "Dask, default"),
        ),
        warm_up=False,
    ),
    Case(
        "first_result",
        "start of Python to the first result",
        "ms",
        True,
        first_result,
        (
            Target("5 x `python -c pass`", 5, "python -c pass"),
            Target("a tenth of Dask's", 0.1, "Dask"),
            Target("a tenth of Ray's", 0.1, "Ray"),
        ),
    ),
    Case(
        "array_100mb",
        "one call with an array of 100 MB in and out",
        "ms",
        True,
        array_100mb,
        (Target("a fifth of Pool's", 0.2, "Pool.apply"),),
    ),
    Case(
        "queued_memory",
        "memory of the caller for a queued call, beyond its payload",
        "bytes",
        True,
        queued_memory,
        (Target("300 bytes", 300),),
        warm_up=False,
    ),
    Case(
        "endless_input",
        "growth of the caller while it slowly reads a map of a generator of 4 KiB inputs",
        "MiB",
        True,
        endless_input,
        (Target("constant: 16 MiB", 16),),
        warm_up=False,
    ),
    Case(
        "calls_of_10ms",
        "1,000 calls of 10 ms, over the ideal",
        "%",
        True,
        calls_of_10ms,
        (Target("3 %", 3),),
        warm_up=False,
    ),
    Case(
        "mixed_durations",
        "400 calls of 5 ms in the median, some much longer, over the ideal",
        "%",
        True,
        mixed_durations,
        warm_up=False,
    ),
    Case("print_lines", "printed lines, start included", "lines/s", False, print_lines),
]
