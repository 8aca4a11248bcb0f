"""Kept blobs that are damaged on disk: found behind the answers.

The kernel sends a kept blob without anybody hashing it again. So what a process hasn't written itself is hashed when
it is first used, while the client gets it already, and once a day from then on: of a disk that loses bits, or of
somebody who writes where only we should, a client notices once, and its next try gets the right bytes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from proxy.oci.reference import Digest

_EVERY: Final = 86_400.0  # seconds
_MOST: Final = 20_000  # files remembered; one that was forgotten costs hashing it again
_WAITING: Final = 1_000  # files; one more is looked at after its next use


@dataclass(frozen=True, slots=True)
class _File:
    """What a file was when it was looked at: *size* is None where it was wrong."""

    inode: int
    size: int | None
    at: float


class Seen:
    """What is known of the files of kept blobs. Threads may use it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Remember by *clock*, in seconds."""
        self._clock = clock
        self._noting = threading.Lock()
        self._files: dict[Digest, _File] = {}

    def note(self, digest: Digest, inode: int, size: int | None) -> None:
        """Remember that a file was right, and of what size; or that it was wrong."""
        with self._noting:
            self._files.pop(digest, None)
            if len(self._files) >= _MOST:
                del self._files[next(iter(self._files))]
            self._files[digest] = _File(inode, size, self._clock())

    def forget(self, digest: Digest) -> None:
        """Remember nothing of a file that is to be deleted: the next may have its number."""
        with self._noting:
            self._files.pop(digest, None)

    def is_due(self, digest: Digest, inode: int) -> bool:
        """Whether a file should be looked at: it wasn't yet, or long ago."""
        known = self._files.get(digest)
        return known is None or known.inode != inode or not 0 <= self._clock() - known.at < _EVERY

    def is_wrong(self, digest: Digest, inode: int, size: int) -> bool:
        """Whether a file can't be the blob, as that is known to be of another size, or the file to be damaged."""
        known = self._files.get(digest)
        if known is None:
            return False
        return known.inode == inode if known.size is None else known.size != size


class Checks:
    """A line of blobs to be looked at, one at a time. Close it."""

    def __init__(self, check: Callable[[Digest], Awaitable[None]]) -> None:
        """Look with *check*, which raises nothing."""
        self._check = check
        self._line: dict[Digest, None] = {}
        self._work: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be looked at."""
        return self._work is None

    def add(self, digest: Digest) -> None:
        """Look at *digest* when its turn comes."""
        if len(self._line) < _WAITING:
            self._line[digest] = None
        if self._work is None:
            self._work = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Look at nothing any more."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])

    async def _run(self) -> None:
        try:
            while self._line:
                digest = next(iter(self._line))
                try:
                    await self._check(digest)
                finally:
                    del self._line[digest]
        finally:
            self._work = None
