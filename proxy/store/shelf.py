"""Blobs as files, named by their digest, within a number of bytes.

    <dir>/blobs/<algorithm>/<hex>

Least recently used leaves first; the last use of a file is its time of modification. Whoever reads a file, in whatever
process, holds a shared lock on it, and whoever wants room takes only what it can lock alone: nothing that is being read
is deleted. How much there is, is counted in the folder, where others may write, too. That takes long where there are
many files, so a count is good for some seconds, with what this process adds to it.

A file that isn't what its name says (`checks`) is deleted, too, and not served once that is known.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import math
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from proxy.oci.reference import Digest
from proxy.store.checks import Seen
from proxy.store.disk import Folder, make
from proxy.telemetry import Metrics

_NOTED: Final = 60.0  # seconds within which a use isn't noted again
_SYNCED_AT_ONCE: Final = 2  # files: syncing may take long, and threads are needed by those who read
_COUNTED: Final = 10.0  # seconds that a count is good for: what other processes keep meanwhile may be too much
_SLACK: Final = 64  # where room is made, so much of the limit is left free besides, or each new blob would cost a count
_BLOCK: Final = 1024 * 1024  # bytes hashed in one go: stopping waits for no more

T = TypeVar("T")

_log: Final = structlog.get_logger("store")


class OpenFile:
    """An open file and how many use it; it is closed when the last of them has let go."""

    def __init__(self, descriptor: int) -> None:
        """Own *descriptor*, with one user."""
        self.descriptor = descriptor
        self._users = 1

    def share(self) -> None:
        """Count another user."""
        self._users += 1

    def release(self) -> None:
        """Let go."""
        self._users -= 1
        if not self._users:
            os.close(self.descriptor)

    async def work(self, call: Callable[[int], T]) -> T:
        """Let a thread *call* with the descriptor, which stays open until that is done, whoever is cancelled."""
        self.share()
        thread = asyncio.get_running_loop().run_in_executor(None, call, self.descriptor)
        thread.add_done_callback(self._worked)
        return await asyncio.shield(thread)

    async def read(self, position: int, length: int) -> bytes:
        """Return at most *length* bytes from *position* on. Raises `OSError`."""
        return await self.work(lambda descriptor: os.pread(descriptor, length, position))

    def _worked(self, thread: asyncio.Future[T]) -> None:
        thread.exception()  # seen, also when whoever waited was cancelled
        self.release()


@dataclass(frozen=True, slots=True)
class Kept:
    """A blob that is kept, open.

    Attributes:
        is_due: Whether it should be looked at (`Shelf.check`), as nobody has for long.
    """

    file: OpenFile
    size: int
    is_due: bool


class Shelf:
    """The kept blobs of a cache folder."""

    def __init__(
        self,
        folder: Folder,
        limit: int,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        seen: Seen | None = None,
    ) -> None:
        """Keep *limit* bytes at most.

        Args:
            clock: Seconds since the epoch.
            seen: What is known of files already.
        """
        self.limit = limit
        self._seen = seen or Seen(clock)
        self._folder = folder
        self._metrics = metrics
        self._clock = clock
        self._counting = threading.Lock()
        self._used = 0
        self._counted = -math.inf
        self._syncing = asyncio.Semaphore(_SYNCED_AT_ONCE)

    async def find(self, digest: Digest) -> Kept | None:
        """Open the blob *digest*, which counts as a use of it. Whoever gets it releases it. Raises `OSError`."""
        return await _opened(lambda: self._find(digest), lambda kept: kept.file.release() if kept else None)

    async def scratch(self) -> tuple[Path, OpenFile]:
        """Make a new file to be filled. Raises `OSError`."""
        path = self._folder.scratch()
        return path, await _opened(lambda: _created(path), lambda file: _abandon(path, file))

    async def room(self, size: int) -> bool:
        """Make room for *size* bytes to come, and say whether there is.

        Raises:
            OSError: The folder can't be used, or the disk is too full whatever were deleted here.
        """
        return await asyncio.to_thread(self._has_room, size, size)

    async def keep(self, scratch: Path, file: OpenFile, digest: Digest) -> bool:
        """Put the file at *scratch*, verified by the caller, among the kept ones, and say whether there was room.

        It lasts when this returns. Raises `OSError`.
        """
        async with self._syncing:
            return await file.work(lambda descriptor: self._keep(scratch, descriptor, digest))

    async def check(self, digest: Digest) -> None:
        """Hash the blob *digest*, and discard it if it isn't what it should be. Raises nothing."""
        path = self._path(digest)
        try:
            file = await _opened(lambda: OpenFile(os.open(path, os.O_RDONLY)), OpenFile.release)
        except OSError:
            return  # it has gone, or can't be served either
        try:
            size = await _size_if_right(file, digest)
            await file.work(lambda descriptor: self._judge(digest, descriptor, size))
        except OSError as error:
            self._folder.warn("read", error)
        finally:
            file.release()

    def _judge(self, digest: Digest, descriptor: int, size: int | None) -> None:
        """Remember a file of *size* as right; discard it where it has none."""
        if size is None:
            self._discard(digest, descriptor)
        else:
            self._seen.note(digest, os.fstat(descriptor).st_ino, size)

    def _discard(self, digest: Digest, descriptor: int) -> None:
        """Delete a damaged file, whoever reads it, but not what has been put in its place."""
        path, status = self._path(digest), os.fstat(descriptor)
        self._seen.forget(digest)
        try:
            with _alone(path.parent.parent):
                if os.path.samestat(status, path.stat()):
                    path.unlink()
                    _log.warning("corrupt file discarded", digest=digest, size=status.st_size)
        except FileNotFoundError:
            pass  # another process was faster
        except OSError as error:
            self._seen.note(digest, status.st_ino, None)
            self._folder.warn("discard", error)

    def _path(self, digest: Digest) -> Path:
        return self._folder.root / "blobs" / digest.algorithm / digest.hex

    def _find(self, digest: Digest) -> Kept | None:
        try:
            descriptor = os.open(self._path(digest), os.O_RDONLY)
        except FileNotFoundError:
            return None
        file = OpenFile(descriptor)
        try:
            if not _lock(descriptor, fcntl.LOCK_SH):
                file.release()
                return None  # it is being deleted
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                file.release()
                return None
            if self._seen.is_wrong(digest, status.st_ino, status.st_size):
                self._discard(digest, descriptor)
                file.release()
                return None
            self._note(descriptor, status.st_mtime)
        except BaseException:
            file.release()
            raise
        return Kept(file, status.st_size, self._seen.is_due(digest, status.st_ino))

    def _note(self, descriptor: int, used: float) -> None:
        now = self._clock()
        if not 0 <= now - used < _NOTED:
            with suppress(OSError):  # a folder that is read-only can still be read
                os.utime(descriptor, (now, now))

    def _has_room(self, size: int, to_come: int) -> bool:
        """Say whether *size* bytes fit, of which *to_come* aren't on the disk yet; make room where they don't."""
        self._folder.prepare()
        with self._counting:
            free = _free(self._folder.root)
            if not (0 <= self._clock() - self._counted < _COUNTED and self._fits(size, to_come, free)):
                free = self._make_room(size, to_come, free)
            self._metrics.blob_cache_bytes.set(self._used)
            return self._fits(size, to_come, free)

    def _fits(self, size: int, to_come: int, free: int) -> bool:
        return self._used + size <= self.limit and to_come <= free

    def _make_room(self, size: int, to_come: int, free: int) -> int:
        """Count what there is, and delete what wasn't used for longest where that is too much; return what is free."""
        files = sorted(self._files())
        used = sum(length for _, length, _ in files)
        self._used, self._counted = used, self._clock()
        if to_come > free + used:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if size > self.limit or self._fits(size, to_come, free):
            return free
        enough = max(size, self.limit - self.limit // _SLACK)
        for _, length, path in files:
            if self._used + size <= enough and to_come <= free:
                break
            if _delete(path):
                self._used, free = self._used - length, free + length
                self._metrics.blobs_evicted.inc()
        return free

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """Yield the last use, the size and the path of each kept blob."""
        for algorithm in ("sha256", "sha512"):
            with suppress(FileNotFoundError), os.scandir(self._folder.root / "blobs" / algorithm) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # another process was faster
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            yield status.st_mtime, status.st_size, entry.path

    def _keep(self, scratch: Path, descriptor: int, digest: Digest) -> bool:
        target = self._path(digest)
        now = self._clock()
        os.fsync(descriptor)
        os.utime(descriptor, (now, now))
        status = os.fstat(descriptor)
        size = status.st_size
        make(self._folder.root, target.parent)
        with _alone(target.parent.parent):
            if target.exists():  # another process was faster, and somebody may be reading what it has kept
                scratch.unlink()
            elif not self._has_room(size, 0):
                return False
            else:
                scratch.replace(target)
                self._seen.note(digest, status.st_ino, size)
                with self._counting:
                    self._used += size
                    self._metrics.blob_cache_bytes.set(self._used)
        return True


async def _opened(open_it: Callable[[], T], close: Callable[[T], None]) -> T:
    """Let a thread open something, and close it again where nobody waits for it any more."""
    thread = asyncio.get_running_loop().run_in_executor(None, open_it)
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        thread.add_done_callback(lambda done: None if done.exception() else close(done.result()))
        raise


async def _size_if_right(file: OpenFile, digest: Digest) -> int | None:
    """Return how long a file is that hashes to *digest*; None for another, or where the disk has lost some of it.

    Raises `OSError` where the disk doesn't say.
    """
    hasher, size = digest.hasher(), 0

    def step(descriptor: int) -> int:
        piece = os.pread(descriptor, _BLOCK, size)
        hasher.update(piece)
        return len(piece)

    try:
        while length := await file.work(step):
            size += length
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
    return size if hasher.hexdigest() == digest.hex else None


def _created(path: Path) -> OpenFile:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    _lock(descriptor, fcntl.LOCK_SH)  # once it is kept, those who follow it are reading it
    return OpenFile(descriptor)


def _abandon(path: Path, file: OpenFile) -> None:
    file.release()
    path.unlink(missing_ok=True)


def _lock(descriptor: int, kind: int) -> bool:
    """Lock a file, or return False where somebody else's lock forbids it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # no locks on this file system: what is deleted while it is read stays readable all the same
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes, and other threads of this one, from making room in *folder* at the same time."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # no locks on this file system: for a moment there may be too much
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _free(folder: Path) -> int:
    """Count the bytes that can still be written to the disk of *folder*."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _delete(path: str) -> bool:
    """Delete a kept blob that nobody is reading. False where that can't be done: others may go."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    try:
        if not _lock(descriptor, fcntl.LOCK_EX):
            return False
        Path(path).unlink(missing_ok=True)
    except PermissionError:
        return False
    finally:
        os.close(descriptor)
    return True
