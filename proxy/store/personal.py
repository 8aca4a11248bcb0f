"""Metadata of a caller of their own, in front of what all share."""

from __future__ import annotations

from dataclasses import replace

from proxy.merge.entry import Entry
from proxy.merge.rule import Learned
from proxy.oci.reference import Digest, Tag
from proxy.store.base import Location, Metadata, Virtual


class PersonalMetadata:
    """What tags stand for and which names exist is *own*, as upstreams said it to one caller; the rest is *shared*.

    Where a digest was seen is no secret that a proof of the right to read there wouldn't guard, and has to outlast
    a restart: an index of ours is nowhere else. It also outlasts the mode of access: who is asked for no proof then
    learns nothing of it, so it is marked.
    """

    def __init__(self, own: Metadata, shared: Metadata) -> None:
        self._own = own
        self._shared = shared

    async def entry(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the last good generation of a tag, as this caller saw it."""
        return await self._own.entry(virtual, tag)

    async def reread(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the same: no other process knows this caller's."""
        return await self._own.reread(virtual, tag)

    async def settle(self, virtual: Virtual, tag: Tag) -> None:
        """Wait for nothing: no other process reads this caller's."""

    async def keep_entry(self, virtual: Virtual, tag: Tag, entry: Entry) -> None:
        """Keep *entry* for this caller."""
        await self._own.keep_entry(virtual, tag, entry)

    async def drop_entry(self, virtual: Virtual, tag: Tag) -> None:
        """Forget what a tag stood for."""
        await self._own.drop_entry(virtual, tag)

    async def location(self, virtual: Virtual, digest: Digest) -> Location | None:
        """Return where a manifest's digest was last found, by whomever."""
        found = await self._shared.location(virtual, digest)
        return None if found is None else replace(found, personal=False)

    async def keep_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is. It lasts when this returns."""
        await self._shared.keep_location(virtual, digest, replace(location, personal=True))

    async def remember_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is, which could be found again."""
        await self._shared.remember_location(virtual, digest, replace(location, personal=True))

    async def drop_location(self, virtual: Virtual, digest: Digest) -> None:
        """Forget where *digest* is."""
        await self._shared.drop_location(virtual, digest)

    async def learned(self, virtual: Virtual) -> Learned | None:
        """Return which naming convention came true for this caller."""
        return await self._own.learned(virtual)

    async def keep_learned(self, virtual: Virtual, learned: Learned) -> None:
        """Keep which naming convention came true."""
        await self._own.keep_learned(virtual, learned)

    async def touch(self, virtual: Virtual, name: Tag | Digest | None = None) -> bool:
        """Note a use."""
        store = self._shared if isinstance(name, Digest) else self._own
        return await store.touch(virtual, name)
