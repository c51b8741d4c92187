"""A single call in the background, as a concurrent.futures.Future."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from tendril import _tendril
from tendril._map import core_error
from tendril._outcome import error_of, tame, value_of
from tendril._session import Session


class Future(concurrent.futures.Future):
    """Works with as_completed, wait and asyncio.wrap_future; unlike a thread's or a process
    pool's, a call that runs already can be cancelled: it is stopped."""

    def __init__(self, session: Session, core: _tendril.Map, name: str) -> None:
        super().__init__()
        self._session = session
        self._core = core
        self._name = name
        session.on_notice(core.id, self._complete)

    def running(self) -> bool:
        """Whether a runner has the call now."""
        return not self.done() and self._core.running(0)

    def cancel(self) -> bool:
        """Stop the call, waiting or running. False when it has finished already."""
        if not super().cancel():
            return False
        self._session.forget_notice(self._core.id)
        self._core.cancel()
        # No executor will pick a cancelled call up and say so: tell those who wait ourselves.
        with self._condition:
            tell = self._state == "CANCELLED"
        if tell:
            self.set_running_or_notify_cancel()
        return True

    def logs(self) -> str:
        """What the call has written so far."""
        return self._core.logs(0, 0)[0].decode("utf-8", "replace")

    def _complete(self) -> None:
        """The outcome is there, or will never be. Called by the session's thread, and by whoever
        closes the session."""
        try:
            value, error = self._settled()
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass  # cancelled in this moment

    def _settled(self) -> tuple[Any, BaseException | None]:
        """The result, or None and the exception."""
        try:
            outcome = self._session.next_outcome(self._core)
            if outcome.ok:
                return value_of(outcome), None
        except _tendril.Error as error:
            return None, core_error(error, self._name)
        except Exception as error:
            return None, error
        return None, tame(error_of(outcome, self._name), 0, self._name)
