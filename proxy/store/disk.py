"""Remembering on disk: one file a thing, written whole or not at all.

    <dir>/content/blobs/sha256/<hex>     manifests and configs, laid out as an OCI image layout's blobs
    <dir>/tags/<sha256>.json             entries, named by the hash of URL, repository and tag
    <dir>/locations/<sha256>.json        where a digest of a virtual repository is
    <dir>/learned/<sha256>.json          naming conventions that came true
    <dir>/blobs/<algorithm>/<hex>        layers and other blobs, where they are to be cached (`shelf`)
    <dir>/locks/<number>                 held by the worker whose turn it is to ask (`turns`)
    <dir>/tmp/                           files being written

A file is written under `tmp`, synced and renamed, so that a crash leaves the old one or the new one. Its time of
modification is that of its last use (`history` deletes what has had none for long). A disk that is full or
read-only costs the memory of it, never an answer.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar
from uuid import uuid4

import aiofiles
import aiofiles.os
import structlog

from proxy.merge.entry import Entry
from proxy.merge.rule import Learned
from proxy.oci.reference import Digest, Tag
from proxy.store import codec
from proxy.store.base import Location, Virtual

T = TypeVar("T", Entry, Location, Learned)

_STARTED: Final = uuid4().hex  # tells our scratch files from those of a killed process that had our id
_RETRIES: Final = 2  # of writing a file while somebody else removes folders

_log: Final = structlog.get_logger("store")


class Folder:
    """A cache folder: durable writes, reads that may find nothing, and one warning when it can't be used."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        """Keep below *root*; *clock* has seconds since the epoch."""
        self.root = root
        self._clock = clock
        self._warned = False
        self._write = aiofiles.os.wrap(_write_durably)
        self._date = aiofiles.os.wrap(os.utime)

    def scratch(self) -> Path:
        """Return a new path for a file that this process clears away, or the next one if this one is killed."""
        return self.root / "tmp" / f"{os.getpid()}-{_STARTED}-{uuid4().hex}"

    def lock(self, slot: int) -> Path:
        """Return the path of a lock file."""
        return self.root / "locks" / str(slot)

    def prepare(self) -> None:
        """Make the folder. Raises `OSError`."""
        for name in ("tmp", "locks"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Clear away what killed processes left half written. Call it once, before anything is written."""
        with suppress(OSError):  # a folder that can't be used is told when it is prepared
            for left in (self.root / "tmp").iterdir():
                if not _is_being_written(left):
                    left.unlink(missing_ok=True)  # another process may be faster

    async def read(self, path: str) -> bytes | None:
        """Return the bytes of the file at *path* below the root, or None."""
        try:
            async with aiofiles.open(self.root / path, "rb") as file:
                return await file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.warn("read", error)
            return None

    async def write(self, path: str, data: bytes) -> None:
        """Put *data* at *path* below the root, all of it or nothing."""
        try:
            await self._write(self.scratch(), self.root / path, data, self._clock())
        except OSError as error:
            self.warn("write", error)
        else:
            self._warned = False

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
        """Say that the folder can't be used, once until it can be written to again."""
        if not self._warned:
            _log.warning("cache folder unusable, going on without", doing=doing, dir=str(self.root), error=str(error))
        self._warned = True


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

    They are named after the upstream's URL, not its name in the configuration: what one registry said must
    not answer for another that took its name.
    """

    def __init__(self, folder: Folder, urls: Mapping[str, str]) -> None:
        """Keep below *folder*; *urls* has the URL of every upstream by name."""
        self._folder = folder
        self._urls = urls

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
        """Return where *digest* was last found."""
        return await self._read(self._path("locations", virtual, f"@{digest}"), codec.location)

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
        name = f"{self._urls[virtual.upstream]} {virtual.repository}{suffix}"  # a URL may have a path, but no space
        key = hashlib.sha256(name.encode()).hexdigest()
        return f"{kind}/{key}.json"

    async def _read(self, path: str, read: Callable[[codec.Json], T]) -> T | None:
        data = await self._folder.read(path)
        return None if data is None else codec.decode(read, data)


def _blob(digest: Digest) -> str:
    return f"content/blobs/{digest.algorithm}/{digest.hex}"


def _is_being_written(scratch: Path) -> bool:
    """Whether the process that a scratch file is named after lives."""
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
        return True  # somebody else's, but alive
    return True


def _write_durably(scratch: Path, target: Path, data: bytes, now: float) -> None:
    """Write, sync, rename; make the folders that nobody has made, or that somebody has removed meanwhile.

    Runs in a thread: one hop for all of it.
    """
    for _ in range(_RETRIES):
        try:
            _write(scratch, target, data, now)
        except FileNotFoundError:
            scratch.parent.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
        else:
            return
    _write(scratch, target, data, now)


def _write(scratch: Path, target: Path, data: bytes, now: float) -> None:
    try:
        with scratch.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.utime(file.fileno(), (now, now))
        scratch.replace(target)
    except OSError:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise
