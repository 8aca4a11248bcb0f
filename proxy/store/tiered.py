"""A small fast store in front of a large slow one."""

from __future__ import annotations

import asyncio

from proxy.merge.entry import Entry
from proxy.merge.rule import Learned
from proxy.oci.reference import Digest, Tag
from proxy.store.base import Content, Location, Metadata, Virtual


class TieredContent:
    """Content from *fast*, else from *slow*; written to both, and to *slow* first: it is the one that lasts."""

    def __init__(self, fast: Content, slow: Content) -> None:
        self._fast = fast
        self._slow = slow
        self._behind: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until what is being written behind is written."""
        await asyncio.gather(*self._behind)

    async def get(self, digest: Digest) -> bytes | None:
        """Return the bytes of *digest*."""
        data = await self._fast.get(digest)
        if data is None and (data := await self._slow.get(digest)) is not None:
            await self._fast.put(digest, data)
        return data

    async def put(self, digest: Digest, data: bytes) -> None:
        """Keep *data*."""
        await self._slow.put(digest, data)
        await self._fast.put(digest, data)

    async def remember(self, digest: Digest, data: bytes) -> None:
        """Keep *data* in *fast* now and in *slow* behind: nobody waits for a disk for what can be fetched again."""
        await self._fast.remember(digest, data)
        task = asyncio.create_task(self._slow.remember(digest, data))
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)


class TieredMetadata:
    """Metadata from *fast*, else from *slow*; written to both."""

    def __init__(self, fast: Metadata, slow: Metadata) -> None:
        self._fast = fast
        self._slow = slow

    async def entry(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the last good generation of a tag."""
        found = await self._fast.entry(virtual, tag)
        if found is None and (found := await self._slow.entry(virtual, tag)) is not None:
            await self._fast.keep_entry(virtual, tag, found)
        return found

    async def keep_entry(self, virtual: Virtual, tag: Tag, entry: Entry) -> None:
        """Keep *entry*."""
        await self._slow.keep_entry(virtual, tag, entry)
        await self._fast.keep_entry(virtual, tag, entry)

    async def drop_entry(self, virtual: Virtual, tag: Tag) -> None:
        """Forget what a tag stood for."""
        await self._slow.drop_entry(virtual, tag)
        await self._fast.drop_entry(virtual, tag)

    async def location(self, virtual: Virtual, digest: Digest) -> Location | None:
        """Return where *digest* was last found."""
        found = await self._fast.location(virtual, digest)
        if found is None and (found := await self._slow.location(virtual, digest)) is not None:
            await self._fast.keep_location(virtual, digest, found)
        return found

    async def keep_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is."""
        await self._slow.keep_location(virtual, digest, location)
        await self._fast.keep_location(virtual, digest, location)

    async def learned(self, virtual: Virtual) -> Learned | None:
        """Return which naming convention came true."""
        found = await self._fast.learned(virtual)
        if found is None and (found := await self._slow.learned(virtual)) is not None:
            await self._fast.keep_learned(virtual, found)
        return found

    async def keep_learned(self, virtual: Virtual, learned: Learned) -> None:
        """Keep which naming convention came true."""
        await self._slow.keep_learned(virtual, learned)
        await self._fast.keep_learned(virtual, learned)
