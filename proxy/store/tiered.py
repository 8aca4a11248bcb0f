"""A small fast store in front of a large slow one."""

from __future__ import annotations

from proxy.merge.entry import Entry
from proxy.merge.rule import Learned
from proxy.oci.reference import Digest, Tag
from proxy.store.base import Content, Location, Metadata, Virtual
from proxy.store.behind import Behind
from proxy.store.history import Uses


class TieredContent:
    """Content from *fast*, else from *slow*; written to both, and to *slow* first: it is the one that lasts.

    What *fast* answers for weeks *slow* has to hear of, too, or it would forget it: now and then, as *uses* says.
    """

    def __init__(self, fast: Content, slow: Content, uses: Uses, behind: Behind) -> None:
        self._fast = fast
        self._slow = slow
        self._uses = uses
        self._behind = behind

    async def get(self, digest: Digest) -> bytes | None:
        """Return the bytes of *digest*."""
        data = await self._fast.get(digest)
        if data is None:
            await self._behind.settle(digest)
            data = await self._slow.get(digest)
            if data is not None:
                await self._fast.put(digest, data)
        if data is not None:
            await self.touch(digest)
        return data

    async def put(self, digest: Digest, data: bytes) -> None:
        """Keep *data*."""
        await self._slow.put(digest, data)
        await self._fast.put(digest, data)

    async def remember(self, digest: Digest, data: bytes) -> None:
        """Keep *data* in *fast* now and in *slow* behind: nobody waits for a disk for what can be fetched again."""
        await self._fast.remember(digest, data)
        await self._behind.add(digest, lambda: self._slow.remember(digest, data))

    async def touch(self, digest: Digest) -> bool:
        """Note a use of *digest*, and write again what *slow* has lost: not what it is just about to get."""
        if digest in self._behind or not self._uses.due(digest):
            return True
        kept = await self._slow.touch(digest)
        if not kept and (data := await self._fast.get(digest)) is not None:
            await self._slow.put(digest, data)
            kept = True
        if kept:
            self._uses.note(digest)
        return kept


class TieredMetadata:
    """Metadata from *fast*, else from *slow*; written to both. *slow* hears of uses as content's does.

    Nobody waits for the disk but for a location that can't be found again. A tag's entry that is lost with the
    process costs a question.
    """

    def __init__(self, fast: Metadata, slow: Metadata, uses: Uses, behind: Behind) -> None:
        self._fast = fast
        self._slow = slow
        self._uses = uses
        self._behind = behind

    async def entry(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the last good generation of a tag."""
        found = await self._fast.entry(virtual, tag)
        if found is None:
            await self._behind.settle((virtual, tag))
            found = await self._slow.entry(virtual, tag)
            if found is not None:
                await self._fast.keep_entry(virtual, tag, found)
        if found is not None:
            await self.touch(virtual, tag)
        return found

    async def reread(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the last good generation of a tag, as *slow* has it."""
        await self._behind.settle((virtual, tag))
        found = await self._slow.entry(virtual, tag)
        if found is not None:
            await self._fast.keep_entry(virtual, tag, found)
        return found

    async def settle(self, virtual: Virtual, tag: Tag) -> None:
        """Wait until what was kept of a tag is in *slow*."""
        await self._behind.settle((virtual, tag))

    async def keep_entry(self, virtual: Virtual, tag: Tag, entry: Entry) -> None:
        """Keep *entry*."""
        await self._fast.keep_entry(virtual, tag, entry)
        await self._behind.add((virtual, tag), lambda: self._slow.keep_entry(virtual, tag, entry))

    async def drop_entry(self, virtual: Virtual, tag: Tag) -> None:
        """Forget what a tag stood for."""
        await self._behind.add((virtual, tag), lambda: self._slow.drop_entry(virtual, tag))
        await self._behind.settle((virtual, tag))
        await self._fast.drop_entry(virtual, tag)

    async def location(self, virtual: Virtual, digest: Digest) -> Location | None:
        """Return where *digest* was last found."""
        found = await self._fast.location(virtual, digest)
        if found is None:
            await self._behind.settle((virtual, digest))
            found = await self._slow.location(virtual, digest)
            if found is not None:
                await self._fast.keep_location(virtual, digest, found)
        if found is not None:
            await self.touch(virtual, digest)
        return found

    async def keep_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is."""
        await self._slow.keep_location(virtual, digest, location)
        await self._fast.keep_location(virtual, digest, location)

    async def remember_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is, on disk behind."""
        await self._fast.remember_location(virtual, digest, location)
        await self._behind.add((virtual, digest), lambda: self._slow.remember_location(virtual, digest, location))

    async def drop_location(self, virtual: Virtual, digest: Digest) -> None:
        """Forget where *digest* is."""
        await self._behind.add((virtual, digest), lambda: self._slow.drop_location(virtual, digest))
        await self._behind.settle((virtual, digest))
        await self._fast.drop_location(virtual, digest)

    async def learned(self, virtual: Virtual) -> Learned | None:
        """Return which naming convention came true."""
        found = await self._fast.learned(virtual)
        if found is None:
            await self._behind.settle(virtual)
            found = await self._slow.learned(virtual)
            if found is not None:
                await self._fast.keep_learned(virtual, found)
        if found is not None:
            await self.touch(virtual)
        return found

    async def keep_learned(self, virtual: Virtual, learned: Learned) -> None:
        """Keep which naming convention came true."""
        await self._fast.keep_learned(virtual, learned)
        await self._behind.add(virtual, lambda: self._slow.keep_learned(virtual, learned))

    async def touch(self, virtual: Virtual, name: Tag | Digest | None = None) -> bool:
        """Note a use, and write again a location that *slow* has lost: it belongs to what was advertised."""
        if (virtual if name is None else (virtual, name)) in self._behind or not self._uses.due((virtual, name)):
            return True
        kept = await self._slow.touch(virtual, name)
        if not kept and isinstance(name, Digest) and (found := await self._fast.location(virtual, name)) is not None:
            await self._slow.keep_location(virtual, name, found)
            kept = True
        if kept:
            self._uses.note((virtual, name))
        return kept
