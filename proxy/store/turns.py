"""One question at a time among the processes that share a cache folder."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from proxy.store.disk import Folder

_SET_LOCK: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)  # Linux's, of an open file and not of a process
_HOW: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_FIRST_LOOK: Final = 0.002  # seconds between two looks whether it is our turn; longer each time
_LONGEST_LOOK: Final = 0.05


class FileTurns:
    """Turns by advisory locks on bytes of an empty file, which the system takes back from a process that dies.

    Each key has a byte of its own, far behind the end: so a key that takes long holds up no other.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[bool]:
        """Wait for the turn to ask for *key*. A folder that can't be used makes nobody wait."""
        try:
            descriptor = self._opened()
        except OSError as error:
            self._folder.warn("lock", error)
            yield False
            return
        try:
            yield await self._acquired(descriptor, key)
        finally:
            os.close(descriptor)  # and the lock with it

    def _opened(self) -> int:
        try:
            return os.open(self._folder.turns, _HOW, 0o600)
        except FileNotFoundError:  # somebody has cleared the folder away
            self._folder.prepare()
            return os.open(self._folder.turns, _HOW, 0o600)

    async def _acquired(self, descriptor: int, key: str) -> bool:
        """Wait for the lock; return whether somebody else had it. Looking is cheap, a waiting thread isn't."""
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 2  # where a file may have a byte
        pause = _FIRST_LOOK
        waited = False
        while True:
            try:
                _lock(descriptor, place)
            except (BlockingIOError, PermissionError):
                waited = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_LOOK)
            except OSError as error:
                self._folder.warn("lock", error)
                return False
            else:
                return waited


def _lock(descriptor: int, place: int) -> None:
    """Lock one byte of a file. Raises `BlockingIOError` or `PermissionError` where it is another's, else `OSError`."""
    if _SET_LOCK is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    fcntl.fcntl(descriptor, _SET_LOCK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
