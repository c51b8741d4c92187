"""A map: order, errors, retries and timeouts, lazy input, cancel, nesting, and what it tells."""

from __future__ import annotations

import gc
import itertools
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import havoc
import pytest
import tendril
from conftest import Gate, RunScript
from tendril import _pickling, _tendril

AHEAD = 1024  # what a map may draw ahead of its results when its input has no length


@tendril.function
def square(x: int) -> int:
    return x * x


@tendril.function
def odd_only(x: int) -> int:
    """Fails for even numbers."""
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x


@tendril.function
def wait_at(gate: Gate) -> str:
    gate.wait()
    return "through"


def running(results: tendril.Map) -> Callable[[], bool]:
    return lambda: results.stats().running > 0


def queue_iterator(size: int) -> tuple[Callable[[int], None], Iterator[int]]:
    """An input iterator that gives an item when the test says so: go(n) lets n more pass."""
    permits = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for i in range(size):
            permits.acquire()
            yield i

    return (lambda n: permits.release(n)), items()


# -- order and input ------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_inputs(gate: Gate) -> None:
    @tendril.function
    def work(i: int) -> int:
        if i == 0:
            gate.wait()  # the first call ends last
        return i

    results = work.map(range(20))
    havoc.wait_until(lambda: results.stats().finished >= 19, "the others overtake the first")
    assert results.stats().delivered == 0
    gate.open()
    assert list(results) == list(range(20))


def test_unordered_results_come_as_they_finish(gate: Gate) -> None:
    @tendril.function
    def work(i: int) -> int:
        if i == 0:
            gate.wait()
        return i

    results = work.map(range(20), ordered=False)
    first = [next(results) for _ in range(19)]
    assert sorted(first) == list(range(1, 20))
    gate.open()
    assert list(results) == [0]


def test_several_iterables_end_with_the_shortest() -> None:
    power = tendril.function(pow)
    assert list(power.map([2, 3, 4], [5, 2])) == [32, 9]
    assert list(power.map([2, 3, 4], itertools.count(), itertools.repeat(5))) == [1, 3, 1]
    with power.map([1, 2], (1, 2, 3)) as results:
        assert len(results) == 2


def test_inputs_of_many_kinds(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("1\n2\n")
    with open(tmp_path / "lines") as lines:
        assert list(tendril.function(int).map(lines)) == [1, 2]
    assert list(square.map({3: "x", 4: "y"})) == [9, 16]
    assert sorted(square.map({1, 2})) == [1, 4]
    assert list(square.map(i for i in range(3))) == [0, 1, 4]
    assert list(tendril.function(ord).map("ab")) == [97, 98]
    assert list(square.map(square.map(range(4)))) == [0, 1, 16, 81]


def test_empty_inputs() -> None:
    assert list(square.map([])) == []
    assert list(square.map(iter(()))) == []
    assert list(square.map([1, 2], [])) == []
    with pytest.raises(StopIteration):
        next(square.map([]))


def test_arguments_that_make_no_sense() -> None:
    with pytest.raises(TypeError, match="at least one iterable"):
        square.map()
    with pytest.raises(TypeError, match="not iterable"):
        square.map(3)
    with pytest.raises(ValueError, match="errors"):
        square.map([1], errors="ignore")
    with pytest.raises(TypeError, match="retries"):
        square.map([1], retries="1")
    with pytest.raises(ValueError, match="timeout"):
        square.map([1], timeout=0)


def test_length_is_that_of_the_input() -> None:
    results = square.map(range(7))
    assert len(results) == 7
    next(results)
    assert len(results) == 7
    assert results.__length_hint__() == 6
    lazy = square.map(iter(range(7)))
    with pytest.raises(TypeError, match="not known"):
        len(lazy)
    assert list(lazy) == [next(square.map([i])) for i in range(7)]
    list(results)


def test_map_is_true_while_it_may_give_results() -> None:
    """`if results:` must neither fail for a lazy input nor lie for a sized one."""
    lazy, sized = square.map(iter([1])), square.map([1])
    assert lazy and sized
    assert list(lazy) == list(sized) == [1]


def test_map_is_iterated_once() -> None:
    results = square.map(range(3))
    assert list(results) == [0, 1, 4]
    assert list(results) == []
    assert iter(results) is results


# -- failing calls --------------------------------------------------------------------------------


def test_errors_raise_and_iterating_goes_on_after_it() -> None:
    results = odd_only.map(range(5))
    got: list[Any] = []
    for _ in range(5):
        try:
            got.append(next(results))
        except ValueError as error:
            got.append(str(error))
    assert got == ["0 is even", 1, "2 is even", 3, "4 is even"]
    with pytest.raises(StopIteration):
        next(results)


def test_errors_return_gives_them_as_values() -> None:
    got = list(odd_only.map(range(3), errors="return"))
    assert [type(one) for one in got] == [ValueError, int, ValueError]
    assert str(got[2]) == "2 is even"
    assert isinstance(got[2].__cause__, tendril.RemoteTraceback)


def test_errors_skip_leaves_them_out() -> None:
    results = odd_only.map(range(6), errors="skip")
    assert list(results) == [1, 3, 5]
    assert [one.index for one in results.failures()] == [0, 2, 4]
    assert list(odd_only.map([0, 2], errors="skip")) == []


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_stop_iteration_in_a_call_does_not_end_the_map(errors: Any) -> None:
    """A bare next() in the function is a common bug: it must not pass for the end."""

    @tendril.function
    def first(items: list[int]) -> int:
        return next(iter(items))

    results = first.map([[1], [], [3]], errors=errors)
    assert next(results) == 1
    if errors == "raise":
        with pytest.raises(RuntimeError, match=r"first: call 1 raised StopIteration") as caught:
            next(results)
        assert isinstance(caught.value.__cause__, StopIteration)
    else:
        assert isinstance(next(results), StopIteration)
    assert list(results) == [3]
    with pytest.raises(RuntimeError, match="StopIteration"):
        first.submit([]).result()
    with pytest.raises(StopIteration):
        first([])


def test_failures_and_stats() -> None:
    results = odd_only.map(range(10), errors="skip", retries=0)
    assert list(results) == [1, 3, 5, 7, 9]
    failures = results.failures()
    assert [(one.index, str(one.error), one.attempts) for one in failures] == [
        (i, f"{i} is even", 1) for i in range(0, 10, 2)
    ]
    stats = results.stats()
    assert (stats.calls, stats.running, stats.finished) == (10, 0, 10)
    assert (stats.failed, stats.delivered) == (5, 10)
    assert 0 < stats.longest_s <= stats.busy_s
    assert stats.elapsed_s > 0
    assert stats.peak_bytes > 1 << 20
    assert results.stats().elapsed_s == stats.elapsed_s  # it has ended


def test_id_and_repr() -> None:
    results, other = square.map([1]), square.map([1])
    assert len(results.id) == 16
    assert results.id != other.id
    assert square.name in repr(results)
    assert results.id in repr(results)
    assert list(results) == list(other) == [1]
    assert "1/1 finished, 0 failed" in repr(results)


def test_logs_of_each_call() -> None:
    @tendril.function
    def work(i: int) -> None:
        print(f"out {i}")
        os.write(2, f"err {i}\n".encode())

    results = work.map(range(30))
    list(results)
    for i in range(30):
        assert results.logs(i, "stdout") == f"out {i}\n"
        assert results.logs(i, "stderr") == f"err {i}\n"
        assert sorted(results.logs(i).splitlines()) == [f"err {i}", f"out {i}"]
    with pytest.raises(IndexError, match="30"):
        results.logs(30)
    with pytest.raises(IndexError):
        results.logs(-1)
    with pytest.raises(ValueError, match="stream"):
        results.logs(0, "stdin")  # type: ignore[arg-type]


# -- retries and timeouts -------------------------------------------------------------------------


@tendril.function(retries=3)
def fails_first(folder: str, i: int, times: int) -> int:
    """Fails that many times for each i; counts its attempts in a file."""
    with open(os.path.join(folder, str(i)), "a+") as file:
        file.write("x")
        file.seek(0)
        if len(file.read()) <= times:
            raise OSError(f"attempt for {i}")
    return i


def attempts(folder: Path, i: int) -> int:
    return len((folder / str(i)).read_text())


def test_retries_run_a_failed_call_again(tmp_path: Path) -> None:
    folders = itertools.repeat(str(tmp_path))
    results = fails_first.map(folders, range(4), [0, 1, 3, 4], errors="return")
    assert [str(one) for one in results] == ["0", "1", "2", "attempt for 3"]
    assert [attempts(tmp_path, i) for i in range(4)] == [1, 2, 4, 4]
    assert [(one.index, one.attempts) for one in results.failures()] == [(3, 4)]
    assert results.stats().failed == 1


def test_retries_of_one_map_instead_of_the_functions(tmp_path: Path) -> None:
    folders = itertools.repeat(str(tmp_path))
    results = fails_first.map(folders, [1], [9], errors="skip", retries=1)
    assert list(results) == []
    assert attempts(tmp_path, 1) == 2
    assert results.failures()[0].attempts == 2
    assert list(fails_first.map(folders, [2], [9], errors="skip", retries=0)) == []
    assert attempts(tmp_path, 2) == 1


def test_retries_of_a_single_call_and_of_a_crash(tmp_path: Path) -> None:
    assert fails_first(str(tmp_path), 1, 1) == 1
    assert fails_first.submit(str(tmp_path), 2, 1).result() == 2

    @tendril.function(retries=1)
    def dies_once(path: str) -> str:
        if not os.path.exists(path):
            open(path, "x").close()
            os.abort()
        return "alive"

    assert dies_once(str(tmp_path / "died")) == "alive"


def test_timeout_stops_the_call_and_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pids"

    @tendril.function(timeout=0.5)
    def hang(i: int) -> int:
        import subprocess

        if i == 1:
            child = subprocess.Popen(["sleep", "600"])
            note.write_text(f"{os.getpid()} {child.pid}")
            time.sleep(600)
        return i

    results = hang.map(range(4), errors="return")
    got = list(results)
    assert [one for one in got if isinstance(one, int)] == [0, 2, 3]
    assert isinstance(got[1], tendril.TimedOut)
    assert isinstance(got[1], TimeoutError)
    assert got[1].duration_s >= 0.4
    for pid in map(int, note.read_text().split()):
        havoc.wait_until(lambda pid=pid: not havoc.alive(pid), "it was stopped")


def test_timeout_of_a_map_instead_of_the_functions() -> None:
    @tendril.function(timeout=0.01)
    def nap(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    assert list(nap.map([0.05], timeout="30s")) == [0.05]
    with pytest.raises(tendril.TimedOut):
        next(nap.map([60]))


def test_timeout_is_for_one_attempt(tmp_path: Path) -> None:
    @tendril.function(timeout=0.5, retries=1)
    def slow_once(path: str) -> str:
        if not os.path.exists(path):
            open(path, "x").close()
            time.sleep(600)
        return "in time"

    assert slow_once(str(tmp_path / "slow")) == "in time"


# -- lazy input -----------------------------------------------------------------------------------


def test_endless_input_is_drawn_a_bounded_way_ahead() -> None:
    drawn = 0

    def inputs() -> Iterator[int]:
        nonlocal drawn
        while True:
            yield drawn
            drawn += 1

    @tendril.function
    def work(x: int) -> int:  # too long to be packed by more than five
        time.sleep(0.01)
        return x

    results = work.map(inputs())
    for i in range(50):
        assert next(results) == i
        assert drawn <= i + AHEAD + 16  # and the batch that is being filled
    results.cancel()


def test_endless_input_takes_constant_memory(run_script: RunScript) -> None:
    """Neither inputs nor results of those that were read may pile up."""
    ended = run_script("""
        import itertools, resource
        import tendril

        @tendril.function
        def work(block, i):
            return bytes(4096)

        def rss():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()

        inputs = (bytes(4096) for _ in itertools.count())
        for i, block in enumerate(work.map(inputs, itertools.count())):
            assert len(block) == 4096
            if i == 3_000:
                before = rss()
            if i == 12_000:
                break
        print((rss() - before) >> 20)
    """)
    assert int(ended.out) < 30  # MiB, of 70 that passed


def test_large_inputs_are_drawn_less_far_ahead() -> None:
    """Bounded by bytes too: 1,024 of 16 MiB would not fit."""
    drawn = 0

    def inputs() -> Iterator[bytes]:
        nonlocal drawn
        for _ in range(24):
            drawn += 1
            yield bytes(16 << 20)

    gone = tendril.function(lambda block: len(block)).map(inputs())
    most = 0
    for i, size in enumerate(gone):
        assert size == 16 << 20
        most = max(most, drawn - i)
    assert drawn == 24
    assert most <= 20  # 256 MiB and a little


def test_slow_input_does_not_hold_results_back() -> None:
    go, inputs = queue_iterator(3)
    results = square.map(inputs)
    for i in range(3):
        go(1)
        assert next(results) == i * i  # before the next input exists
    assert list(results) == []


def test_input_that_raises_gives_first_what_came_before() -> None:
    def inputs() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("no more input")

    results = square.map(inputs())
    assert next(results) == 1
    assert next(results) == 4
    with pytest.raises(LookupError, match="no more input") as caught:
        next(results)
    assert "inputs" in [entry.name for entry in caught.traceback]
    with pytest.raises(StopIteration):
        next(results)


def test_input_that_raises_at_once() -> None:
    def inputs() -> Iterator[int]:
        raise LookupError("none")
        yield

    with pytest.raises(LookupError):
        list(square.map(inputs(), errors="skip"))

    class NoIterator:
        def __iter__(self) -> Iterator[int]:
            raise LookupError("not even an iterator")

    with pytest.raises(LookupError):
        square.map(NoIterator())


def test_input_that_raises_later_gives_what_failed_before() -> None:
    def inputs() -> Iterator[int]:
        yield 0
        yield 1
        raise LookupError("end")

    results = odd_only.map(inputs(), errors="return")
    assert isinstance(next(results), ValueError)
    assert next(results) == 1
    with pytest.raises(LookupError):
        next(results)


def test_generator_of_inputs_is_closed_when_the_map_ends() -> None:
    closed = threading.Event()

    def inputs() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    with square.map(inputs()) as results:
        assert next(results) == 0
    assert closed.wait(havoc.PATIENCE_S)


# -- ending ---------------------------------------------------------------------------------------


def test_cancel_gives_what_was_finished_then_says_so(gate: Gate) -> None:
    @tendril.function
    def work(i: int) -> int:
        if i >= 3:
            gate.wait()
        return i

    results = work.map(range(1000))
    havoc.wait_until(lambda: results.stats().finished == 3, "three have finished")
    havoc.wait_until(running(results), "others run")
    assert not results.cancelled
    results.cancel()
    assert results.cancelled
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(tendril.Cancelled, match="work"):
            next(results)
    results.cancel()  # again: nothing to do
    havoc.wait_until(lambda: not running(results)(), "nothing runs any more")
    assert len(results) == 1000
    assert results.failures() == []


def test_calls_stopped_by_cancel_are_no_failures(gate: Gate) -> None:
    """Whether their ends are known when the map is read, or not yet."""

    @tendril.function
    def work(i: int) -> int:
        if i >= 3:
            gate.wait()
        return i

    results = work.map(range(1000))
    havoc.wait_until(lambda: results.stats().finished == 3, "three have finished")
    havoc.wait_until(running(results), "others run")
    results.cancel()
    havoc.wait_until(lambda: not running(results)(), "they are stopped")
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(tendril.Cancelled, match="work was cancelled"):
            next(results)
    assert results.failures() == []


def test_cancel_kills_what_runs(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    @tendril.function
    def hang() -> None:
        (tmp_path / "new").write_text(str(os.getpid()))
        os.rename(tmp_path / "new", note)
        time.sleep(600)

    results = tendril.function(lambda _: hang.local()).map([0])
    havoc.wait_until(note.exists, "it runs")
    results.cancel()
    pid = int(note.read_text())
    havoc.wait_until(lambda: not havoc.alive(pid), "it was killed")


def test_cancel_from_another_thread_wakes_the_reader(gate: Gate) -> None:
    results = wait_at.map([gate])
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(next, results)
        havoc.wait_until(running(results), "it runs")
        results.cancel()
        with pytest.raises(tendril.Cancelled):
            reading.result(havoc.PATIENCE_S)


def test_with_statement_cancels(gate: Gate) -> None:
    with wait_at.map([gate] * 10) as results:
        havoc.wait_until(running(results), "it runs")
    assert results.cancelled
    with pytest.raises(tendril.Cancelled):
        next(results)
    with square.map(range(3)) as done:
        assert list(done) == [0, 1, 4]
    with pytest.raises(LookupError), square.map(range(3)):
        raise LookupError


def test_dropping_an_unread_map_warns_and_cancels(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    @tendril.function
    def hang(_: int) -> None:
        (tmp_path / "new").write_text(str(os.getpid()))
        os.rename(tmp_path / "new", note)
        time.sleep(600)

    results = hang.map([1])
    havoc.wait_until(note.exists, "it runs")
    with pytest.warns(RuntimeWarning, match="map of hang was dropped before any result was read"):
        del results
        gc.collect()
    pid = int(note.read_text())
    havoc.wait_until(lambda: not havoc.alive(pid), "its call was stopped")


def test_dropping_a_read_or_empty_map_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in square.map(itertools.count()):
            break
        list(square.map(range(3)))
        square.map([])
        with square.map(range(3)):
            pass
        square.map(range(3)).cancel()
        gc.collect()


# -- maps within and beside each other ------------------------------------------------------------


def tree(depth: int) -> int:
    """One more than all below: each level maps over two of the next."""
    if depth == 0:
        return 1
    return 1 + sum(tendril.function(tree, name="tree").map([depth - 1] * 2))


def test_nested_maps_do_not_deadlock() -> None:
    """Depth 3 with 2 cores: every runner but the last waits for another."""
    assert list(tendril.function(tree).map([3, 3, 2])) == [15, 15, 7]


def test_nested_calls_and_futures() -> None:
    @tendril.function
    def outer(n: int) -> list[int]:
        futures = [square.submit(i) for i in range(n)]
        return [square(n), *(future.result() for future in futures)]

    assert list(outer.map([2, 3])) == [[4, 0, 1], [9, 0, 1, 4]]


def test_nested_errors_and_output_reach_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    @tendril.function
    def inner(i: int) -> int:
        print(f"inner {i}")
        if i == 2:
            raise ValueError("too deep")
        return i

    @tendril.function
    def outer(n: int) -> list[int]:
        print(f"outer {n}")
        return list(inner.map(range(n)))

    assert outer(2) == [0, 1]
    first, *rest = capsys.readouterr().out.splitlines()
    assert (first, sorted(rest)) == ("outer 2", ["inner 0", "inner 1"])
    with pytest.raises(ValueError, match="too deep") as caught:
        outer(3)
    assert "in inner" in str(caught.value.__cause__)
    assert "in outer" in str(caught.value.__cause__)


def test_nested_map_is_cancelled_with_its_call(tmp_path: Path) -> None:
    @tendril.function
    def inner(i: int) -> None:
        (tmp_path / f"{i}.new").write_text(str(os.getpid()))
        os.rename(tmp_path / f"{i}.new", tmp_path / f"{i}")
        time.sleep(600)

    results = tendril.function(lambda n: list(inner.map(range(n)))).map([2])
    havoc.wait_until(lambda: all((tmp_path / str(i)).exists() for i in range(2)), "both run")
    results.cancel()
    for i in range(2):
        pid = int((tmp_path / str(i)).read_text())
        havoc.wait_until(lambda pid=pid: not havoc.alive(pid), "it ends")


def test_nested_map_ends_with_the_timeout_of_its_call(tmp_path: Path) -> None:
    @tendril.function
    def inner(path: str) -> None:
        with open(path + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(path + ".new", path)
        time.sleep(600)

    note = str(tmp_path / "pid")
    outer = tendril.function(lambda: list(inner.map([note])), timeout=0.7)
    with pytest.raises(tendril.TimedOut):
        outer()
    if os.path.exists(note):  # else it had not even begun
        pid = int(Path(note).read_text())
        havoc.wait_until(lambda: not havoc.alive(pid), "it ends")


def test_several_maps_from_several_threads() -> None:
    def one(k: int) -> list[int]:
        kinds: list[Iterable[int]] = [range(200), iter(range(200))]
        ordered = k % 3 != 0
        add = tendril.function(lambda x: x + k)
        got = list(add.map(kinds[k % 2], ordered=ordered))
        return got if ordered else sorted(got)

    with ThreadPoolExecutor(8) as threads:
        for k, got in enumerate(threads.map(one, range(16))):
            assert got == [i + k for i in range(200)]


def test_several_threads_read_one_map() -> None:
    """Each result goes to exactly one of them."""
    results = square.map(range(2000))
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(list, [results] * 4))
    assert sorted(itertools.chain(*parts)) == [i * i for i in range(2000)]


def test_maps_are_drawn_from_fairly(gate: Gate) -> None:
    """A small map that comes later does not wait for the end of a long one."""
    long = tendril.function(lambda i: time.sleep(0.001)).map(itertools.count())
    next(long)
    assert list(square.map([1, 2, 3])) == [1, 4, 9]
    assert next(long) is None
    long.cancel()


# -- large values and many calls ------------------------------------------------------------------


def test_a_hundred_megabytes_in_and_out() -> None:
    size = 100 << 20

    @tendril.function
    def mirror(block: bytes) -> tuple[int, bytes]:
        return len(block), block[::-1]

    block = bytes(range(256)) * (size // 256)
    length, back = mirror(block)
    assert length == size
    assert back == block[::-1]


def test_large_values_in_a_map() -> None:
    blocks = [bytes([i]) * (8 << 20) for i in range(6)]
    assert list(tendril.function(lambda block: block).map(blocks)) == blocks


@pytest.fixture
def more_than_a_message() -> bytes:
    free = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) << 10
    if free < 6 << 30:
        pytest.skip("needs 6 GiB of memory")
    return bytes((1 << 30) + 1)


def test_argument_larger_than_a_message(more_than_a_message: bytes) -> None:
    measure = tendril.function(len)
    inputs = iter([b"1", more_than_a_message, b"333"])
    assert list(measure.map(inputs)) == [1, len(more_than_a_message), 3]


def test_argument_beyond_the_limit_is_refused(
    more_than_a_message: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without shared memory 1 GiB is the most: more is that call's error and nobody else's."""

    def none_to_be_had(*args: object) -> None:
        raise _tendril.Error("TD_ESYS", "shared memory: none")

    monkeypatch.setattr(_pickling, "_block", none_to_be_had)
    measure = tendril.function(len)
    inputs = iter([b"1", more_than_a_message, b"333"])
    one, refused, three = measure.map(inputs, errors="return")
    assert (one, three) == (1, 3)
    assert isinstance(refused, tendril.TendrilError)
    assert "the arguments have 10737418" in str(refused)


def test_maps_leave_nothing_behind_in_this_process() -> None:
    """Neither descriptors nor threads, however they end; a few runners more or less may wait."""

    def held() -> int:
        return len(os.listdir("/proc/self/fd")) + threading.active_count()

    def some() -> None:
        list(square.map(range(3)))
        next(square.map(itertools.count()))
        square.map(range(10)).cancel()
        with square.map(iter(range(10))):
            pass
        square.submit(2).result()

    some()
    before = held()
    for _ in range(50):
        some()
    havoc.wait_until(lambda: held() < before + 20, f"{held()} goes back to about {before}")


def test_more_functions_than_a_runner_keeps() -> None:
    functions = [tendril.function(lambda x, k=k: (k, x)) for k in range(40)]
    for x in range(3):
        assert [f(x) for f in functions] == [(k, x) for k in range(40)]
    maps = [f.map(range(5)) for f in functions]
    for k, results in enumerate(maps):
        assert list(results) == [(k, x) for x in range(5)]


def test_many_small_calls() -> None:
    assert sum(square.map(range(20_000))) == sum(i * i for i in range(20_000))


def test_ten_thousand_failing_calls() -> None:
    results = odd_only.map(range(0, 20_000, 2), errors="return")
    for i, error in enumerate(results):
        assert isinstance(error, ValueError)
        assert str(error) == f"{2 * i} is even"
    assert i == 9_999
    assert results.stats().failed == 10_000
    assert len(results.failures()) == 10_000
