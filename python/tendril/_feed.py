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
        try:
            self._core.feed(self._inputs, self._dumps)
            self._core.end()
        except _tendril.Error:  # cancelled or closed: whoever reads the map hears of it
            pass
        except BaseException as error:  # it is the reader's, at the place where it occurred
            self.error = error
        finally:
            del self._inputs
            self._end()

    def _end(self) -> None:
        try:
            self._core.end()
        except _tendril.Error:  # as above
            pass

    def _dumps(self, value: Any) -> bytes | None:
        """One input that cannot be sent is a failed call; it never spoils the rest."""
        try:
            data = _pickling.dumps_input(value if self._spread else (value,))
            if len(data) <= _tendril.ARGUMENTS_MAX:
                return data
            raise TendrilError(
                f"the arguments have {len(data)} bytes, "
                f"at most {_tendril.ARGUMENTS_MAX} can be sent"
            )
        except (PicklingError, TendrilError) as error:
            self._core.reject(pack_exception(error.with_traceback(None)))
            return None
