"""What a digest of a virtual repository stands for: kept, or fetched from the source that has it (law 8)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import structlog
from prometheus_client import Counter

from proxy.oci.content import CacheResult, Delivery, Descriptor, Manifest
from proxy.oci.document import Artifact, Image, parse
from proxy.oci.errors import ManifestUnknown, NotFound
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, Repository
from proxy.oci.registry import Bringing, Registry
from proxy.store.base import Content, Location, Virtual
from proxy.virtual.budget import Budget
from proxy.virtual.flight import Flights
from proxy.virtual.history import History
from proxy.virtual.leases import Leases
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
        self._budget = budget
        self._clock = clock
        self._fetches: Flights[tuple[Virtual, Digest], Manifest] = Flights(coalesced)

    async def close(self) -> None:
        """Stop asking."""
        await self._fetches.close()

    async def manifest(self, virtual: Virtual, digest: Digest) -> Manifest:
        """Return a manifest by digest, from where it was seen or from any source of *virtual* (law 8)."""
        lease = self._leases.open(virtual, digest)
        location = await self._places.manifest(virtual, digest)
        body = await self._content.get(digest) if location else None
        if location is not None and body is not None:
            manifest = Manifest(Descriptor(media_type=location.media_type, digest=digest, size=len(body)), body)
            await self._learn_blobs(virtual, (location.upstream, location.repository), manifest)
            await self._history.used_digest(virtual, manifest)
            self._leases.grant(lease, self._clock(), since=None, until=math.inf)
            return replace(manifest, delivery=Delivery(CacheResult.HIT, lease=lease))
        fetch = self._fetches.join((virtual, digest), lambda: self._fetch(virtual, digest, location))
        return await self._budget.spend(fetch, f"{virtual.repository}@{digest}")

    async def _fetch(self, virtual: Virtual, digest: Digest, location: Location | None) -> Manifest:
        """Fetch a manifest from where it was last found, else from wherever it is."""
        if location is not None and location.upstream:
            try:
                return await self._take(virtual, (location.upstream, location.repository), digest)
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
