"""Telling that the process has no file descriptor left for another connection.

A loop that takes connections by itself resets them then, and says so to nobody but the clients.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import time
from collections.abc import Callable
from typing import Final

import structlog

_LOOK: Final = 1.0  # seconds between two looks
_QUIET: Final = 60.0  # seconds between two lines
_SCARCE: Final = (errno.EMFILE, errno.ENFILE)

_log: Final = structlog.get_logger("web")


class Shortage:
    """Whether there are descriptors left, and when it was last told that there are none."""

    def __init__(self, ticks: Callable[[], float] = time.monotonic) -> None:
        """*ticks* has seconds that never go backwards."""
        self._ticks = ticks
        self._told = -math.inf

    async def watch(self) -> None:
        """Look again and again."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK)

    def look(self) -> None:
        """Open and close something, and tell if that can't be done."""
        try:
            os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
        except OSError as error:
            if error.errno in _SCARCE:
                self.tell(error)

    def tell(self, error: OSError) -> None:
        """Say that no connection can be taken, once a minute at most."""
        if self._ticks() - self._told >= _QUIET:
            self._told = self._ticks()
            _log.error("no connection can be taken", error=error.strerror)
