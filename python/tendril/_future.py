"""A single call in the background, as a concurrent.futures.Future."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from tendril import _tendril
from tendril._outcome import Outcome, error_of, tame, value_of
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
        """The outcome is there. Called by the session's thread."""
        outcome = Outcome(*self._core.next(None))
        try:
            if outcome.ok:
                self.set_result(self._value(outcome))
            else:
                self.set_exception(tame(error_of(outcome, self._name), 0, self._name))
        except concurrent.futures.InvalidStateError:
            pass  # cancelled in this moment

    def _value(self, outcome: Outcome) -> Any:
        try:
            return value_of(outcome)
        except Exception as error:
            self.set_exception(error)
            raise concurrent.futures.InvalidStateError from error
