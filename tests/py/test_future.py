"""Futures: what concurrent.futures and asyncio do with those of other executors works with ours."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import threading
import time
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from pathlib import Path
from typing import Any

import havoc
import pytest
import tendril
from conftest import Gate, RunScript


@tendril.function
def square(x: int) -> int:
    return x * x


@tendril.function
def wait_at(gate: Gate, value: Any = None) -> Any:
    gate.wait()
    return value


@tendril.function
def fail(text: str) -> None:
    raise LookupError(text)


@tendril.function
def hang(note: str) -> None:
    """Leaves its pid in a file, then never ends."""
    with open(note + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(note + ".new", note)
    time.sleep(600)


def result(future: Any) -> Any:
    return future.result(havoc.PATIENCE_S)


def test_submit_gives_a_real_future() -> None:
    future = square.submit(7)
    assert isinstance(future, concurrent.futures.Future)
    assert result(future) == 49
    assert result(future) == 49
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.exception() is None
    assert result(tendril.function(pow).submit(2, exp=3)) == 8


def test_exception_of_a_call() -> None:
    future = fail.submit("why")
    error = future.exception(havoc.PATIENCE_S)
    assert isinstance(error, LookupError)
    assert isinstance(error.__cause__, tendril.RemoteTraceback)
    with pytest.raises(LookupError, match="why"):
        future.result()


def test_argument_that_cannot_be_sent_is_raised_by_submit() -> None:
    with pytest.raises(tendril.PicklingError, match="argument 0"):
        square.submit(threading.Lock())


def test_result_times_out_and_the_call_goes_on(gate: Gate) -> None:
    future = wait_at.submit(gate, "late")
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(0)
    gate.open()
    assert result(future) == "late"


def test_as_completed(gate: Gate) -> None:
    last = wait_at.submit(gate, "last")
    futures = [last, *(square.submit(i) for i in range(10))]
    done = []
    for future in concurrent.futures.as_completed(futures, havoc.PATIENCE_S):
        done.append(future.result())
        if len(done) == 10:
            gate.open()
    assert sorted(done[:10]) == [i * i for i in range(10)]
    assert done[10:] == ["last"]


def test_wait(gate: Gate) -> None:
    waiting = wait_at.submit(gate)
    quick = square.submit(1)
    done, rest = concurrent.futures.wait([waiting, quick], havoc.PATIENCE_S, FIRST_COMPLETED)
    assert (done, rest) == ({quick}, {waiting})
    failing = fail.submit("x")
    done, rest = concurrent.futures.wait([waiting, failing], havoc.PATIENCE_S, FIRST_EXCEPTION)
    assert (done, rest) == ({failing}, {waiting})
    gate.open()
    done, rest = concurrent.futures.wait([waiting], havoc.PATIENCE_S, ALL_COMPLETED)
    assert (done, rest) == ({waiting}, set())


def test_beside_futures_of_threads() -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        futures = [square.submit(3), threads.submit(pow, 3, 3)]
        results = {one.result() for one in concurrent.futures.as_completed(futures)}
        assert results == {9, 27}


def test_running_tells_whether_a_runner_has_it(gate: Gate) -> None:
    futures = [wait_at.submit(gate) for _ in range(5)]  # of 2 cores
    havoc.wait_until(lambda: sum(one.running() for one in futures) == 2, "two run")
    assert not any(one.done() for one in futures)
    gate.open()
    for one in futures:
        assert result(one) is None
        assert not one.running()


def test_cancel_of_a_waiting_call(gate: Gate, tmp_path: Path) -> None:
    blocking = [wait_at.submit(gate, i) for i in range(2)]
    havoc.wait_until(lambda: all(one.running() for one in blocking), "all cores are taken")
    note = tmp_path / "note"
    waiting = tendril.function(lambda: note.touch()).submit()
    assert waiting.cancel()
    assert waiting.cancelled() and waiting.done()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.exception()
    gate.open()
    assert [result(one) for one in blocking] == [0, 1]
    assert square(3) == 9  # whatever was queued before it has had its turn
    assert not note.exists()


def test_cancel_of_a_running_call_stops_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    future = hang.submit(str(note))
    havoc.wait_until(note.exists, "it runs")
    havoc.wait_until(future.running, "the caller knows that")
    assert future.cancel()
    assert future.cancel()  # again: as with other futures
    assert future.cancelled()
    assert not future.running()
    pid = int(note.read_text())
    havoc.wait_until(lambda: not havoc.alive(pid), "it was stopped")


def test_cancel_of_a_finished_call_is_refused() -> None:
    future = square.submit(2)
    assert result(future) == 4
    assert not future.cancel()
    assert not future.cancelled()
    assert future.result() == 4


def test_cancel_wakes_those_who_wait(gate: Gate) -> None:
    futures = [wait_at.submit(gate) for _ in range(3)]
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        one = threads.submit(futures[0].exception)
        all_of_them = threads.submit(concurrent.futures.wait, futures)
        for future in futures:
            future.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            one.result(havoc.PATIENCE_S)
        assert all_of_them.result(havoc.PATIENCE_S).done == set(futures)
    assert set(concurrent.futures.as_completed(futures, 0)) == set(futures)


def test_cancel_races_with_the_end() -> None:
    """Whatever wins, the future has exactly one outcome and nobody waits for ever."""
    futures = [square.submit(i) for i in range(300)]
    cancelled = [future.cancel() for future in reversed(futures)][::-1]
    for i, future in enumerate(futures):
        if cancelled[i]:
            assert future.cancelled()
        else:
            assert result(future) == i * i


def test_done_callbacks(gate: Gate) -> None:
    seen: list[Any] = []
    told = threading.Semaphore(0)

    def note(future: Any) -> None:
        seen.append(future)
        told.release()

    futures = [wait_at.submit(gate, 1), wait_at.submit(gate, 2)]
    for future in futures:
        future.add_done_callback(note)
        future.add_done_callback(note)
    assert seen == []
    gate.open()
    for _ in range(4):
        assert told.acquire(timeout=havoc.PATIENCE_S)
    assert sorted(map(id, seen)) == sorted([id(one) for one in futures] * 2)
    futures[0].add_done_callback(note)  # done already: called at once
    assert len(seen) == 5
    dropped = wait_at.submit(gate)
    dropped.add_done_callback(note)
    dropped.cancel()
    assert told.acquire(timeout=havoc.PATIENCE_S)


def test_done_callback_that_fails_or_calls_spoils_nothing() -> None:
    called = threading.Event()
    values: list[int] = []

    def breaks(_: Any) -> None:
        raise LookupError("in a callback")

    def calls(future: Any) -> None:
        values.append(square(future.result()))
        called.set()

    future = square.submit(3)
    future.add_done_callback(breaks)
    future.add_done_callback(calls)
    assert called.wait(havoc.PATIENCE_S)
    assert values == [81]
    assert result(square.submit(2)) == 4


def test_future_that_nobody_keeps_runs_and_tells() -> None:
    told = threading.Event()
    square.submit(1).add_done_callback(lambda _: told.set())
    gc.collect()
    assert told.wait(havoc.PATIENCE_S)


def test_logs_of_a_future() -> None:
    future = tendril.function(lambda: print("one\ntwo")).submit()
    assert result(future) is None
    assert future.logs() == "one\ntwo\n"


# -- asyncio --------------------------------------------------------------------------------------


def test_wrap_future() -> None:
    async def main() -> list[Any]:
        futures = [asyncio.wrap_future(square.submit(i)) for i in range(10)]
        results = await asyncio.gather(*futures)
        with pytest.raises(LookupError, match="remote"):
            await asyncio.wrap_future(fail.submit("remote"))
        return results

    assert asyncio.run(asyncio.wait_for(main(), havoc.PATIENCE_S)) == [i * i for i in range(10)]


def test_wrap_future_of_stop_iteration() -> None:
    """asyncio refuses to carry a StopIteration: it must come as something else."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wrap_future(tendril.function(lambda: next(iter([]))).submit())

    asyncio.run(asyncio.wait_for(main(), havoc.PATIENCE_S))


def test_cancelling_a_task_stops_the_call(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    async def main() -> None:
        future = hang.submit(str(note))
        task = asyncio.ensure_future(asyncio.wrap_future(future))
        await asyncio.get_running_loop().run_in_executor(
            None, havoc.wait_until, note.exists, "it runs"
        )
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)  # asyncio hands the cancellation on in its next round
        assert future.cancelled()

    asyncio.run(main())
    pid = int(note.read_text())
    havoc.wait_until(lambda: not havoc.alive(pid), "it was stopped")


# -- endings --------------------------------------------------------------------------------------


def test_closing_the_session_ends_futures(gate: Gate) -> None:
    """Whoever waits for a future must hear that it will never come."""
    future = wait_at.submit(gate)
    told = threading.Event()
    future.add_done_callback(lambda _: told.set())
    wait_at.cluster.shutdown()
    assert told.wait(havoc.PATIENCE_S)
    with pytest.raises(tendril.ClosedError, match="wait_at"):
        result(future)
    assert not future.running()
    assert square(2) == 4  # another session


def test_many_futures_from_many_threads() -> None:
    def work(k: int) -> int:
        return sum(result(one) for one in [square.submit(i + k) for i in range(100)])

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        got = list(threads.map(work, range(16)))
    assert got == [sum((i + k) ** 2 for i in range(100)) for k in range(16)]


def test_program_may_end_with_futures_under_way(run_script: RunScript) -> None:
    ended = run_script("""
        import time
        import tendril
        future = tendril.function(lambda: time.sleep(600)).submit()
        done = tendril.function(lambda: 1).submit()
        print(done.result())
    """)
    assert (ended.out, ended.err) == ("1\n", "")
