"""What a process has to know of its cache folder for longer than a configuration lasts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from proxy.store.checks import Seen
from proxy.store.history import Schedule

_LAST: Final = 5.0  # seconds for what is still to be written, however long requests have taken to end


class Upkeep:
    """When the folder is pruned next, which kept blobs were seen to be right, and since when the process stops."""

    def __init__(self, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic) -> None:
        """Begin now; *clock* has seconds since the epoch, *ticks* some that never go backwards."""
        self._ticks = ticks
        self._stopped: float | None = None
        self.pruning = Schedule(ticks)
        self.seen = Seen(clock)

    def stop(self) -> None:
        """Note that the process stops from now on."""
        self._stopped = self._ticks()

    def patience(self, drain: float) -> float:
        """Return how many seconds may be waited for what is still to be written: of *drain* what requests have left."""
        return drain if self._stopped is None else max(_LAST, self._stopped + drain - self._ticks())
