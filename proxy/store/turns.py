"""One question at a time among the processes that share a cache folder."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from proxy.store.disk import Folder

_SLOTS: Final = 1024  # lock files; keys that share one wait for each other without need, and rarely
_FIRST_LOOK: Final = 0.002  # seconds between two looks whether it is our turn; longer each time
_LONGEST_LOOK: Final = 0.05


class FileTurns:
    """Turns by advisory locks on files, which the system takes back from a process that dies."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[bool]:
        """Wait for the turn to ask for *key*. A folder that can't be used makes nobody wait."""
        slot = int.from_bytes(hashlib.sha256(key.encode()).digest()[:2]) % _SLOTS
        try:
            descriptor = os.open(self._folder.lock(slot), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._folder.warn("lock", error)
            yield False
            return
        try:
            yield await _acquired(descriptor)
        finally:
            os.close(descriptor)  # and the lock with it


async def _acquired(descriptor: int) -> bool:
    """Wait for the lock; return whether somebody else had it. Looking is cheap, a waiting thread isn't."""
    pause = _FIRST_LOOK
    waited = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_LOOK)
        else:
            return waited
