"""Feeding a map: inputs are drawn in a thread of their own, so that a slow input iterator never
keeps results from coming, and no further ahead than the window allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from tendril import _pickling, _tendril
from tendril._outcome import pack_exception
from tendril.errors import PicklingError, TendrilError

SIZED_SPAN = 1 << 20  # calls of a sized input that are submitted ahead of their results
LAZY_SPAN = 1 << 10  # the same when the length is not known
BYTES = 256 << 20  # pickled inputs on their way, about

# Statuses of a map that takes no more calls.
_ENDED = frozenset({"TD_ECANCELLED", "TD_ECLOSED", "TD_EFORKED"})


class Feeder:
    """Draws inputs, submits them, and keeps the exception that the input iterator raised.

    inputs: gives the argument of each call; with spread, the tuple of its arguments.
    """

    def __init__(self, core: Any, inputs: Iterator[Any], spread: bool) -> None:
        self._core = core
        self._inputs = inputs
        self._spread = spread
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="tendril-feed", daemon=True)

    def _run(self) -> None:
        self._try(lambda: self._core.feed(self._inputs, self._dumps))
        del self._inputs
        self._try(self._core.end)

    def _try(self, step: Callable[[], None]) -> None:
        """What a step raises is the reader's, at the place where it occurred."""
        try:
            step()
        except _tendril.Error as error:
            status, text = error.args
            if status not in _ENDED:  # of these the reader hears by itself
                self.error = self.error or TendrilError(text)
        except BaseException as error:
            self.error = self.error or error

    def _dumps(self, value: Any) -> bytes | _tendril.Block | None:
        """One input that cannot be sent is a failed call; it never spoils the rest."""
        try:
            data = _pickling.dumps_input(value if self._spread else (value,))
            if isinstance(data, _tendril.Block) or len(data) <= _tendril.INPUT_MAX:
                return data
            raise TendrilError(
                f"the arguments have {len(data)} bytes, at most {_tendril.INPUT_MAX} can be sent"
            )
        except (PicklingError, TendrilError) as error:
            self._core.reject(pack_exception(error.with_traceback(None)))
            return None
