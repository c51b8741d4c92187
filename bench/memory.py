"""python -m bench.memory KIND PEER WAY [RATE]: one number on stdout, about the memory of a fresh
caller.

queued: resident bytes for each call that waits behind blocked workers, beyond its payload.
rate: calls per second of a map of a generator, for:
endless: MiB that the caller grows by while a generator is mapped and read at half that rate.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import peers
from bench.calls import noop, wait_for_lock
from bench.peers import Peer

PAYLOAD = 64
QUEUED = 50_000
QUEUED_AT_MOST_S = 2.0
DRAWN_AT_MOST_S = 60
STREAMED = 4096  # bytes of an input, so that the ones that are kept show
ENDLESS = 100_000
ENDLESS_S = 2.0


class Payloads:
    """Inputs of PAYLOAD bytes, made when they are drawn; with a length, so that nobody is shy."""

    def __init__(self, path: str, count: int) -> None:
        self._path = path.encode().ljust(PAYLOAD - 8, b"\0")
        self._count = count
        self.drawn = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self._count):
            yield self._path + number.to_bytes(8, "little")
            self.drawn += 1

    def wait(self) -> None:
        """Until all are drawn."""
        end = time.monotonic() + DRAWN_AT_MOST_S
        while self.drawn < self._count:
            if time.monotonic() > end:
                raise TimeoutError(f"only {self.drawn} of {self._count} inputs are drawn")
            time.sleep(0.001)


def generated(count: int) -> Iterator[bytes]:
    """Inputs of STREAMED bytes, without a length."""
    return (number.to_bytes(STREAMED, "little") for number in range(count))


def resident_bytes(name: str = "VmRSS") -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def settled_bytes() -> int:
    """Resident memory when it has changed little for a second: some peers queue in a thread."""
    steady, still = resident_bytes(), 0
    for _ in range(150):
        time.sleep(0.2)
        now = resident_bytes()
        still = still + 1 if abs(now - steady) < 1 << 18 else 0
        if still == 5:
            return now
        if not still:
            steady = now
    raise TimeoutError("the memory of the caller does not settle")


@contextlib.contextmanager
def locked() -> Iterator[str]:
    """A file whose lock is held meanwhile: wait_for_lock waits for it."""
    with tempfile.NamedTemporaryFile() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.name
        fcntl.flock(file, fcntl.LOCK_UN)


def queued(peer: Peer, way: str) -> float:
    """All calls wait for a lock, so that none of them ends before all have been queued. Calls with
    a lock of their own come first and tell how many can be queued in the time there is."""
    queue = peer.queues[way]
    kept = []
    with locked() as path:
        probe = Payloads(path, 1000)
        start = time.perf_counter()
        kept.append(queue(wait_for_lock, probe))
        probe.wait()
        rate = len(probe) / (time.perf_counter() - start)
    before = settled_bytes()
    with locked() as path:
        inputs = Payloads(path, int(min(QUEUED, max(5_000, rate * QUEUED_AT_MOST_S))))
        kept.append(queue(wait_for_lock, inputs))
        inputs.wait()
        grown = settled_bytes() - before
    del kept
    return grown / len(inputs) - PAYLOAD


def rate(peer: Peer, way: str) -> float:
    """Tried with ever more calls; in a process of its own, since the memory that it takes and
    frees would be there for the growth that is measured."""
    stream = peer.streams[way]
    collections.deque(stream(noop, generated(20)), maxlen=0)  # its workers have started
    calls = 200
    while True:
        start = time.perf_counter()
        collections.deque(stream(noop, generated(calls)), maxlen=0)
        elapsed = time.perf_counter() - start
        if elapsed > 0.3 or calls > ENDLESS:
            return calls / elapsed
        calls *= 4


def endless(peer: Peer, way: str, rate: float) -> float:
    """The reader is slower than the workers, as one is that does something with each result: now
    it shows who draws inputs, or keeps results, without an end."""
    stream = peer.streams[way]
    collections.deque(stream(noop, generated(20)), maxlen=0)
    count, block = int(min(ENDLESS, rate * ENDLESS_S)), max(1, int(rate / 100))
    before = settled_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for number, _ in enumerate(stream(noop, generated(count)), 1):
        if number % block == 0:
            time.sleep(block / rate)
    return (resident_bytes("VmHWM") - before) / (1 << 20)


def main() -> int:
    kind, name, way, *rest = sys.argv[1:]
    kinds: dict[str, Callable[..., float]] = {"queued": queued, "rate": rate, "endless": endless}
    peers.prepare()
    with peers.PEERS[name]() as peer:
        print(kinds[kind](peer, way, *map(float, rest)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
