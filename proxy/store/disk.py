"""Remembering on disk: one file a thing, written whole or not at all.

    <dir>/content/blobs/sha256/<hex>     manifests and configs, laid out as an OCI image layout's blobs
    <dir>/tags/<ab>/<sha256>.json        entries, named by the hash of URL, repository and tag
    <dir>/locations/<ab>/<sha256>.json   where a digest of a virtual repository is
    <dir>/learned/<ab>/<sha256>.json     naming conventions that came true
    <dir>/tmp/                           files being written

A file is written under `tmp`, synced and renamed, so that a crash leaves the old one or the new one. A disk that
is full or read-only costs the memory of it, never an answer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, TypeVar
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

_log: Final = structlog.get_logger("store")


class Folder:
    """A cache folder: durable writes, reads that may find nothing, and one warning when it can't be used."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._warned = False
        self._write = aiofiles.os.wrap(_write_durably)

    def prepare(self) -> None:
        """Make the folder and clear away what killed processes left half written. Raises `OSError`."""
        scratch = self.root / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        for left in scratch.iterdir():
            if not _is_being_written(left):
                with suppress(FileNotFoundError):  # another process was faster
                    left.unlink()

    async def read(self, path: str) -> bytes | None:
        """Return the bytes of the file at *path* below the root, or None."""
        try:
            async with aiofiles.open(self.root / path, "rb") as file:
                return await file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("read", error)
            return None

    async def write(self, path: str, data: bytes) -> None:
        """Put *data* at *path* below the root, all of it or nothing."""
        try:
            await self._write(self.root / "tmp" / f"{os.getpid()}-{uuid4().hex}", self.root / path, data)
        except OSError as error:
            self._warn("write", error)
        else:
            self._warned = False

    async def discard(self, path: str) -> None:
        """Remove the file at *path*."""
        with suppress(OSError):
            await aiofiles.os.unlink(self.root / path)

    def _warn(self, doing: str, error: OSError) -> None:
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

    async def learned(self, virtual: Virtual) -> Learned | None:
        """Return which naming convention came true."""
        return await self._read(self._path("learned", virtual), codec.learned)

    async def keep_learned(self, virtual: Virtual, learned: Learned) -> None:
        """Keep which naming convention came true."""
        await self._folder.write(self._path("learned", virtual), codec.encode(learned))

    def _path(self, kind: str, virtual: Virtual, suffix: str = "") -> str:
        """Name a record's file by a hash: names may be too long for a file system, or differ only in case."""
        name = f"{self._urls[virtual.upstream]} {virtual.repository}{suffix}"  # a URL may have a path, but no space
        key = hashlib.sha256(name.encode()).hexdigest()
        return f"{kind}/{key[:2]}/{key}.json"

    async def _read(self, path: str, read: Callable[[codec.Json], T]) -> T | None:
        data = await self._folder.read(path)
        return None if data is None else codec.decode(read, data)


def _blob(digest: Digest) -> str:
    return f"content/blobs/{digest.algorithm}/{digest.hex}"


def _is_being_written(scratch: Path) -> bool:
    """Whether the process that a scratch file is named after lives, and isn't us: we have only begun."""
    owner = scratch.name.partition("-")[0]
    if not (owner.isascii() and owner.isdigit()) or int(owner) == os.getpid():
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's, but alive
    return True


def _write_durably(scratch: Path, target: Path, data: bytes) -> None:
    """Write, sync, rename. Runs in a thread: one hop for all of it."""
    try:
        with _created(scratch) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            scratch.replace(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.replace(target)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def _created(scratch: Path) -> BinaryIO:
    """Open a new file; where somebody emptied the cache folder meanwhile, its folder is made again."""
    try:
        return scratch.open("xb")
    except FileNotFoundError:
        scratch.parent.mkdir(parents=True, exist_ok=True)
        return scratch.open("xb")
