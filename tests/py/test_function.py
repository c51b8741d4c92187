"""A decorated function: what can be decorated, how it travels, and what it can be asked for."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import functools
import importlib
import itertools
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import havoc
import pytest
import tendril
from conftest import RunScript

OFFSET = 100


@tendril.function
def double(x: float) -> float:
    """Twice as much."""
    return 2 * x


@tendril.function()
def shift(x: int, *more: int, by: int = OFFSET, **named: int) -> tuple[Any, ...]:
    return x + by, more, named


# -- calling --------------------------------------------------------------------------------------


def test_call_returns_the_result_of_another_process() -> None:
    @tendril.function
    def pid() -> int:
        return os.getpid()

    assert double(21) == 42
    assert pid() not in (os.getpid(), 0)


def test_call_takes_arguments_of_every_kind() -> None:
    assert shift(1) == (101, (), {})
    assert shift(1, 2, 3, by=4, other=5) == (5, (2, 3), {"other": 5})
    assert shift(x=7) == (107, (), {})


def test_call_with_wrong_arguments_is_the_functions_own_type_error() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        double()
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        double(1, 2)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**200),
        float("inf"),
        "snow ☃ \U0001f600 \0 \udc80",
        b"\0\xff" * 1000,
        [1, (2, {3: frozenset({4})})],
        {"a": {"b": {"c": []}}},
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        range(10),
        ...,
        int,
        len,
        os.path.join,
    ],
    ids=repr,
)
def test_values_come_back_equal(value: Any) -> None:
    assert tendril.function(lambda x: x)(value) == value


def test_arrays() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000, dtype="float32").reshape(100, -1)
    mirror = tendril.function(lambda *values: values)
    back, column = mirror(array, array[:, 3])
    assert numpy.array_equal(back, array)
    assert numpy.array_equal(column, array[:, 3])
    back[0, 0] = 1  # a result is the caller's own, to be changed at will


def test_identity_inside_one_value_is_kept() -> None:
    part = [1]
    one, other, cycle = tendril.function(lambda x: x)((part, part, _cycle()))
    assert one is other
    assert cycle[0] is cycle


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def test_same_runner_serves_again() -> None:
    """A second call pays no start: it finds the warm runner."""
    pids = {tendril.function(os.getpid)() for _ in range(20)}
    assert len(pids) <= 2  # TENDRIL_CORES


def test_decorated_function_keeps_its_name_and_documentation() -> None:
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")
    assert double.__wrapped__ is double.local
    assert repr(double) == "<tendril.Function double>"
    assert tendril.function(lambda x: x, name="pretty").name == "pretty"


def test_local_is_the_plain_function() -> None:
    seen = []

    @tendril.function
    def note(x: int) -> int:
        seen.append(x)
        return os.getpid()

    assert note.local(1) == os.getpid()
    assert note(2) != os.getpid()
    assert seen == [1]


def test_calls_from_a_running_event_loop() -> None:
    async def main() -> float:
        return double(4)

    assert asyncio.run(main()) == 8


# -- what can be decorated ------------------------------------------------------------------------


class Scale:
    """Its methods run elsewhere, with a copy of the instance."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @tendril.function
    def times(self, x: int, *, plus: int = 0) -> int:
        return self.factor * x + plus

    @staticmethod
    @tendril.function
    def half(x: int) -> float:
        return x / 2

    @tendril.function
    def grow(self) -> int:
        self.factor += 1
        return self.factor

    def __call__(self, x: int) -> int:
        return self.factor * x

    def plain(self, x: int) -> int:
        return self.factor * x


def test_methods() -> None:
    scale = Scale(3)
    assert scale.times(5) == 15
    assert scale.times(5, plus=1) == 16
    assert Scale.times(scale, 5) == 15
    assert list(scale.times.map([1, 2], errors="raise")) == [3, 6]
    assert scale.times.submit(7).result() == 21
    assert scale.times.local(2) == 6
    assert scale.times.name == "times"
    assert Scale.half(3) == scale.half(3) == 1.5
    assert list(scale.half.map([1, 2])) == [0.5, 1.0]


def test_method_works_on_a_copy_of_its_instance() -> None:
    scale = Scale(3)
    assert scale.grow() == 4
    assert scale.factor == 3


def test_callables_of_every_kind() -> None:
    assert tendril.function(len)("four") == 4
    assert tendril.function(functools.partial(pow, 2))(10) == 1024
    assert tendril.function(Scale(4))(5) == 20
    assert tendril.function(Scale(4).plain)(6) == 24
    assert tendril.function(str.upper)("up") == "UP"
    assert tendril.function("a-b".split)("-") == ["a", "b"]
    assert tendril.function(Scale)(9).factor == 9
    assert list(tendril.function(Scale(4)).map([1, 2])) == [4, 8]
    with pytest.raises(TypeError, match="decorates callables, not int"):
        tendril.function(3)


def test_lambdas_and_closures() -> None:
    base = {"n": 10}
    add = tendril.function(lambda x, y=1: base["n"] + x + y)
    assert add(1) == 12
    base["n"] = 20  # a call takes the closure as it is now
    assert add(1) == 22

    def make(k: int) -> Callable[[int], int]:
        return tendril.function(lambda x: k * x)

    assert [make(k)(5) for k in range(3)] == [0, 5, 10]


def test_globals_are_those_of_the_moment_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    read = tendril.function(lambda: OFFSET)
    assert read() == 100
    monkeypatch.setattr(sys.modules[__name__], "OFFSET", 200)
    assert read() == 200


@tendril.function
def factorial(n: int) -> int:
    return 1 if n == 0 else n * factorial.local(n - 1)


def test_whatever_a_function_refers_to_is_that_of_the_call() -> None:
    """It is pickled again when something in it has changed, wherever that is."""
    space: dict[str, Any] = {"number": 1, "items": [1], "deep": (1, (2,))}
    source = """
def helper():
    return number, default()

def default(by=10):
    return by

def work(flag):
    return helper(), list(items), deep, (lambda: number)()
"""
    exec(compile(source, "<test>", "exec"), space)
    work = tendril.function(space["work"])
    assert work(0) == ((1, 10), [1], (1, (2,)), 1)
    space["number"] = 2
    assert work(0) == ((2, 10), [1], (1, (2,)), 2)
    space["items"].append(2)
    assert work(0) == ((2, 10), [1, 2], (1, (2,)), 2)
    space["default"].__defaults__ = (20,)
    assert work(0) == ((2, 20), [1, 2], (1, (2,)), 2)
    space["deep"] = (1, (3,))
    assert work(0) == ((2, 20), [1, 2], (1, (3,)), 2)
    exec("def default(): return 'new'", space)
    assert work(0) == ((2, "new"), [1, 2], (1, (3,)), 2)


def test_what_was_made_inside_a_function_of_a_package_is_that_of_the_call() -> None:
    """It travels whole, with what it holds, though its module is installed."""

    def make(items: list[int]) -> Callable[[], list[int]]:
        def inner() -> list[int]:
            return list(items)

        inner.__module__, inner.__qualname__ = "json", "make.<locals>.inner"
        return inner

    items = [1]
    inner = make(items)
    work = tendril.function(lambda: inner())
    assert work() == [1]
    items.append(2)
    assert work() == [1, 2]


def test_unchanged_function_is_not_pickled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from tendril import _pickling

    pickled = []
    dumps = _pickling.dumps_function
    monkeypatch.setattr(_pickling, "dumps_function", lambda fn: pickled.append(fn) or dumps(fn))
    count = 0

    def steady(x: int) -> tuple[int, int]:
        return x, count

    work = tendril.function(steady)
    for i in range(3):
        assert work(i) == (i, 0)
    assert len(pickled) == 1
    count = 1
    assert work(3) == (3, 1)
    assert len(pickled) == 2
    monkeypatch.setenv("TENDRIL_TEST_NEW", "1")  # its runners need another environment
    assert work(4) == (4, 1)
    assert len(pickled) == 3


def test_function_that_names_itself() -> None:
    assert factorial(10) == 3628800


def test_wrapped_functions() -> None:
    def shout(fn: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(fn)
        def wrapper(*args: Any) -> str:
            return fn(*args) + "!"

        return wrapper

    @tendril.function
    @shout
    @functools.lru_cache
    def greet(name: str) -> str:
        return f"hello {name}"

    assert greet("you") == "hello you!"
    assert greet.__name__ == "greet"


def test_async_functions_are_run() -> None:
    @tendril.function
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @tendril.function
    async def broken() -> None:
        raise LookupError("in a coroutine")

    assert later(1) == 2
    assert list(later.map(range(3))) == [1, 2, 3]
    with pytest.raises(LookupError, match="in a coroutine"):
        broken()


def test_generator_functions_give_lists() -> None:
    @tendril.function
    def count(n: int) -> Iterator[int]:
        yield from range(n)

    @tendril.function
    async def acount(n: int) -> Any:
        for i in range(n):
            yield i

    @tendril.function
    def breaks() -> Iterator[int]:
        yield 1
        raise LookupError("half way")

    assert count(3) == [0, 1, 2]
    assert acount(3) == [0, 1, 2]
    assert list(count.map([0, 2])) == [[], [0, 1]]
    with pytest.raises(LookupError, match="half way"):
        breaks()


# -- types that are defined next to the function --------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Odd(Exception):
    pass


def test_types_of_a_local_module_are_the_same_on_return() -> None:
    move = tendril.function(lambda point, colour: (Point(point.x + 1), colour, Point))
    point, colour, kind = move(Point(1), Colour.RED)
    assert isinstance(point, Point)
    assert point == Point(2)
    assert colour is Colour.RED
    assert kind is Point


_registry: list[str] = []


class Registered:
    """Its method writes to a global of this module."""

    def note(self, text: str) -> None:
        _registry.append(text)


def test_classes_are_not_changed_by_what_comes_back() -> None:
    """A class that travels there and back must stay the caller's own, with its own globals."""
    note = Registered.note
    item = tendril.function(lambda: Registered())()
    assert isinstance(item, Registered)
    assert Registered.note is note
    item.note("here")
    assert _registry == ["here"]


def test_main_as_in_a_script(run_script: RunScript) -> None:
    """Functions, classes, enums, exceptions and globals of __main__, used in every direction."""
    run_script("""
        import dataclasses, enum, typing
        import tendril

        LIMIT = 5

        class Base:
            kind = "base"
            def who(self): return f"{self.kind} {LIMIT}"

        class Child(Base):
            kind = "child"
            def who(self): return super().who() + "!"

        @dataclasses.dataclass
        class Item:
            n: int
            inner: "Item | None" = None

        class Colour(enum.Enum):
            RED = 1

        class Pair(typing.NamedTuple):
            a: int
            b: int

        class TooMuch(ValueError):
            def __init__(self, n, limit):
                super().__init__(n, limit)
                self.n, self.limit = n, limit

        def helper(n):
            return n + LIMIT

        @tendril.function
        def work(item, colour):
            assert isinstance(item, Item) and colour is Colour.RED
            if helper(item.n) > 10:
                raise TooMuch(item.n, LIMIT)
            return Item(helper(item.n), item), colour, Child(), Pair(1, b=2)

        if __name__ == "__main__":
            item, colour, child, pair = work(Item(1), Colour.RED)
            assert isinstance(item, Item) and item == Item(6, Item(1)), item
            assert colour is Colour.RED
            assert type(child) is Child and isinstance(child, Base) and child.who() == "child 5!"
            assert type(pair) is Pair and pair.b == 2
            try:
                work(Item(9), Colour.RED)
            except TooMuch as error:
                assert (error.n, error.limit) == (9, 5)
            else:
                raise SystemExit("not raised")
            LIMIT = 1
            assert work(Item(9), Colour.RED)[0].n == 10
    """)


def test_script_without_a_main_guard(run_script: RunScript) -> None:
    """Unlike with multiprocessing, nothing imports the script again."""
    ended = run_script("""
        import tendril
        print("once")
        f = tendril.function(lambda x: x + 1)
        print(list(f.map(range(3))))
    """)
    assert ended.out == "once\n[1, 2, 3]\n"


def test_definitions_change_between_calls_as_in_a_notebook(run_script: RunScript) -> None:
    run_script("""
        import tendril
        cells = [
            "class A:\\n    def n(self): return 1\\n",
            "@tendril.function\\ndef f(a): return a.n(), A().n(), isinstance(a, A)\\n",
            "assert f(A()) == (1, 1, True), f(A())\\nold = A()",
            "class A:\\n    def n(self): return 2\\n",
            "assert f(A()) == (2, 2, True), f(A())",
            "assert f(old) == (1, 2, False), f(old)",
            "A.n = lambda self: 3",
            "assert f(A()) == (3, 3, True), f(A())",
            "@tendril.function\\ndef f(a): return 'new', A\\n",
            "assert f(1) == ('new', A), f(1)",
        ]
        for cell in cells:
            exec(compile(cell, "<cell>", "exec"), globals())
    """)


def test_main_without_a_file(run_script: RunScript) -> None:
    """python -c, and a script from standard input."""
    program = """
import tendril
class A:
    n = 1
@tendril.function
def f(a): return a.n, A()
n, a = f(A())
assert n == 1 and type(a) is A
print(list(f.map([a]))[0][0])
"""
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"1\n"
    done = subprocess.run(
        [sys.executable, "-"], input=program.encode(), capture_output=True, check=True
    )
    assert done.stdout == b"1\n"


def test_main_of_a_package(tmp_path: Path) -> None:
    """python -m package: relative imports, at the top and inside the function."""
    package = tmp_path / "tendril_t_run"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "part.py").write_text("RATE = 3\ndef scale(x): return RATE * x\n")
    (package / "__main__.py").write_text(
        "import tendril\n"
        "from . import part\n"
        "from .part import scale\n"
        "@tendril.function\n"
        "def f(x):\n"
        "    from .part import scale as inner\n"
        "    return scale(x), part.scale(x), inner(x)\n"
        "print(f(2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tendril_t_run"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("(6, 6, 6)\n", "")


def test_first_use_from_many_threads_at_once(run_script: RunScript) -> None:
    ended = run_script("""
        import threading
        import tendril

        f = tendril.function(lambda x: x * x)
        start, got = threading.Barrier(16), []

        def work(i):
            start.wait()
            got.append(f(i))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(sorted(got) == [i * i for i in range(16)], f.cluster.cores)
    """)
    assert ended.out == "True 2\n"


@pytest.fixture
def local_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], ModuleType]]:
    """Writes a module that is on sys.path here, as beside a script, and imports it anew."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # sources of one second look alike
    names = set()

    def write(name: str, source: str) -> ModuleType:
        path = folder / (name.replace(".", os.sep) + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        importlib.invalidate_caches()
        names.add(name)
        if name in sys.modules:
            return importlib.reload(sys.modules[name])
        return importlib.import_module(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_local_modules_travel_as_they_are_now(
    local_module: Callable[[str, str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By value: neither an edited file nor a folder that only the caller knows matters."""
    helper = local_module("tendril_t_helper", "def go(x): return x + 1\nclass C:\n    n = 1\n")

    @tendril.function
    def call(x: int) -> tuple[Any, ...]:
        return helper.go(x), helper.C().n, helper.C()

    plus, n, one = call(1)
    assert (plus, n) == (2, 1)
    assert isinstance(one, helper.C)
    local_module("tendril_t_helper", "def go(x): return x + 10\nclass C:\n    n = 2\n")
    plus, n, two = call(1)
    assert (plus, n) == (11, 2)
    assert isinstance(two, helper.C)
    assert not isinstance(one, helper.C)
    direct = tendril.function(helper.go)
    Path(helper.__file__ or "").unlink()
    assert direct(1) == 11


def test_local_packages_travel(local_module: Callable[[str, str], ModuleType]) -> None:
    local_module("tendril_t_package.__init__", "")
    local_module("tendril_t_package.deep", "RATE = 3\ndef scale(x): return RATE * x\n")
    api = local_module(
        "tendril_t_package.api",
        "from .deep import scale\nfrom tendril_t_package import deep\n"
        "def both(x): return scale(x), deep.scale(x)\n",
    )
    assert tendril.function(api.both)(2) == (6, 6)
    assert tendril.function(lambda x: api.both(x))(3) == (9, 9)


def test_module_imported_inside_the_call(local_module: Callable[[str, str], ModuleType]) -> None:
    """On this machine the caller's sys.path serves the runner too."""
    local_module("tendril_t_inside", "VALUE = 5\n")

    @tendril.function
    def call() -> int:
        import tendril_t_inside

        return tendril_t_inside.VALUE

    assert call() == 5


# -- where the runner feels at home ---------------------------------------------------------------


def test_runner_has_the_callers_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = tendril.function(lambda: (os.getcwd(), os.environ.get("TENDRIL_T"), sys.executable))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENDRIL_T", "one ☃")
    assert look() == (str(tmp_path), "one ☃", sys.executable)
    monkeypatch.setenv("TENDRIL_T", "two")
    assert look()[1] == "two"
    monkeypatch.delenv("TENDRIL_T")
    assert look()[1] is None


def test_environ_adds_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENDRIL_T", "outer")

    @tendril.function(environ={"TENDRIL_T": "inner", "TENDRIL_U": ""})
    def look() -> tuple[Any, ...]:
        return tuple(os.environ.get(name) for name in ("TENDRIL_T", "TENDRIL_U", "PATH"))

    assert look() == ("inner", "", os.environ.get("PATH"))


def test_each_call_reads_an_empty_standard_input() -> None:
    """A runner must not take what is typed at the caller's terminal."""
    assert tendril.function(lambda: sys.stdin.read())() == ""


def test_one_call_one_thread_for_numeric_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def threads() -> str:
        return os.environ["OMP_NUM_THREADS"]

    assert tendril.function(threads)() == "1"
    assert tendril.function(threads, cpu=2)() == "2"


def test_runners_draw_different_random_numbers() -> None:
    @tendril.function
    def draw(gate_path: str) -> tuple[int, float, float]:
        import random

        import numpy

        return os.getpid(), random.random(), float(numpy.random.random())

    drawn: dict[int, tuple[float, float]] = {}
    for pid, one, two in draw.map(range(20)):
        drawn.setdefault(pid, (one, two))
    for column in zip(*drawn.values(), strict=True):
        assert len(set(column)) == len(drawn)


# -- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("cpu", "two", TypeError),
        ("cpu", True, TypeError),
        ("cpu", 0, ValueError),
        ("cpu", -1, ValueError),
        ("cpu", float("nan"), ValueError),
        ("memory", 0, ValueError),
        ("memory", "much", ValueError),
        ("memory", "4 XB", ValueError),
        ("memory", float("inf"), ValueError),
        ("memory", 1e30, ValueError),
        ("memory", {}, TypeError),
        ("timeout", 0, ValueError),
        ("timeout", -1, ValueError),
        ("timeout", "soon", ValueError),
        ("timeout", 1e12, ValueError),
        ("timeout", float("nan"), ValueError),
        ("timeout", True, TypeError),
        ("timeout", datetime.timedelta(0), ValueError),
        ("keepalive", "x", ValueError),
        ("idle_timeout", [], TypeError),
        ("retries", -1, ValueError),
        ("retries", 1.5, TypeError),
        ("retries", True, TypeError),
        ("retries", "3", TypeError),
        ("n_workers", -1, ValueError),
        ("n_workers", [5, 1], ValueError),
        ("n_workers", [1], ValueError),
        ("n_workers", "many", TypeError),
        ("n_workers", ["1", "2"], TypeError),
        ("region", 1, TypeError),
        ("vm_type", 1, TypeError),
        ("place", 1, TypeError),
        ("name", 1, TypeError),
        ("environ", {"A": 1}, TypeError),
        ("environ", {1: "A"}, TypeError),
        ("environ", {"A=B": "C"}, TypeError),
        ("environ", {"A": "\0"}, ValueError),
        ("environ", ["A=B"], TypeError),
    ],
)
def test_senseless_options_are_refused_at_once(
    option: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=option):
        tendril.function(lambda: None, **{option: value})
    with pytest.raises(error, match=option):
        tendril.function(**{option: value})(lambda: None)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="vm_typ"):
        tendril.function(vm_typ="m6i.large")


def test_options_as_people_write_them() -> None:
    f = tendril.function(
        lambda x: x + 1,
        cpu=[1, 4],
        memory=["500 MB", "4 GiB"],
        timeout="2 minutes",
        keepalive=datetime.timedelta(minutes=5),
        idle_timeout="24 hours",
        n_workers=[0, 10],
        threads_per_worker=1,
        tags={"a": "b"},
        package_sync_ignore=["x"],
        region="us-east-1",
        vm_type=["m6i.large", "m6i.xlarge"],
        gpu=False,
        arm=True,
        disk_size="100 GB",
        spot_policy="spot_with_fallback",
        retries=2,
        name="mine",
    )
    assert f(1) == 2


def test_what_is_not_built_says_so() -> None:
    with pytest.raises(tendril.NotAvailable, match="max_cost is not available yet"):
        tendril.function(lambda: None, max_cost=1.0)
    with pytest.raises(NotImplementedError):
        tendril.attach("0")
    results = double.map([1])
    with pytest.raises(tendril.NotAvailable, match="replay"):
        results.replay(0)
    with pytest.raises(tendril.NotAvailable, match="report"):
        results.report("page.html")
    with pytest.raises(tendril.NotAvailable, match="detach"):
        results.detach()
    assert list(results) == [2]


def test_calls_that_want_all_cores_run_one_at_a_time() -> None:
    @tendril.function(cpu=2)
    def work(i: int) -> tuple[float, float]:
        begin = time.monotonic()
        time.sleep(0.02)
        return begin, time.monotonic()

    spans = sorted(work.map(range(6)))
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


def test_shared_cpu_limits_are_taken() -> None:
    assert tendril.function(lambda: 1, cpu=0.01)() == 1
    assert tendril.function(lambda: 1, cpu=0.0001)() == 1
    assert tendril.function(lambda: 1, cpu=10_000)() == 1


# -- where it runs --------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file of a user who has set nothing else."""
    monkeypatch.delenv("TENDRIL_PLACE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "tendril").mkdir()
    return tmp_path / "tendril" / "config.toml"


def test_without_any_place_it_runs_here(config: Path) -> None:
    assert double(1) == 2
    assert double.cluster.place == "local"


@pytest.mark.parametrize(
    "options",
    [
        {"region": "us-east-1"},
        {"vm_type": "m6i.xlarge"},
        {"gpu": True},
        {"arm": True},
        {"disk_size": 100},
        {"spot_policy": "spot"},
    ],
    ids=str,
)
def test_machines_without_a_cloud_are_an_error_that_helps(
    config: Path, options: dict[str, Any]
) -> None:
    f = tendril.function(lambda x: x, **options)
    for call in (f, f.submit, lambda x: f.map([x])):
        with pytest.raises(tendril.ConfigurationError) as caught:
            call(1)
        for word in (next(iter(options)), "tendril setup aws", "TENDRIL_PLACE=local"):
            assert word in str(caught.value)
    assert f.local(1) == 1


def test_local_and_place_and_environment_and_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each beats the next one: local=, TENDRIL_PLACE, place=, the file."""
    config.write_text('place = "from-file"\n')
    plain, placed = tendril.function(lambda: 1), tendril.function(lambda: 1, place="from-option")
    with pytest.raises(tendril.ConfigurationError, match="from-file"):
        plain()
    with pytest.raises(tendril.ConfigurationError, match="from-option"):
        placed()
    monkeypatch.setenv("TENDRIL_PLACE", "from-variable")
    with pytest.raises(tendril.ConfigurationError, match="from-variable"):
        placed()
    assert tendril.function(lambda: 1, local=True, place="from-option")() == 1
    monkeypatch.setenv("TENDRIL_PLACE", "local")
    assert placed() == 1
    monkeypatch.delenv("TENDRIL_PLACE")
    config.write_text('place = "local"\n')
    assert tendril.function(lambda: 1, region="us-east-1")() == 1
    assert tendril.function(lambda: 1, place="local", vm_type="x")() == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"place = ", "not valid TOML"), (b"place = 3", "place must be text"), (b"\xff", "config")],
)
def test_broken_configuration_file_is_named(config: Path, text: bytes, words: str) -> None:
    config.write_bytes(text)
    with pytest.raises(tendril.ConfigurationError, match=words) as caught:
        double(1)
    assert str(config) in str(caught.value)


def test_cluster_tells_and_ends() -> None:
    assert double(1) == 2
    cluster = double.cluster
    assert (cluster.place, cluster.cores) == ("local", 2)
    assert cluster.memory_limit_by in ("cgroup v1", "cgroup v2", "polling")
    before = tendril.function(os.getpid)()
    cluster.shutdown()
    cluster.shutdown()  # again: nothing to do
    havoc.wait_until(lambda: not havoc.alive(before), "the warm runner ends")
    assert double(2) == 4  # the next call starts again


# -- a Function as a value ------------------------------------------------------------------------


def test_function_travels_with_its_options() -> None:
    f = tendril.function(lambda x: x + OFFSET, retries=3, name="named")
    copy = cloudpickle.loads(cloudpickle.dumps(f))
    assert copy.local(1) == 101
    assert (copy.name, repr(copy)) == ("named", repr(f))
    assert copy(1) == 101


def test_function_as_argument_closure_and_result() -> None:
    apply = tendril.function(lambda f, x: f.local(x))
    assert apply(double, 4) == 8
    make = tendril.function(lambda k: tendril.function(lambda x: k * x))
    assert make(3)(5) == 15
    nested = tendril.function(lambda x: double(x) + 1)
    assert nested(5) == 11


def test_function_of_an_importable_module_is_pickled_by_name(
    local_module: Callable[[str, str], ModuleType],
) -> None:
    """For multiprocessing, dask and all others that use pickle itself."""
    module = local_module(
        "tendril_t_pickled", "import tendril\n@tendril.function\ndef f(x): return x + 1\n"
    )
    copy = pickle.loads(pickle.dumps(module.f))
    assert copy.local(1) == 2
