"""Values of any size: what is large lies in shared memory, and is as good as any other."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tendril
from havoc import wait_until
from tendril._session import close_session

MIB = 1 << 20


@tendril.function(local=True)
def same(x):
    return x


@tendril.function(local=True)
def add_one(x):
    x += 1
    return x


@tendril.function(local=True)
def ones(count):
    return np.ones(count)


@tendril.function(local=True)
def mappings():
    return Path("/proc/self/maps").read_text().count("tendril-value")


@tendril.function(local=True)
def total(*arrays, scale=1):
    return sum(a.sum() for a in arrays) * scale


class Boxed:
    """A class of this module, which is not installed: cloudpickle sends it."""

    def __init__(self, array):
        self.array = array


def mapped() -> bool:
    """Whether this process has a value in shared memory."""
    return "tendril-value" in Path("/proc/self/maps").read_text()


def descriptors() -> int:
    """Those of values that this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the folder
            count += "tendril-value" in os.readlink(f"/proc/self/fd/{name}")
    return count


@pytest.fixture
def no_leak() -> Iterator[None]:
    """Afterwards no descriptor and no mapping of a value is left, as soon as nobody needs them."""
    yield
    gc.collect()
    wait_until(lambda: descriptors() == 0 and not mapped(), "all values are gone")


def test_array_comes_back_writable(no_leak: None) -> None:
    array = np.arange(2 * MIB, dtype=np.int64)
    result = add_one(array)
    assert result.flags.writeable
    result += 1
    assert np.array_equal(result, array + 2)
    assert array[0] == 0, "the caller's own is untouched"
    assert mapped(), "it is not a copy"


def test_read_only_stays_read_only(no_leak: None) -> None:
    array = np.zeros(MIB)
    array.flags.writeable = False
    assert not same(array).flags.writeable


def test_result_outlives_its_runner(no_leak: None) -> None:
    kept = [ones(MIB) for _ in range(3)]
    close_session()
    assert all(array.sum() == MIB for array in kept)
    view = kept[0][10:20]
    del kept
    gc.collect()
    assert view.sum() == 10


def test_no_descriptor_is_kept() -> None:
    """However many large results are held."""
    kept = list(ones.map([MIB // 8] * 40))
    assert descriptors() == 0
    assert sum(array.sum() for array in kept) == 40 * (MIB // 8)


def test_a_runner_keeps_nothing() -> None:
    for _ in range(3):
        assert total(np.ones(MIB), np.ones(2 * MIB), scale=2) == 6 * MIB
    assert mappings() == 0


@pytest.mark.parametrize("size", [0, 1, MIB - 200, MIB, MIB + 1, 9 * MIB])
def test_bytes_of_any_size(size: int) -> None:
    data = os.urandom(size)
    assert same(data) == data
    assert list(same.map([data, data])) == [data, data]


def test_frames_and_tables(no_leak: None) -> None:
    frame = pd.DataFrame({"a": np.arange(MIB), "b": np.random.rand(MIB), "c": ["text"] * MIB})
    back = same(frame)
    pd.testing.assert_frame_equal(back, frame)
    back["a"] += 1
    table = pa.table({"a": pa.array(range(MIB)), "s": pa.array(["x"] * MIB)})
    assert same(table).equals(table)


def test_not_contiguous(no_leak: None) -> None:
    array = np.arange(4 * MIB).reshape(2048, 2048)
    assert np.array_equal(same(array[::2, ::3]), array[::2, ::3])
    fortran = np.asfortranarray(array)
    back = same(fortran)
    assert np.array_equal(back, array) and back.flags.f_contiguous


def test_by_cloudpickle(no_leak: None) -> None:
    back = same(Boxed(np.ones(MIB)))
    assert type(back) is Boxed
    assert back.array.sum() == MIB


def test_inputs_of_a_map(no_leak: None) -> None:
    """Large and small ones in any order; one argument or several."""
    inputs = [np.full(MIB // 4 if i % 3 else 2, i) for i in range(20)]
    assert [int(x[0]) for x in same.map(inputs)] == list(range(20))
    sums = list(total.map(inputs, inputs))
    assert sums == [2 * x.sum() for x in inputs]


def test_in_a_nested_map(no_leak: None) -> None:
    @tendril.function(local=True)
    def outer(x):
        return sum(a.sum() for a in same.map([x, x]))

    assert outer(np.ones(MIB)) == 2 * MIB


def test_attempts_start_from_the_same(tmp_path: Path) -> None:
    """What a failed attempt has changed in its input is not seen by the next."""

    @tendril.function(local=True, retries=1)
    def second_time_lucky(x):
        x += 1
        if not (tmp_path / "been").exists():
            (tmp_path / "been").touch()
            raise ValueError
        return x[0]

    assert second_time_lucky(np.zeros(MIB)) == 1


def test_no_shared_memory_to_be_had() -> None:
    """Then it goes through the socket."""
    array = np.arange(MIB)
    same(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        assert total(array) == array.sum()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
