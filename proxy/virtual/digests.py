"""What a digest of a virtual repository stands for: kept, or fetched from the source that has it (law 8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
from prometheus_client import Counter

from proxy.oci.content import CacheResult, Delivery, Descriptor, Manifest
from proxy.oci.document import Artifact, Image, Index, parse
from proxy.oci.errors import ManifestUnknown, NotFound, Refused, Unreadable
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, Repository
from proxy.oci.registry import Bringing, Registry
from proxy.store.base import Content, Location, Virtual
from proxy.virtual.budget import Budget, Left
from proxy.virtual.flight import Flights
from proxy.virtual.history import History
from proxy.virtual.leases import Leases
from proxy.virtual.permissions import Permissions
from proxy.virtual.places import Place, Places

_log: Final = structlog.get_logger("merge")


class Digests:
    """Manifests by digest. What is fetched is remembered, with what it names."""

    def __init__(
        self,
        *,
        upstreams: Mapping[str, Bringing],
        content: Content,
        places: Places,
        history: History,
        leases: Leases,
        permissions: Permissions,
        budget: Budget,
        clock: Callable[[], float],
        coalesced: Counter,
    ) -> None:
        """Take what is needed; *clock* has seconds since the epoch."""
        self._upstreams = upstreams
        self._content = content
        self._places = places
        self._history = history
        self._leases = leases
        self._permissions = permissions
        self._budget = budget
        self._clock = clock
        self._fetches: Flights[tuple[Virtual, Digest], Manifest] = Flights(coalesced)

    async def close(self) -> None:
        """Stop asking."""
        await self._fetches.close()

    async def manifest(self, virtual: Virtual, digest: Digest, left: Left | None = None) -> Manifest:
        """Return a manifest by digest, from where it was seen or from any source of *virtual* (law 8).

        Args:
            left: The time that there is, where the request has waited for something else before.
        """
        lease, left = self._leases.open(virtual, digest), left or self._budget.begin()
        try:
            location = await self._places.manifest(virtual, digest)
        except Unreadable as trouble:
            return await self._searched(virtual, digest, trouble, left)
        body = await self._kept(digest, location) if location else None
        if location is not None and body is not None:
            manifest = Manifest(Descriptor(media_type=location.media_type, digest=digest, size=len(body)), body)
            asking = self._permitted(virtual, location, manifest)
            there, until = await left.spend(asking, f"{virtual.repository}@{digest}")
            await self._learn_blobs(virtual, (there.upstream, there.repository), manifest)
            await self._history.used_digest(virtual, manifest)
            self._leases.grant(lease, self._clock(), since=None, until=until)
            return replace(manifest, delivery=Delivery(CacheResult.HIT, lease=lease))
        return await self._fetched(virtual, digest, location, left)

    async def _searched(self, virtual: Virtual, digest: Digest, trouble: Unreadable, left: Left) -> Manifest:
        """Return what a source has. *trouble* hides whether it is an index of our own: no source's no counts then."""
        try:
            return await self._fetched(virtual, digest, None, left)
        except (NotFound, Refused):
            raise trouble from None

    async def _fetched(self, virtual: Virtual, digest: Digest, location: Location | None, left: Left) -> Manifest:
        fetch = self._fetches.join((virtual, digest), lambda: self._fetch(virtual, digest, location))
        return await left.spend(fetch, f"{virtual.repository}@{digest}")

    async def _permitted(self, virtual: Virtual, location: Location, manifest: Manifest) -> tuple[Location, float]:
        """Return where *manifest* is for the caller, and until when they may read it there."""
        try:
            return location, await self._permissions.manifest(partial(self._where, virtual, location, manifest))
        except (NotFound, Refused) as no:
            theirs = await self._theirs(virtual, location, manifest.descriptor.digest, no)
            return theirs, await self._permitted_anew(virtual, theirs, manifest, no)

    async def _permitted_anew(
        self, virtual: Virtual, location: Location, manifest: Manifest, no: NotFound | Refused
    ) -> float:
        """Return until when the caller may read *manifest* where it is for them. Raises *no* where they may not."""
        try:
            return await self._permissions.manifest(partial(self._where, virtual, location, manifest, anew=True))
        except (NotFound, Refused):
            raise no from None

    async def _where(
        self, virtual: Virtual, location: Location, manifest: Manifest, *, anew: bool = False
    ) -> list[tuple[Place, Digest]]:
        """Return whose manifest this is: of an index of our own, whose are all that it names.

        Args:
            anew: Whether its children are to be looked for, whatever others have found: one after the other, so that
                the first that isn't there for this caller ends it.
        """
        if location.upstream:
            return [((location.upstream, location.repository), manifest.descriptor.digest)]
        document = parse(manifest.body, manifest.descriptor.media_type)
        children = [child.digest for child in document.manifests] if isinstance(document, Index) else []
        find = self._search if anew else self._owner
        return [(await find(virtual, child), child) for child in children]

    async def _theirs(self, virtual: Virtual, location: Location, digest: Digest, no: NotFound | Refused) -> Location:
        """Return where else a manifest is that somebody else has seen where this caller may not read.

        An index of our own is nowhere else, though its children may be. Raises *no* where it is nowhere else for them.
        """
        if not location.upstream:
            return location
        try:
            place = await self._search(virtual, digest)
        except (NotFound, Refused):
            raise no from None
        if place == (location.upstream, location.repository):
            raise no
        return Location(*place, location.media_type)

    async def _owner(self, virtual: Virtual, digest: Digest) -> Place:
        location = await self._places.known(virtual, digest)
        if location is not None and location.upstream:
            return (location.upstream, location.repository)
        return await self._search(virtual, digest)

    async def _kept(self, digest: Digest, location: Location) -> bytes | None:
        """Return the bytes that are kept of *digest*; of an index of our own its location may be all there is."""
        body = await self._content.get(digest)
        if body is None and location.body:
            body = location.body
            await self._content.remember(digest, body)
        return body

    async def _fetch(self, virtual: Virtual, digest: Digest, location: Location | None) -> Manifest:
        """Fetch a manifest from where it was last found, else from wherever it is."""
        if location is not None and location.upstream:
            try:
                return await self._take(virtual, (location.upstream, location.repository), digest)
            except Refused as no:
                theirs = await self._theirs(virtual, location, digest, no)
                return await self._take(virtual, (theirs.upstream, theirs.repository), digest)
            except NotFound:
                _log.info("manifest moved", image=str(virtual), digest=digest, was_in=str(location.repository))
        return await self._take(virtual, await self._search(virtual, digest), digest)

    async def learn(self, virtual: Virtual, place: Place, manifest: Manifest) -> None:
        """Remember a manifest that was pushed to *place*, which nobody has to fetch to know it."""
        await self._content.remember(manifest.descriptor.digest, manifest.body)
        await self._places.keep_manifest(virtual, manifest.descriptor, place)
        await self._learn_blobs(virtual, place, manifest)

    async def _search(self, virtual: Virtual, digest: Digest) -> Place:
        async def look(registry: Registry, repository: Repository) -> Descriptor:
            return (await registry.resolve(repository, digest, ANYTHING)).descriptor

        missing = ManifestUnknown(f"no source of {virtual.repository} has the manifest {digest}")
        return (await self._places.search(virtual, look, missing)).place

    async def _take(self, virtual: Virtual, place: Place, digest: Digest) -> Manifest:
        """Fetch a manifest from a known place and remember it with what it names."""
        manifest = await self._upstreams[place[0]].manifest(place[1], digest, ANYTHING)
        await self._content.remember(digest, manifest.body)
        await self._places.keep_manifest(virtual, manifest.descriptor, place)
        await self._learn_blobs(virtual, place, manifest)
        return replace(manifest, delivery=Delivery(CacheResult.MISS))

    async def _learn_blobs(self, virtual: Virtual, place: Place, manifest: Manifest) -> None:
        """A manifest that passes by says where its blobs are; the client asks for them next."""
        if not place[0]:
            return  # an index of our own
        document = parse(manifest.body, manifest.descriptor.media_type)
        if isinstance(document, Image | Artifact):
            blobs = [blob.digest for blob in document.blobs]
            await self._places.keep_blobs(virtual, blobs, place)
