"""A map at the caller: an iterator over results as they come."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from tendril import _progress, _tendril, errors
from tendril._feed import Feeder
from tendril._outcome import Outcome, error_of, tame, unreadable, values_of
from tendril._session import FORKED, Session, nested

Errors = Literal["raise", "return", "skip"]
ERRORS = ("raise", "return", "skip")
FAILURES_MAX = 10_000


class Failure(NamedTuple):
    """A call that failed for good: its number, its exception, and how often it was tried."""

    index: int
    error: BaseException
    attempts: int


class Stats(NamedTuple):
    """A map in numbers. Durations in seconds, sizes in bytes.

    calls: submitted so far; running, finished, failed: of these; delivered: given to the reader.
    elapsed_s: since the map was made; busy_s: sum of the delivered calls' own durations;
    longest_s and peak_bytes: the most of one call.
    """

    calls: int
    running: int
    finished: int
    failed: int
    delivered: int
    elapsed_s: float
    busy_s: float
    longest_s: float
    peak_bytes: int


def core_error(error: _tendril.Error, what: str) -> errors.TendrilError:
    """A status of the core as an exception that says what to do."""
    status, text = error.args
    match status:
        case "TD_ECANCELLED":
            return errors.Cancelled(f"{what} was cancelled")
        case "TD_ECLOSED":
            return errors.ClosedError(
                f"{what}: the session is closed, or the program has closed its descriptors"
            )
        case "TD_EFORKED":
            return errors.ForkedError(f"{what}: {FORKED}")
        case _:
            return errors.TendrilError(f"{what}: {text}")


class Map(_tendril.Results):
    """Results of many calls, in the order of their inputs (or as they finish), as they come.

    Iterate over it; it may be iterated once. `errors` says what a failed call gives at its turn:
    "raise" its exception (iterating may go on after it), "return" the exception as a value,
    "skip" nothing. Dropping the last reference, or leaving `with`, cancels what still runs.
    """

    def __init__(
        self,
        session: Session,
        core: _tendril.Map,
        name: str,
        inputs: Iterator[Any],
        spread: bool,
        length: int | None,
        errors: Errors,
    ) -> None:
        self._session = session
        self._core = core
        self._name = name
        self._length = length
        self._errors = errors
        self._started = time.monotonic()
        self._ended: float | None = None
        self._read = False
        self._busy_ns = 0
        self._longest_ns = 0
        self._peak_bytes = 0
        self._failures: list[Failure] = []
        self._last: Outcome | None = None  # whose results are being given
        self._alike: Outcome | None = None  # calls that ended as the last one did
        self._bar: _progress.Bar | None = None
        if _progress.wanted() and not nested():
            self._bar = _progress.Bar(core, name, length)
            session.add_ticker(self._bar.refresh)
        self._feeder = Feeder(core, inputs, spread)
        self._feeder.thread.start()

    # -- reading ---------------------------------------------------------------------------------

    def _refill(self) -> list[Any]:
        """The next results; called by the iterator (see python/_tendril/results.c)."""
        while True:
            outcome = self._next_outcome()
            try:
                if outcome.ok:
                    self._last = outcome
                    return values_of(outcome)
                error = error_of(outcome, self._name)
            except errors.PicklingError as unreadable_one:
                error = unreadable_one
            value = self._fail(error, outcome.index, outcome.attempt)
            if value is not NotImplemented:
                return [value]

    def _unreadable(self, stand_in: _tendril.Unreadable, at: int) -> Any:
        assert self._last is not None
        index = self._last.index + at
        return self._fail(unreadable(index, stand_in.args[0]), index, self._last.attempt)

    def _fail(self, error: BaseException, index: int, attempts: int) -> Any:
        """What a failed call gives at its turn; NotImplemented for nothing."""
        if len(self._failures) < FAILURES_MAX:
            self._failures.append(Failure(index, error, attempts))
        if self._errors == "raise":
            raise tame(error, index, self._name)
        return error if self._errors == "return" else NotImplemented

    def _next_outcome(self) -> Outcome:
        """The next outcome; of calls that failed alike, one at a time."""
        outcome = self._alike or self._take_outcome()
        if outcome.ok or outcome.count == 1:
            self._alike = None
            return outcome
        self._alike = outcome._replace(index=outcome.index + 1, count=outcome.count - 1)
        return outcome._replace(count=1)

    def _take_outcome(self) -> Outcome:
        self._read = True
        try:
            outcome = self._session.next_outcome(self._core)
        except StopIteration:
            self._finish()
            raise self._end_of_input() from None
        except _tendril.Error as error:
            self._finish()
            raise core_error(error, self._name) from None
        except BaseException:  # Ctrl-C, or whatever a signal handler raised
            self.cancel()
            raise
        self._busy_ns += outcome.duration_ns
        self._longest_ns = max(self._longest_ns, outcome.duration_ns // outcome.count)
        self._peak_bytes = max(self._peak_bytes, outcome.peak_bytes)
        return outcome

    def _end_of_input(self) -> BaseException:
        """StopIteration, or, once, what the input iterator raised."""
        error, self._feeder.error = self._feeder.error, None
        return error if error is not None else StopIteration()

    def _finish(self) -> None:
        self._session.print_output()
        if self._ended is None:
            self._ended = time.monotonic()
        bar, self._bar = self._bar, None
        if bar is not None:
            self._session.remove_ticker(bar.refresh)
            bar.close()

    # -- looking ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("the length of this map's input is not known beforehand")
        return self._length

    def __bool__(self) -> bool:
        return True  # as other iterators: neither empty nor without a length

    def __length_hint__(self) -> int:
        return 0 if self._length is None else max(0, self._length - self._delivered())

    def _delivered(self) -> int:
        alike = self._alike.count if self._alike is not None else 0
        return self._core.counts()[4] - self._left - alike

    @property
    def id(self) -> str:
        """Names the map, everywhere."""
        return f"{self._core.id:016x}"

    def stats(self) -> Stats:
        """The map in numbers, now."""
        calls, running, finished, failed, _ = self._core.counts()
        return Stats(
            calls=calls,
            running=running,
            finished=finished,
            failed=failed,
            delivered=self._delivered(),
            elapsed_s=(self._ended or time.monotonic()) - self._started,
            busy_s=self._busy_ns / 1e9,
            longest_s=self._longest_ns / 1e9,
            peak_bytes=self._peak_bytes,
        )

    def failures(self) -> list[Failure]:
        """The calls that failed, among those delivered so far; at most 10,000 are kept."""
        return list(self._failures)

    def logs(self, index: int, stream: Literal["both", "stdout", "stderr"] = "both") -> str:
        """What call `index` has written, as far as it is kept (the last 16 MiB of a map)."""
        number = {"both": 0, "stdout": 1, "stderr": 2}.get(stream)
        if number is None:
            raise ValueError(f"stream must be 'both', 'stdout' or 'stderr', not {stream!r}")
        if not 0 <= index < self._core.counts()[0]:
            raise IndexError(f"call {index} was not submitted")
        text, lost = self._core.logs(index, number)
        note = f"[{lost} bytes of this map's older output were dropped]\n" if lost else ""
        return note + text.decode("utf-8", "replace")

    def __repr__(self) -> str:
        calls, _, finished, failed, _ = self._core.counts()
        total = "?" if self._length is None else self._length
        return (
            f"<tendril.Map {self._name} {self.id}: {finished}/{total} finished, "
            f"{failed} failed, {calls} submitted>"
        )

    # -- ending ----------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop everything: waiting calls go, running ones are killed. Reading then gives what had
        finished before, and raises Cancelled."""
        self._core.cancel()
        self._finish()

    @property
    def cancelled(self) -> bool:
        return self._core.cancelled

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._read = True
        self.cancel()

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is None or not hasattr(self, "_feeder"):
            return
        calls, _, finished, _, _ = core.counts()
        done = self._length == self._delivered()
        if not self._read and not done and not core.cancelled:
            warnings.warn(
                f"a map of {self._name} was dropped before any result was read: "
                f"{calls - finished} of its calls were cancelled. Iterate over it, or keep it.",
                RuntimeWarning,
                stacklevel=2,
            )
        core.cancel()
        if self._bar is not None:
            self._session.remove_ticker(self._bar.refresh)
            self._bar.close()

    # -- not built yet ---------------------------------------------------------------------------

    def detach(self) -> str:
        """Let the map run on without this process; only where it runs elsewhere."""
        raise errors.NotAvailable("detach: a map on this machine ends with its process")

    def replay(self, index: int) -> Any:
        """Run a failed call again, here, under a debugger."""
        raise errors.NotAvailable("map.replay is not available yet")

    def report(self, path: str) -> None:
        """Write what happened as a page."""
        raise errors.NotAvailable("map.report is not available yet")
