"""What was advertised stays pullable: kept before it is told, and kept alive by every use (law 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import structlog

from proxy.merge.entry import Entry
from proxy.merge.index import render
from proxy.oci.content import Descriptor, Manifest
from proxy.oci.document import Index, parse
from proxy.oci.mediatype import INDEXES
from proxy.oci.reference import Digest, Tag
from proxy.store.base import Content, Metadata, Virtual
from proxy.virtual.places import Place, Places
from proxy.virtual.recent import Recent
from proxy.virtual.together import together

_MOST: Final = 20_000  # generations whose use is remembered; one that was forgotten is passed on again

_log: Final = structlog.get_logger("merge")


class History:
    """Generations: an index, the manifests it names, and where they are.

    A store forgets what isn't used. A client that asks for nothing but a tag, or for nothing but an index it
    already has, still uses the children: the next machine that starts will ask for them. So the use of one is
    passed on to all, now and then.
    """

    def __init__(
        self,
        *,
        metadata: Metadata,
        content: Content,
        places: Places,
        clock: Callable[[], float],
        noting: float,
    ) -> None:
        """Take what is needed.

        Args:
            clock: Seconds since the epoch.
            noting: Seconds within which a use isn't passed on again.
        """
        self._metadata = metadata
        self._content = content
        self._places = places
        self._clock = clock
        self._noting = noting
        self._used: Recent[tuple[Virtual, Digest], bool] = Recent(_MOST)

    async def publish(self, virtual: Virtual, tag: Tag, entry: Entry, body: bytes | None) -> None:
        """Keep content and locations, then the tag: whoever is told its digest can fetch what it stands for.

        An index of our own lasts when this returns; everything else could be had again, and lasts a moment later.
        """
        await self._keep_locations(virtual, entry)
        if body is not None:
            await self._content.remember(entry.descriptor.digest, body)
            await self._places.keep_index(virtual, entry.descriptor, body)
        await self._metadata.keep_entry(virtual, tag, entry)

    async def used_tag(self, virtual: Virtual, entry: Entry) -> bool:
        """A tag was asked for that stands for *entry*: its index, children and locations are used, too.

        Returns False where the index is lost for good, so that nobody may be told its digest any more.
        """
        digest = entry.descriptor.digest
        if not self._is_due(virtual, digest):
            return True
        if entry.merged and not await self._use_index(virtual, entry):
            self._used.drop((virtual, digest))
            return False
        await self._keep_locations(virtual, entry)
        await together(self._content.touch(descriptor.digest) for descriptor, _ in _locations(entry))
        return True

    async def used_digest(self, virtual: Virtual, manifest: Manifest) -> None:
        """A manifest was asked for by digest: if it is an index, its children and their locations are used, too."""
        if manifest.descriptor.media_type not in INDEXES or not self._is_due(virtual, manifest.descriptor.digest):
            return
        document = parse(manifest.body, manifest.descriptor.media_type)
        children = document.manifests if isinstance(document, Index) else ()
        await together(self._use(virtual, child.digest) for child in children)

    async def restore(self, entry: Entry) -> bytes | None:
        """Write an index again that content has lost: it is a function of its children (law 2)."""
        again = render([child for part in entry.parts for child in part.children])
        if again.descriptor.digest != entry.descriptor.digest:
            return None
        _log.warning("index written again", digest=again.descriptor.digest)
        await self._content.put(again.descriptor.digest, again.body)
        return again.body

    async def _use_index(self, virtual: Virtual, entry: Entry) -> bool:
        """Note a use of an index of our own, and write what was lost of it again; False where that can't be done."""
        digest = entry.descriptor.digest
        kept = await self._content.touch(digest)
        location = await self._places.known(virtual, digest)
        if kept and location is not None and not location.upstream:
            return True
        body = (await self._content.get(digest) if kept else None) or await self.restore(entry)
        if body is not None:
            await self._places.keep_index(virtual, entry.descriptor, body)
        return body is not None

    async def _keep_locations(self, virtual: Virtual, entry: Entry) -> None:
        for descriptor, place in _locations(entry):
            await self._places.keep_manifest(virtual, descriptor, place)

    async def _use(self, virtual: Virtual, digest: Digest) -> None:
        await self._places.known(virtual, digest)
        await self._content.touch(digest)

    def _is_due(self, virtual: Virtual, digest: Digest) -> bool:
        now = self._clock()
        due = self._used.get((virtual, digest), now) is None
        if due:
            self._used.put((virtual, digest), value=True, until=now + self._noting, since=now)
        return due


def _locations(entry: Entry) -> Iterable[tuple[Descriptor, Place]]:
    """Return where each manifest of *entry* is to be fetched from; an index of our own isn't."""
    if not entry.merged:
        part = entry.parts[0]
        return [(entry.descriptor, (part.upstream, part.repository))]
    return [(child, (part.upstream, part.repository)) for part in entry.parts for child in part.children]
