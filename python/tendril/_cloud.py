"""What cloudpickle does for us: functions and classes by value. Imported when first needed."""

from __future__ import annotations

import functools
import io
import pickle
from collections import ChainMap
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import cloudpickle

from tendril._pickling import PROTOCOL, WHOLE


class _Pickler(cloudpickle.Pickler):
    dispatch_table = ChainMap(WHOLE, cloudpickle.Pickler.dispatch_table)


def dumps(
    value: Any,
    local: Iterable[ModuleType],
    keep: Callable[[pickle.PickleBuffer], bool] | None,
) -> bytes:
    """Pickle a value with what it has of __main__ and of these modules by value.

    keep: whether a buffer is to stay in the pickle.
    """
    for module in local:
        cloudpickle.register_pickle_by_value(module)
    file = io.BytesIO()
    _Pickler(file, protocol=PROTOCOL, buffer_callback=keep).dump(value)
    return file.getvalue()


class Unpickler(pickle.Unpickler):
    """Reads what a runner has sent: a class that this process knows already stays as it is.

    cloudpickle sends a class of __main__ whole, also back to where it came from, and would put
    the runner's copies of its methods, with copies of their globals, into the caller's class.
    """

    def __init__(self, data: bytes | memoryview, buffers: Iterable[memoryview]) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._known: set[type] = set()

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module != "cloudpickle.cloudpickle":
            return found
        if name in ("_make_skeleton_class", "_make_skeleton_enum"):
            return functools.partial(self._make, found)
        return functools.partial(self._fill, found) if name == "_class_setstate" else found

    def _make(self, make: Callable[..., type], *args: Any) -> type:
        known = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(args[-2])
        if known is None:
            return make(*args)
        self._known.add(known)
        return known

    def _fill(self, fill: Callable[..., type], kind: type, *state: Any) -> type:
        return kind if kind in self._known else fill(kind, *state)
