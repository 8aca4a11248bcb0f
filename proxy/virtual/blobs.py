"""Blobs under the virtual name: from the source that owns them, in the way its upstream's `blobs` says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog

from proxy.oci.byterange import Nothing, Part, select
from proxy.oci.content import Blob, Descriptor, Redirect
from proxy.oci.errors import BlobUnknown, NotFound
from proxy.oci.reference import Digest, Repository
from proxy.oci.registry import Registry
from proxy.store.base import Content, Virtual
from proxy.virtual.budget import Budget
from proxy.virtual.modes import Opening
from proxy.virtual.permissions import Permissions
from proxy.virtual.places import Place, Places

_log: Final = structlog.get_logger("blobs")


class Blobs:
    """Blobs of virtual repositories. The source is found first and opened after."""

    def __init__(
        self,
        openings: Mapping[str, Opening],
        places: Places,
        content: Content,
        permissions: Permissions,
        budget: Budget,
        keeping: Collection[str] = (),
    ) -> None:
        """Take what is needed; *budget* is for finding and opening, not for the transfer.

        Args:
            openings: How each upstream's blobs are opened, by its name.
            keeping: The upstreams of which that may be from what is kept, whoever brought it here.
            permissions: Say whether the caller may have it.
        """
        self._openings = openings
        self._places = places
        self._content = content
        self._permissions = permissions
        self._budget = budget
        self._keeping = frozenset(keeping)

    @asynccontextmanager
    async def open(self, virtual: Virtual, digest: Digest, part: Part) -> AsyncIterator[Blob | Redirect]:
        """Open a blob of *virtual*, or say where it is.

        Raises `BlobUnknown`, `RangeInvalid`, `Refused` or `NoAnswer` on entering.
        """
        async with AsyncExitStack() as stack:
            opening = self._opened(stack, virtual, digest, part)
            yield await self._budget.spend(opening, f"the blob {digest} of {virtual.repository}")

    async def _opened(self, stack: AsyncExitStack, virtual: Virtual, digest: Digest, part: Part) -> Blob | Redirect:
        place = await self._places.blob(virtual, digest)
        if place is not None:
            try:
                await self._permissions.blob(place, digest)
                # An image config that a merge has read. Only what this repository is known to have comes from here.
                kept = await self._content.get(digest)
                if kept is not None or place[0] in self._keeping:
                    await self._permissions.kept_blob(place, digest)
                if kept is not None:
                    return _kept(digest, kept, part)
                return await stack.enter_async_context(self._openings[place[0]](place[1], digest, part))
            except NotFound:
                _log.info("blob moved", image=str(virtual), digest=digest, was_in=str(place[1]))
        place = await self._search(virtual, digest)
        return await stack.enter_async_context(self._openings[place[0]](place[1], digest, part))

    async def _search(self, virtual: Virtual, digest: Digest) -> Place:
        async def look(registry: Registry, repository: Repository) -> Descriptor:
            async with registry.blob(repository, digest, Nothing()) as blob:
                size = blob.size if isinstance(blob, Blob) else None
            return Descriptor(media_type="application/octet-stream", digest=digest, size=size or 0)

        missing = BlobUnknown(f"no source of {virtual.repository} has the blob {digest}")
        sighting = await self._places.search(virtual, look, missing)
        await self._places.keep_blobs(virtual, [digest], sighting.place)
        return sighting.place


def _kept(digest: Digest, data: bytes, part: Part) -> Blob:
    """Serve a blob from memory."""
    wanted = select(part, len(data))
    piece = data if wanted is None else data[wanted.first : wanted.last + 1]
    return Blob(digest=digest, size=len(data), part=wanted, chunks=_once(b"" if isinstance(part, Nothing) else piece))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
