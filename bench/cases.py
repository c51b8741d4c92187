"""What is measured. A case has a unit, says whether less is better, and one or more contenders:
"ours" and peers, each a function that measures once and returns a number in the unit.

The rounds of a case are interleaved (ours, peer, ours, peer, ...), so that a change of the
machine's speed meets all alike.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tendril

Measure = Callable[[], float]


def noop(x: Any) -> Any:
    return x


tendril_noop = tendril.function(noop)


@dataclass(frozen=True)
class Case:
    """name: for ONLY=; contenders: makes the functions, inside whatever they need."""

    name: str
    title: str
    unit: str
    less_is_better: bool
    contenders: Callable[[], Any]


def _p50_us(call: Callable[[int], Any], calls: int = 300) -> float:
    times = []
    for i in range(calls):
        start = time.perf_counter_ns()
        call(i)
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def _per_second(work: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    work()
    return calls / (time.perf_counter() - start)


@contextmanager
def _socket_echo() -> Iterator[socket.socket]:
    """A child process that sends back what it gets: the least that a call to another process
    can cost."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        while data := theirs.recv(256):
            theirs.sendall(data)
        os._exit(0)
    theirs.close()
    with ours:
        yield ours
    os.waitpid(pid, 0)


def _echo(connection: socket.socket, payload: bytes) -> None:
    connection.sendall(payload)
    connection.recv(256)


@contextmanager
def single_call() -> Iterator[dict[str, Measure]]:
    payload = b"x" * 64
    with (
        _socket_echo() as connection,
        multiprocessing.Pool(2) as pool,
        ProcessPoolExecutor(2) as executor,
    ):
        yield {
            "ours": lambda: _p50_us(tendril_noop),
            "ProcessPoolExecutor": lambda: _p50_us(lambda i: executor.submit(noop, i).result()),
            "multiprocessing.Pool": lambda: _p50_us(lambda i: pool.apply(noop, (i,))),
            "socket ping-pong": lambda: _p50_us(lambda i: _echo(connection, payload)),
        }


@contextmanager
def map_noop() -> Iterator[dict[str, Measure]]:
    calls = 20_000
    inputs = range(calls)
    with multiprocessing.Pool(2) as pool, ProcessPoolExecutor(2) as executor:
        yield {
            "ours": lambda: _per_second(lambda: sum(1 for _ in tendril_noop.map(inputs)), calls),
            "ProcessPoolExecutor, default": lambda: _per_second(
                lambda: sum(1 for _ in executor.map(noop, inputs)), calls
            ),
            "multiprocessing.Pool, chunksize=1": lambda: _per_second(
                lambda: pool.map(noop, inputs, chunksize=1), calls
            ),
            "multiprocessing.Pool, its chunks": lambda: _per_second(
                lambda: pool.map(noop, inputs), calls
            ),
        }


_FIRST = {
    "ours": "import tendril\n@tendril.function\ndef f(x): return x\nf(1)",
    "ProcessPoolExecutor": (
        "from concurrent.futures import ProcessPoolExecutor\ndef f(x): return x\n"
        "with ProcessPoolExecutor(2) as e: e.submit(f, 1).result()"
    ),
    "python -c pass": "pass",
}


def _run_ms(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


@contextmanager
def first_result() -> Iterator[dict[str, Measure]]:
    yield {name: lambda code=code: _run_ms(code) for name, code in _FIRST.items()}


def _sleep_10ms(x: int) -> int:
    time.sleep(0.01)
    return x


tendril_sleep = tendril.function(_sleep_10ms)


@contextmanager
def calls_of_10ms() -> Iterator[dict[str, Measure]]:
    """Time over the ideal for calls of 10 ms; they sleep, so that other load counts little."""
    calls = 200
    cores = tendril_sleep.cluster.cores
    ideal = calls * 0.01 / cores

    def over(work: Callable[[], Any]) -> float:
        return (calls / _per_second(work, calls) / ideal - 1) * 100

    with ProcessPoolExecutor(cores) as executor:
        yield {
            "ours": lambda: over(lambda: list(tendril_sleep.map(range(calls)))),
            "ProcessPoolExecutor": lambda: over(
                lambda: list(executor.map(_sleep_10ms, range(calls)))
            ),
        }


@contextmanager
def print_lines() -> Iterator[dict[str, Measure]]:
    lines = 100_000
    code = (
        "import tendril, os\n@tendril.function\ndef f(n):\n  for i in range(n): print('line', i)\n"
        f"f({lines})"
    )
    plain = f"for i in range({lines}): print('line', i, flush=True)"

    def rate(text: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", text], check=True, stdout=subprocess.DEVNULL)
        return lines / (time.perf_counter() - start)

    yield {"ours": lambda: rate(code), "plain Python, line by line": lambda: rate(plain)}


CASES = [
    Case("single_call", "one no-op call, p50 round trip", "us", True, single_call),
    Case("map_noop", "no-op calls through map", "calls/s", False, map_noop),
    Case("first_result", "start of Python to first result", "ms", True, first_result),
    Case("calls_of_10ms", "200 calls of 10 ms, over the ideal", "%", True, calls_of_10ms),
    Case("print_lines", "printed lines, start included", "lines/s", False, print_lines),
]
