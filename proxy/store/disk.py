"""Remembering on disk: one file a thing, written whole or not at all.

    <dir>/content/blobs/sha256/<hex>     manifests and configs, laid out as an OCI image layout's blobs
    <dir>/tags/<sha256>.json             entries, named by the hash of URL, repository and tag
    <dir>/locations/<sha256>.json        where a digest of a virtual repository is; an index of our own is in it
    <dir>/learned/<sha256>.json          naming conventions that came true
    <dir>/blobs/<algorithm>/<hex>        layers and other blobs, where they are to be cached (`shelf`)
    <dir>/locks/turns                    empty; a worker locks a byte of it while it is its turn to ask (`turns`)
    <dir>/tmp/                           files being written

A file is written under `tmp`, synced and renamed, so that a crash leaves the old one or the new one. Files that are
written at the same time are synced together, which is cheaper than one by one. A file's time of modification is that
of its last use (`history` deletes what has had none for long). A disk that is full or read-only costs the memory of
it, never an answer.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from uuid import uuid4

import aiofiles.os
import structlog

from proxy.merge.entry import Entry
from proxy.merge.rule import Learned
from proxy.oci.errors import Unreadable
from proxy.oci.reference import Digest, Tag
from proxy.store import codec
from proxy.store.base import Location, Virtual
from proxy.store.trouble import Trouble

R = TypeVar("R")
T = TypeVar("T", Entry, Location, Learned)

_STARTED: Final = uuid4().hex  # tells our scratch files from those of a killed process that had our id
_LONGEST: Final = 3600.0  # seconds; a scratch file that wasn't written to for so long never will be
_RETRIES: Final = 2  # of writing a file while somebody else removes folders

_log: Final = structlog.get_logger("store")


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """A file to be written: *data* into *scratch*, which becomes *target*, dated *now*, all of it below *root*."""

    root: Path
    scratch: Path
    target: Path
    data: bytes
    now: float


class Folder:
    """A cache folder: whole writes, reads that may find nothing, and one warning when it can't be used."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        """Keep below *root*; *clock* has seconds since the epoch."""
        self.root = root
        self._clock = clock
        self._trouble = Trouble(clock)
        self._abandoned = threading.Event()
        self._group: list[_File] = []
        self._writing: asyncio.Task[dict[_File, OSError | None]]
        self._read = aiofiles.os.wrap(_read_whole)
        self._write = aiofiles.os.wrap(_write_files)
        self._date = aiofiles.os.wrap(os.utime)

    def scratch(self) -> Path:
        """Return a new path for a file that this process clears away, or the next one if this one is killed."""
        return self.root / "tmp" / f"{os.getpid()}-{_STARTED}-{uuid4().hex}"

    @property
    def turns(self) -> Path:
        """The path of the file that is locked."""
        return self.root / "locks" / "turns"

    def prepare(self) -> None:
        """Make the folder, and what has to be in it. Raises `OSError`."""
        for name in ("tmp", "locks"):
            make(self.root, self.root / name)

    def sweep(self) -> None:
        """Clear away what killed processes left half written. Call it once, before anything is written."""
        with suppress(OSError):  # a folder that can't be used is told when it is prepared
            for left in (self.root / "tmp").iterdir():
                with suppress(OSError):  # another process may be faster
                    if not _is_being_written(left, self._clock()):
                        left.unlink()

    async def read(self, path: str) -> bytes | None:
        """Return the bytes of the file at *path* below the root, or None where they can't be had."""
        try:
            return await self.demand(path)
        except Unreadable:
            return None

    async def demand(self, path: str) -> bytes | None:
        """Return the bytes of the file at *path* below the root, or None where it isn't there. Raises `Unreadable`."""
        try:
            return await self._read(self.root / path)
        except OSError as error:
            self.warn("read", error)
            raise Unreadable(f"the cache folder can't be read: {error.strerror}") from None

    async def write(self, path: str, data: bytes) -> None:
        """Put *data* at *path* below the root, all of it or nothing.

        Files whose writing begins in the same turn of the loop are one group, and get their names in that order.
        """
        file = _File(self.root, self.scratch(), self.root / path, data, self._clock())
        if not self._group:
            self._writing = asyncio.create_task(self._write_group())
        self._group.append(file)
        error = (await asyncio.shield(self._writing))[file]
        if error is None:
            self._trouble.may_end()
        elif not self._abandoned.is_set():
            self.warn("write", error)

    async def _write_group(self) -> dict[_File, OSError | None]:
        group, self._group = self._group, []
        return await self._write(group, self._abandoned)

    def abandon(self) -> None:
        """Write nothing more: whoever is at it ends behind the present step."""
        self._abandoned.set()

    async def touch(self, path: str) -> bool:
        """Date the file at *path* now. False where it is gone or somebody else's: it has to be written again."""
        now = self._clock()
        try:
            await self._date(self.root / path, (now, now))
        except (FileNotFoundError, PermissionError):
            return False
        except OSError as error:
            self.warn("touch", error)
        return True

    async def discard(self, path: str) -> None:
        """Remove the file at *path*."""
        with suppress(OSError):
            await aiofiles.os.unlink(self.root / path)

    def warn(self, doing: str, error: OSError) -> None:
        """Say that the folder can't be used, once until it was written to without trouble for a while."""
        if self._trouble.begins():
            _log.warning("cache folder unusable, going on without", doing=doing, dir=str(self.root), error=str(error))


def make(root: Path, folder: Path) -> None:
    """Make *folder* below *root*, which is its owner's alone where it has to be made, too. Raises `OSError`.

    Not everybody on the machine may read what is in it, whoever has cleared it away meanwhile.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


class DiskContent:
    """Content as files named by their digest."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    async def get(self, digest: Digest) -> bytes | None:
        """Return the bytes of *digest*. A file that doesn't hash to its name is removed and counts as absent."""
        data = await self._folder.read(_blob(digest))
        if data is None or digest.matches(data):
            return data
        _log.warning("corrupt file discarded", digest=digest, size=len(data))
        await self._folder.discard(_blob(digest))
        return None

    async def put(self, digest: Digest, data: bytes) -> None:
        """Keep *data*."""
        await self._folder.write(_blob(digest), data)

    async def remember(self, digest: Digest, data: bytes) -> None:
        """Keep *data*."""
        await self.put(digest, data)

    async def touch(self, digest: Digest) -> bool:
        """Note a use of *digest*."""
        return await self._folder.touch(_blob(digest))


class DiskMetadata:
    """Metadata as small JSON files.

    They are named after the upstream's URL, not its name in the configuration alone: what one registry said must
    not answer for another that took its name.
    """

    def __init__(self, folder: Folder, registries: Mapping[str, str]) -> None:
        """Keep below *folder*; *registries* has the URL of every upstream by name, and what else tells it apart."""
        self._folder = folder
        self._registries = registries

    async def entry(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the last good generation of a tag."""
        return await self._read(self._path("tags", virtual, f":{tag}"), codec.entry)

    async def reread(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the last good generation of a tag."""
        return await self.entry(virtual, tag)

    async def settle(self, virtual: Virtual, tag: Tag) -> None:
        """What was kept is there."""

    async def keep_entry(self, virtual: Virtual, tag: Tag, entry: Entry) -> None:
        """Keep *entry*."""
        await self._folder.write(self._path("tags", virtual, f":{tag}"), codec.encode(entry))

    async def drop_entry(self, virtual: Virtual, tag: Tag) -> None:
        """Forget what a tag stood for."""
        await self._folder.discard(self._path("tags", virtual, f":{tag}"))

    async def location(self, virtual: Virtual, digest: Digest) -> Location | None:
        """Return where *digest* was last found. An index that doesn't hash to its digest counts as not kept.

        Raises `Unreadable`.
        """
        data = await self._folder.demand(self._path("locations", virtual, f"@{digest}"))
        found = None if data is None else codec.decode(codec.location, data)
        return None if found is not None and found.body and not digest.matches(found.body) else found

    async def keep_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is."""
        await self._folder.write(self._path("locations", virtual, f"@{digest}"), codec.encode(location))

    async def remember_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is."""
        await self.keep_location(virtual, digest, location)

    async def drop_location(self, virtual: Virtual, digest: Digest) -> None:
        """Forget where *digest* is."""
        await self._folder.discard(self._path("locations", virtual, f"@{digest}"))

    async def learned(self, virtual: Virtual) -> Learned | None:
        """Return which naming convention came true."""
        return await self._read(self._path("learned", virtual), codec.learned)

    async def keep_learned(self, virtual: Virtual, learned: Learned) -> None:
        """Keep which naming convention came true."""
        await self._folder.write(self._path("learned", virtual), codec.encode(learned))

    async def touch(self, virtual: Virtual, name: Tag | Digest | None = None) -> bool:
        """Note a use."""
        match name:
            case Tag():
                path = self._path("tags", virtual, f":{name}")
            case Digest():
                path = self._path("locations", virtual, f"@{name}")
            case None:
                path = self._path("learned", virtual)
        return await self._folder.touch(path)

    def _path(self, kind: str, virtual: Virtual, suffix: str = "") -> str:
        """Name a record's file by a hash: names may be too long for a file system, or differ only in case."""
        # A URL may have a path, but no space.
        name = f"{self._registries[virtual.upstream]} {virtual.repository}{suffix}"
        key = hashlib.sha256(name.encode()).hexdigest()
        return f"{kind}/{key}.json"

    async def _read(self, path: str, read: Callable[[codec.Json], T]) -> T | None:
        data = await self._folder.read(path)
        return None if data is None else codec.decode(read, data)


def _blob(digest: Digest) -> str:
    return f"content/blobs/{digest.algorithm}/{digest.hex}"


def _is_being_written(scratch: Path, now: float) -> bool:
    """Whether somebody fills a scratch file, or the process that it is named after lives and may be writing it."""
    if _is_locked(scratch):
        return True
    owner, _, rest = scratch.name.partition("-")
    if not (owner.isascii() and owner.isdigit()):
        return False
    if int(owner) == os.getpid():
        return rest.startswith(_STARTED)
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's, but alive
    return now - scratch.stat().st_mtime < _LONGEST  # its number may be another's by now


def _is_locked(path: Path) -> bool:
    """Whether a process has locked the file, whose number may be known in another container alone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no locks on this file system
    finally:
        os.close(descriptor)
    return False


def _read_whole(path: Path) -> bytes | None:
    """Return what is at *path*. Runs in a thread: one hop, where opening, reading and closing would be three."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write_files(files: Sequence[_File], abandoned: threading.Event) -> dict[_File, OSError | None]:
    """Write all *files* unless *abandoned*, and say what went wrong with each. Runs in a thread: one hop for all.

    Somebody may be removing folders meanwhile; then what is missing is made, and what failed is begun again.
    """
    errors = _attempt(files, abandoned)
    for _ in range(_RETRIES):
        again = [file for file in files if isinstance(errors[file], FileNotFoundError)]
        if not again:
            break
        errors |= _attempt(again, abandoned)
    return errors


def _attempt(files: Sequence[_File], abandoned: threading.Event) -> dict[_File, OSError | None]:
    """Take each step of all *files* before the next one, so that syncing the first has little left for the others."""
    errors = dict[_File, OSError | None].fromkeys(files)
    going = {file: _steps(file) for file in files}
    while going:
        for file, steps in list(going.items()):
            try:
                _go_on(steps, abandoned)
            except StopIteration:
                del going[file]
            except OSError as error:
                errors[file] = error
                del going[file]
    return errors


def _go_on(steps: Generator[None, None, None], abandoned: threading.Event) -> None:
    """Take the next of *steps*, or break them off."""
    if abandoned.is_set():
        steps.throw(OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))
    next(steps)


def _steps(file: _File) -> Generator[None, None, None]:
    """Write *file*, sync it, rename it. Raises `OSError`, and leaves nothing behind then."""
    try:
        with _made(file.root, file.scratch, lambda: file.scratch.open("xb")) as scratch:
            scratch.write(file.data)
            scratch.flush()
            yield
            os.fsync(scratch.fileno())
            os.utime(scratch.fileno(), (file.now, file.now))
        yield
        _made(file.root, file.target, lambda: file.scratch.replace(file.target))
    except OSError:
        with suppress(OSError):
            file.scratch.unlink(missing_ok=True)
        raise


def _made(root: Path, path: Path, action: Callable[[], R]) -> R:
    """Return what *action* does with *path* below *root*; the folder that it is in is made where it is missing."""
    try:
        return action()
    except FileNotFoundError:
        make(root, path.parent)
        return action()
