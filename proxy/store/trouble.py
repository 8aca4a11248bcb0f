"""Trouble with a disk: told once, however often it shows.

A disk that is full has room now and then, for something small or in place of what was deleted. So what goes well ends
the trouble only when nothing has failed for a while before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

QUIET: Final = 600  # seconds without a failure


class Trouble:
    """Whether a disk fails, and whether that was told."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Count seconds by *clock*."""
        self._clock = clock
        self._told = False
        self._failed = 0.0

    def begins(self) -> bool:
        """Note a failure. True for the first, which is to be told."""
        first, self._told = not self._told, True
        self._failed = self._clock()
        return first

    def may_end(self) -> None:
        """Note that something went well."""
        if self._clock() - self._failed >= QUIET:
            self._told = False
