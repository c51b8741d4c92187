"""Calls that are packed: many quick ones, whose batches nobody must notice."""

from __future__ import annotations

import enum
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tendril

MANY = 3000  # calls that are quick enough to be packed by hundreds


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Number(int):
    pass


VALUES: list[Any] = [
    *(None, True, False, 0, 1, 255, 256, 65535, 65536, -1, -128, -129, 2**31 - 1, 2**31, -(2**31)),
    *(-(2**31) - 1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**40, 0.0, -0.0, 1.5, math.inf),
    *("", "a", "ä" * 127, "b" * 255, "b" * 256, "🙂", "\0", "x" * 70_000, "\ud800"),
    *(
        b"",
        b"\xff",
        b"c" * 255,
        b"c" * 256,
        b"c" * 70_000,
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
    ),
    *(((((((1,),),),),),), ("a", (b"b", (None, (2.5,)))), tuple(range(20_000))),
    *([1], {"a": [1]}, {1, 2}, Colour.RED, Point(1, 2), Number(3), bytearray(b"d"), range(3)),
]


def test_values_travel_as_they_are() -> None:
    @tendril.function
    def same(value: Any) -> tuple[Any, str, str]:
        return value, type(value).__name__, repr(value)[:100]

    @tendril.function
    def echo(value: Any) -> Any:
        return value

    inputs = VALUES * (MANY // len(VALUES))
    for sent, (back, kind, text) in zip(inputs, same.map(inputs), strict=True):
        assert (back, kind, text) == (sent, type(sent).__name__, repr(sent)[:100])
    for sent, back in zip(inputs, echo.map(inputs), strict=True):
        assert type(back) is type(sent) and repr(back) == repr(sent)
    assert math.isnan(list(echo.map([math.nan] * MANY))[-1])


def test_several_arguments() -> None:
    @tendril.function
    def add(a: int, b: Any, c: str = "c") -> Any:
        return (a, b, c)

    numbers = range(MANY)
    assert list(add.map(numbers, numbers)) == [(i, i, "c") for i in numbers]
    assert list(add.map(numbers, ([i] for i in numbers))) == [(i, [i], "c") for i in numbers]
    with pytest.raises(TypeError, match="missing 1 required"):
        list(add.map(numbers))


def test_calls_share_no_object() -> None:
    """As if each had travelled by itself, also when all inputs are one object."""

    @tendril.function
    def change(items: list[int]) -> int:
        items.append(1)
        return len(items)

    shared: list[int] = []
    assert list(change.map([shared] * MANY)) == [1] * MANY
    assert shared == []


def explode(*args: Any) -> Any:
    raise OSError("cannot be read")


class Unreadable:
    def __reduce__(self) -> Any:
        return explode, ()


def explode_here() -> int:
    return explode() if os.environ.get("TENDRIL_TEST_HERE") else 0


class ReadableThere:
    def __reduce__(self) -> Any:
        return explode_here, ()


def test_input_that_cannot_be_read_there() -> None:
    @tendril.function
    def work(x: Any) -> Any:
        return x

    inputs = [Unreadable() if i % 500 == 7 else i for i in range(MANY)]
    results = list(work.map(inputs, errors="return"))
    for i, result in enumerate(results):
        assert isinstance(result, OSError) if i % 500 == 7 else result == i


def test_input_that_cannot_be_sent() -> None:
    @tendril.function
    def work(x: Any) -> Any:
        return x

    inputs = [threading.Lock() if i % 500 == 7 else i for i in range(MANY)]
    results = list(work.map(inputs, errors="return"))
    for i, result in enumerate(results):
        assert isinstance(result, tendril.PicklingError) if i % 500 == 7 else result == i


@pytest.mark.parametrize("errors", ["raise", "return", "skip"])
def test_result_that_cannot_be_read_here(errors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @tendril.function
    def work(i: int) -> Any:
        return ReadableThere() if i % 500 == 7 else [i]

    work(0)  # the runners' environment is that of now
    results = work.map(range(MANY), errors=errors)
    monkeypatch.setenv("TENDRIL_TEST_HERE", "1")
    good, bad = [], 0
    while True:
        try:
            result = next(results)
        except StopIteration:
            break
        except tendril.PicklingError as error:
            assert f"call {bad * 500 + 7} cannot be read here" in str(error)
            bad += 1
            continue
        if isinstance(result, tendril.PicklingError):
            bad += 1
        else:
            good.append(result[0])
    assert good == [i for i in range(MANY) if i % 500 != 7]
    assert bad == (0 if errors == "skip" else MANY // 500)
    assert [failure.index for failure in results.failures()] == list(range(7, MANY, 500))


def test_errors_among_many() -> None:
    @tendril.function
    def work(i: int) -> int:
        if i % 100 == 3:
            raise ValueError(i)
        return i

    results = list(work.map(range(MANY), errors="return"))
    for i, result in enumerate(results):
        assert (result.args == (i,)) if i % 100 == 3 else (result == i)
    assert list(work.map(range(MANY), errors="skip")) == [i for i in range(MANY) if i % 100 != 3]


def test_each_call_is_retried_by_itself(tmp_path: Path) -> None:
    @tendril.function(retries=2)
    def work(i: int) -> int:
        if i % 600 == 599:
            with open(tmp_path / str(i), "a") as file:
                file.write("x")
            if os.stat(tmp_path / str(i)).st_size < 3:
                raise ValueError(i)
        return i

    assert list(work.map(range(MANY))) == list(range(MANY))
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(599, MANY, 600))


def test_crash_among_many(tmp_path: Path) -> None:
    """It takes no other call along, and what had finished is not run again."""

    @tendril.function
    def work(i: int) -> int:
        if i % 1000 == 999:
            os.kill(os.getpid(), 9)
        fd = os.open(tmp_path / "ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"%d\n" % i)
        os.close(fd)
        return i

    results = list(work.map(range(MANY), errors="return"))
    for i, result in enumerate(results):
        if i % 1000 == 999:
            assert isinstance(result, tendril.RunnerCrashed) and result.signal == "SIGKILL"
        else:
            assert result == i
    ran = sorted(int(line) for line in (tmp_path / "ran").read_text().split())
    assert ran == [i for i in range(MANY) if i % 1000 != 999]


def test_exit_among_many() -> None:
    @tendril.function
    def work(i: int) -> int:
        if i == 1500:
            raise SystemExit(3)
        return i

    results = list(work.map(range(MANY), errors="return"))
    assert isinstance(results[1500], tendril.RunnerCrashed) and results[1500].exit_code == 3
    assert results[:1500] + results[1501:] == [i for i in range(MANY) if i != 1500]


def test_long_call_holds_nothing_back(tmp_path: Path) -> None:
    """Neither the results before it, nor the calls behind it."""
    gate = tmp_path / "gate"

    @tendril.function
    def work(i: int) -> int:
        while i == 1500 and not gate.exists():
            time.sleep(0.01)
        return i

    results = work.map(range(MANY))
    for i in range(1500):
        assert next(results) == i
    deadline = time.monotonic() + 20
    while results.stats().finished < MANY - 1:
        assert time.monotonic() < deadline, results
        time.sleep(0.01)
    gate.touch()
    assert list(results) == list(range(1500, MANY))


def test_timeout_of_one_among_many() -> None:
    @tendril.function(timeout=0.5)
    def work(i: int) -> int:
        while i == 1500:
            time.sleep(0.01)
        return i

    results = list(work.map(range(MANY), errors="return"))
    assert isinstance(results[1500], tendril.TimedOut)
    assert results[1500].duration_s > 0.4
    assert results[:1500] + results[1501:] == [i for i in range(MANY) if i != 1500]


def test_nested_map_among_many() -> None:
    @tendril.function
    def inner(i: int) -> int:
        return i + 1

    @tendril.function
    def outer(i: int) -> int:
        return sum(inner.map(range(3))) if i % 1000 == 500 else i

    results = list(outer.map(range(MANY)))
    assert results == [6 if i % 1000 == 500 else i for i in range(MANY)]


def test_generators_and_coroutines_among_many() -> None:
    @tendril.function
    def count(n: int) -> Iterator[int]:
        yield from range(n % 3)

    @tendril.function
    async def wait(n: int) -> int:
        return n

    assert list(count.map(range(MANY))) == [list(range(i % 3)) for i in range(MANY)]
    assert list(wait.map(range(300))) == list(range(300))


def test_output_of_each_call_among_many() -> None:
    @tendril.function
    def work(i: int) -> int:
        if i % 10 == 0:
            print(f"line {i}")
            print("no end", end="")
        return i

    results = work.map(range(MANY))
    assert list(results) == list(range(MANY))
    for i in range(0, MANY, 50):
        assert results.logs(i) == (f"line {i}\nno end" if i % 10 == 0 else "")


def test_raw_output_among_many() -> None:
    """Told apart from the moment on that the first was seen; before, a range of calls is named."""

    @tendril.function
    def work(i: int) -> int:
        if i >= 1000 and i % 10 == 0:
            os.write(1, b"raw %d\n" % i)
        return i

    results = work.map(range(MANY))
    assert list(results) == list(range(MANY))
    late = results.logs(MANY - 10)
    assert late == f"raw {MANY - 10}\n" or late.startswith("[calls ")
    text = "".join({results.logs(i) for i in range(1000, MANY, 10)})
    for i in range(1000, MANY, 10):
        assert f"raw {i}\n" in text


def test_large_results_among_small_ones() -> None:
    @tendril.function
    def work(i: int) -> bytes:
        return b"x" * (200_000 if i % 300 == 0 else 1000)

    sizes = [len(result) for result in work.map(range(MANY))]
    assert sizes == [200_000 if i % 300 == 0 else 1000 for i in range(MANY)]


def test_input_iterator_that_waits_for_results() -> None:
    """No input may be held back for a fuller batch while its iterator waits."""

    @tendril.function
    def work(i: int) -> int:
        return i

    seen: list[int] = []

    def inputs() -> Iterator[int]:
        for i in range(300):
            yield i
            deadline = time.monotonic() + 20
            while len(seen) <= i:  # the reader has its result
                assert time.monotonic() < deadline
                time.sleep(0.0005)

    for result in work.map(inputs()):
        seen.append(result)
    assert seen == list(range(300))


def test_feeding_that_fails_is_told() -> None:
    """Inputs that can be taken in no more are never left out without a word."""
    from tendril import _feed, _tendril

    class Core:
        ended = 0

        def feed(self, inputs: Iterator[int], dumps: Any) -> None:
            raise _tendril.Error(self.status, "in words")

        def end(self) -> None:
            self.ended += 1

    for status, error in (("TD_ESYS", tendril.TendrilError), ("TD_ECANCELLED", type(None))):
        core = Core()
        core.status = status
        feeder = _feed.Feeder(core, iter([1]), spread=False)
        feeder.thread.start()
        feeder.thread.join()
        assert isinstance(feeder.error, error) and core.ended == 1


def test_input_iterator_that_fails() -> None:
    """What it gave before is run and delivered."""

    @tendril.function
    def work(i: int) -> int:
        return i

    def inputs() -> Iterator[int]:
        yield from range(MANY)
        raise KeyError("no more")

    results, seen = work.map(inputs()), []
    with pytest.raises(KeyError, match="no more"):
        for result in results:
            seen.append(result)
    assert seen == list(range(MANY))
