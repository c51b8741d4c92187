"""How things travel: what is pickled by value, and words for what cannot be pickled.

By value go functions and classes of ``__main__`` and of local modules (files that are not
installed), since the other side may not have them or have another version. Everything that is
installed goes by reference.
"""

from __future__ import annotations

import builtins
import functools
import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from tendril import _tendril
from tendril.errors import PicklingError

PROTOCOL = 5

_STDLIB = os.path.dirname(os.__file__) + os.sep
_OWN = frozenset({"tendril", "cloudpickle", "__main__", "__mp_main__"})


def is_installed(module: ModuleType) -> bool:
    """Whether a module comes with the interpreter or from an installed package."""
    if module.__name__.partition(".")[0] in _OWN:
        return True
    file = getattr(module, "__file__", None)
    if file is None:
        # Built in, frozen, or a namespace package, which is as local as its folders.
        return all(_is_installed_path(path) for path in getattr(module, "__path__", ()))
    return _is_installed_path(file)


def _is_installed_path(path: str) -> bool:
    return (
        path.startswith(_STDLIB)
        or f"{os.sep}site-packages{os.sep}" in path
        or f"{os.sep}dist-packages{os.sep}" in path
    )


class _LocalModules:
    """The local modules that are imported now; looked up again when something was imported."""

    def __init__(self) -> None:
        self._seen = -1
        self._marks: list[bytes] = [b"__main__"]
        self.modules: list[ModuleType] = []

    def refresh(self) -> None:
        if len(sys.modules) == self._seen:
            return
        found = {}
        for name, module in list(sys.modules.items()):
            if isinstance(module, ModuleType) and name not in _OWN and not is_installed(module):
                found[name] = module
        self._marks = [b"__main__", *(name.encode() for name in found)]
        self.modules = list(found.values())
        self._seen = len(sys.modules)

    def mentioned_in(self, data: bytes) -> bool:
        """Whether a plain pickle refers (or may refer) to one of them by name."""
        for mark in self._marks:  # noqa: SIM110 (a generator would cost more than the search)
            if mark in data:
                return True
        return False


_local = _LocalModules()

# How objects of a type are taken apart by cloudpickle: types of ours, and what it lacks.
Reduce = Callable[[Any], str | tuple[Any, ...]]
WHOLE: dict[type, Reduce] = {}


def _reduce_cached(fn: Any) -> str | tuple[Any, ...]:
    """A function under functools.cache: it names itself to pickle, which is of no use where its
    module cannot be imported. Then its function travels, and its cache starts empty."""
    module = sys.modules.get(fn.__module__)
    if fn.__module__ != "__main__" and module is not None and is_installed(module):
        return fn.__qualname__
    return _cached, (fn.__wrapped__, fn.cache_parameters())


def _cached(fn: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    return functools.lru_cache(**parameters)(fn)


WHOLE[type(functools.cache(len))] = _reduce_cached


class _Buffers(list[memoryview]):
    """Takes the large buffers out of a pickle (PEP 574)."""

    def keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether this one is to stay in it."""
        try:
            raw = buffer.raw()
        except BufferError:  # it is not in one piece
            return True
        if raw.nbytes < LARGE:
            return True
        self.append(raw)
        return False


def _cloud_dumps(value: Any, buffers: _Buffers | None = None) -> bytes:
    from tendril import _cloud  # costs more time than all else that a program needs to start

    if buffers is not None:
        buffers.clear()  # of an attempt by other means
    return _cloud.dumps(value, _local.modules, None if buffers is None else buffers.keep)


def dumps(value: Any, buffers: _Buffers | None = None) -> bytes:
    """Pickle a value: the C pickler when that is enough, else cloudpickle.

    The C pickler names classes and functions; where such a name belongs to ``__main__`` or to a
    local module, cloudpickle does it again and sends them whole. Raises what pickling raised.
    """
    if type(value) in _STEADY:
        return pickle.dumps(value, protocol=PROTOCOL)
    _local.refresh()
    try:
        if buffers is None:
            data = pickle.dumps(value, protocol=PROTOCOL)
        else:
            data = pickle.dumps(value, protocol=PROTOCOL, buffer_callback=buffers.keep)
    except Exception:  # whatever it was, cloudpickle can do more, or says it better
        return _cloud_dumps(value, buffers)
    if _local.mentioned_in(data):
        return _cloud_dumps(value, buffers)
    return data


def loads_result(data: bytes | memoryview) -> Any:
    """Read a result or an exception that came back. Raises whatever reading raises."""
    if is_large(data):
        return loads_large(data)[1]
    if b"cloudpickle" in bytes(data):
        return _cloud_loads(data, ())
    return pickle.loads(data)


def _cloud_loads(data: bytes | memoryview, buffers: Iterable[memoryview]) -> Any:
    from tendril import _cloud

    return _cloud.Unpickler(data, buffers).load()


# A large value: a head, its pickle, and the buffers that were taken out of it, in shared memory.
# The head: a first byte that no pickle begins with, how a function is called with it, whether
# cloudpickle had a part in it, how many buffers there are, the bytes of the pickle and of each
# buffer. A buffer begins at a multiple of _ALIGN.
LARGE = 1 << 20  # bytes
_LARGE_HEAD = struct.Struct("<BBBxIQ")
_LARGE_FIRST = 3
_ALIGN = 64
CALLED_WITH_BOTH, CALLED_WITH_ONE, CALLED_WITH_SEVERAL = 0, 1, 2  # f(*a, **k), f(x), f(*x)


def dumps_any(value: Any, called: int = CALLED_WITH_BOTH) -> bytes | _tendril.Block:
    """Pickle a value of any size. Raises what pickling raised."""
    buffers = _Buffers()
    data = dumps(value, buffers)
    if not buffers and len(data) < LARGE:
        return data
    try:
        return _block(data, buffers, called)
    except _tendril.Error:  # no shared memory is to be had: through the socket, then
        return dumps(value)


def _block(data: bytes, buffers: _Buffers, called: int) -> _tendril.Block:
    sizes = [buffer.nbytes for buffer in buffers]
    head = _LARGE_HEAD.pack(_LARGE_FIRST, called, b"cloudpickle" in data, len(sizes), len(data))
    pieces = [head, struct.pack(f"<{len(sizes)}Q", *sizes), data]
    at = sum(map(len, pieces))
    for buffer in buffers:
        gap = -at % _ALIGN
        pieces += (bytes(gap), buffer)
        at += gap + buffer.nbytes
    return _tendril.Block(pieces)


def is_large(data: bytes | memoryview) -> bool:
    """Whether this is what dumps_any makes of a large value."""
    return data[0] == _LARGE_FIRST


def loads_large(data: memoryview) -> tuple[int, Any]:
    """How a function is called with it, and a large value, which lies in `data`, not in a copy."""
    _, called, cloud, count, size = _LARGE_HEAD.unpack_from(data)
    sizes = struct.unpack_from(f"<{count}Q", data, _LARGE_HEAD.size)
    at = _LARGE_HEAD.size + 8 * count
    pickled = data[at : at + size]
    at += size
    buffers = []
    for size in sizes:
        at += -at % _ALIGN
        buffers.append(data[at : at + size])
        at += size
    if cloud:
        return called, _cloud_loads(pickled, buffers)
    return called, pickle.loads(pickled, buffers=buffers)


# A run of values that were pickled one by one, in one pickle (see python/_tendril/plain.c): after
# a first byte that no pickle begins with, what reads a nested pickle is put into memo 0, then comes
# a list of them. In arguments the first byte says how the function is called with one: f(x), f(*x).
_RUN = b"\x80\x05ctendril._pickling\n%s\n\x940]("
RUN_OF_RESULTS = b"\x01" + _RUN % b"nested_result"
RUN_OF_INPUTS = b"\x01" + _RUN % b"nested"
RUN_OF_SPREAD_INPUTS = b"\x02" + _RUN % b"nested"
RUN_END = b"e."


def nested(data: bytes) -> Any:
    """One of a run: its value, or what stands for it when it cannot be read."""
    try:
        return pickle.loads(data)
    except Exception as error:
        return _tendril.Unreadable(error)


def nested_result(data: bytes) -> Any:
    """The same for a result."""
    try:
        return loads_result(data)
    except Exception as error:
        return _tendril.Unreadable(error)


def is_run(data: bytes | memoryview) -> bool:
    """Whether this is a run of values, and not the pickle of one."""
    return data[0] in (1, 2)


def loads_run(data: bytes | memoryview) -> list[Any]:
    """The values of a run."""
    return pickle.loads(memoryview(data)[1:])


_STEADY = frozenset({int, float, complex, str, bytes, bool, type(None), type(...), range})


def parts(fn: Any) -> list[Any] | None:
    """All that the pickle of a function depends on, to be compared by identity; None when it
    depends on something that can change in place, as a list or an object."""
    found: list[Any] = []
    return found if _collect(fn, found, depth=0) else None


def _collect(value: Any, found: list[Any], depth: int) -> bool:
    found.append(value)
    kind = type(value)
    if kind in _STEADY:
        return True
    if kind is ModuleType:
        return is_installed(value)
    if kind is tuple:
        return depth < 8 and all(_collect(item, found, depth + 1) for item in value)
    if isinstance(value, (type, BuiltinFunctionType, FunctionType)) and _goes_by_name(value):
        return True
    if kind is BuiltinFunctionType and value.__self__ is builtins:
        return True
    if kind is not FunctionType or depth >= 8 or value.__dict__ or value.__kwdefaults__:
        return False
    code = value.__code__
    found.append(code)
    try:
        inner = [cell.cell_contents for cell in value.__closure__ or ()]
    except ValueError:  # not bound yet
        return False
    names = _names_of(code)
    inner += [value.__globals__[name] for name in names if name in value.__globals__]
    found.append(len(inner))
    inner += value.__defaults__ or ()
    seen = {id(one) for one in found}
    return all(id(one) in seen or _collect(one, found, depth + 1) for one in inner)


def find(module: str, name: str) -> Any:
    """What a module calls by this name, with dots, or None."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _goes_by_name(value: Any) -> bool:
    """Whether it is what an installed module calls by its name: a function that was made inside
    another one of that module is not, and travels with what it holds."""
    name = getattr(value, "__module__", None)
    module = None if name in ("__main__", "__mp_main__") else sys.modules.get(name or "")
    if module is None or not is_installed(module):
        return False
    return find(module.__name__, value.__qualname__) is value


@functools.lru_cache(maxsize=1024)
def _names_of(code: CodeType) -> tuple[str, ...]:
    return tuple(sorted(_global_names(code)))


def dumps_function(fn: Callable[..., Any]) -> tuple[bytes, bytes]:
    """Pickle a function with all that it refers to; with the SHA-256 of that. Raises
    PicklingError.
    """
    _local.refresh()
    try:
        import hashlib

        body = _cloud_dumps(fn)
        return body, hashlib.sha256(body).digest()
    except Exception as error:
        name = getattr(fn, "__qualname__", repr(fn))
        raise PicklingError(f"function {name} cannot be sent: {explain(fn, error)}") from error


def dumps_input(args: tuple[Any, ...]) -> bytes | _tendril.Block:
    """Pickle an input of a map, one argument or the tuple of several. Raises PicklingError."""
    try:
        if len(args) == 1:
            return dumps_any(args[0], CALLED_WITH_ONE)
        return dumps_any(args, CALLED_WITH_SEVERAL)
    except Exception:
        return dumps_arguments(args, {})  # which says which one it was


def dumps_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | _tendril.Block:
    """Pickle the arguments of a call. Raises PicklingError, naming the argument."""
    try:
        return dumps_any((args, kwargs))
    except Exception as error:
        for label, value in _named_arguments(args, kwargs):
            if (reason := _failure(value)) is not None:
                text = f"{label} cannot be sent: {explain(value, reason)}"
                raise PicklingError(text) from error
        raise PicklingError(f"the arguments cannot be sent: {_reason(error)}") from error


def _named_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for i, value in enumerate(args):
        yield f"argument {i}", value
    for name, value in kwargs.items():
        yield f"argument {name}", value


def _is_recursion(error: BaseException) -> bool:
    return isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)


def _reason(error: BaseException) -> str:
    if _is_recursion(error):
        return "it is nested too deeply (RecursionError)"
    return f"{type(error).__name__}: {error}"


def _failure(value: Any) -> Exception | None:
    """The error that pickling this value gives, or None."""
    try:
        _cloud_dumps(value)
    except Exception as error:
        return error
    return None


def explain(value: Any, error: BaseException) -> str:
    """Words for a failed pickling: the path to the innermost part that fails, and the reason."""
    path, part, reason = "", value, error
    seen: set[int] = set()
    steps_max = 3 if _is_recursion(error) else 50  # then no part is worse than the others
    while id(part) not in seen and len(seen) < steps_max:
        seen.add(id(part))
        for step, child in _children(part):
            child_error = _failure(child)
            if child_error is not None:
                path, part, reason = path + step, child, child_error
                break
        else:
            break
    where = f"{path.lstrip('.')} (a {_type_name(part)}): " if path else f"a {_type_name(part)}: "
    return where + _reason(reason)


def _type_name(value: Any) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts that are pickled with a value, each with the step that leads to it."""
    if isinstance(value, dict):
        for key, item in list(value.items())[:1000]:
            yield f"[{key!r}]", item
    elif isinstance(value, (list, tuple, set, frozenset)):
        for i, item in enumerate(list(value)[:1000]):
            yield f"[{i}]", item
    elif hasattr(value, "__code__"):
        yield from _function_children(value)
    elif isinstance(getattr(value, "__dict__", None), dict):
        for name, item in vars(value).items():
            yield f".{name}", item


def _function_children(fn: Any) -> Iterator[tuple[str, Any]]:
    code = fn.__code__
    for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=False):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # not bound yet
            continue
    for name in _global_names(code):
        if name in fn.__globals__:
            yield f".{name}", fn.__globals__[name]
    for i, item in enumerate(fn.__defaults__ or ()):
        yield f".__defaults__[{i}]", item


def _global_names(code: Any) -> set[str]:
    """Names that a code object, or one inside it, may look up in its module."""
    names = set(code.co_names)
    for const in code.co_consts:
        if hasattr(const, "co_names"):
            names |= _global_names(const)
    return names


def packages_of(fn: Any) -> list[str]:
    """The installed modules that a function's module refers to: what a runner should import."""
    wanted: set[str] = set()
    for value in list(getattr(fn, "__globals__", {}).values()):
        name = (
            value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        )
        if not isinstance(name, str) or name.partition(".")[0] in _OWN:
            continue
        module = sys.modules.get(name)
        if module is not None and getattr(module, "__file__", None) and is_installed(module):
            wanted.add(name)
    return sorted(wanted)
