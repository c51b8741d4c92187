"""Feeding a map: inputs are drawn in a thread of their own, so that a slow input iterator never
keeps results from coming, and no further ahead than the window allows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from tendril import _pickling, _tendril
from tendril._outcome import pack_exception
from tendril.errors import PicklingError, TendrilError

SIZED_SPAN = 1 << 20  # calls of a sized input that are submitted ahead of their results
LAZY_SPAN = 1 << 10  # the same when the length is not known
BYTES = 256 << 20  # pickled inputs on their way, about

# Statuses that are about the map, and not about one call.
_ENDED = frozenset({"TD_ECANCELLED", "TD_ECLOSED", "TD_EFORKED"})


class Feeder:
    """Draws inputs, submits them, and keeps the exception that the input iterator raised."""

    def __init__(self, core: Any, inputs: Iterator[tuple[Any, ...]], sized: bool) -> None:
        self._core = core
        self._inputs = inputs
        self._span = SIZED_SPAN if sized else LAZY_SPAN
        self.error: BaseException | None = None
        self._bytes = 0
        self._calls = 0
        self.thread = threading.Thread(target=self._run, name="tendril-feed", daemon=True)

    def _run(self) -> None:
        try:
            for args in self._inputs:
                self._core.wait_room(self._room(), None)
                self._submit(args)
        except _tendril.Error:  # cancelled or closed: whoever reads the map hears of it
            pass
        except BaseException as error:  # it is the reader's, at the place where it occurred
            self.error = error
        finally:
            del self._inputs
            self._core.end()

    def _room(self) -> int:
        if self._calls == 0:
            return self._span
        return max(8, min(self._span, BYTES * self._calls // max(self._bytes, 1)))

    def _submit(self, args: tuple[Any, ...]) -> None:
        """One input that cannot be sent is a failed call; it never spoils the rest."""
        try:
            payload = _pickling.dumps_arguments(args, {})
        except PicklingError as error:
            self._core.reject(pack_exception(error.with_traceback(None)))
            return
        self._bytes += len(payload)
        self._calls += 1
        try:
            self._core.submit(payload)
        except _tendril.Error as error:
            status, text = error.args
            if status in _ENDED:
                raise
            self._core.reject(pack_exception(TendrilError(text)))
