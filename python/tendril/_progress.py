"""The progress bar of a map: on a terminal and in notebooks, none when output is piped."""

from __future__ import annotations

import os
import sys
from typing import Any


def wanted() -> bool:
    """Whether somebody is looking: stderr is a terminal, or this is a notebook."""
    if os.environ.get("TENDRIL_PROGRESS") == "0":
        return False
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and sys.stderr.isatty()


class Bar:
    """done/total, calls a second and time left by tqdm; running and failed as its postfix."""

    def __init__(self, core: Any, name: str, total: int | None) -> None:
        from tqdm.auto import tqdm

        self._core = core
        self._bar = tqdm(total=total, desc=name, unit="call", dynamic_ncols=True)
        self._shown: tuple[int, ...] = ()

    def refresh(self) -> None:
        """Show the state of the map now. Any thread."""
        counts = self._core.counts()
        if counts == self._shown:
            return
        self._shown = counts
        _, running, finished, failed, _ = counts
        self._bar.n = finished
        self._bar.set_postfix(running=running, failed=failed, refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        self.refresh()
        self._bar.close()
