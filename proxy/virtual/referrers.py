"""What refers to a digest of a virtual repository: asked of the source that owns the digest."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.oci.content import Manifest, empty_index
from proxy.oci.errors import NotFound, Refused
from proxy.oci.reference import Digest
from proxy.oci.registry import Registry
from proxy.store.base import Virtual
from proxy.virtual.budget import Budget
from proxy.virtual.places import Places


class Referrers:
    """Referrers of virtual repositories."""

    def __init__(self, upstreams: Mapping[str, Registry], places: Places, budget: Budget) -> None:
        self._upstreams = upstreams
        self._places = places
        self._budget = budget

    async def of(self, virtual: Virtual, digest: Digest, artifact_type: str) -> Manifest:
        """Return the index of what refers to *digest*: always one, empty where nothing is known.

        An index of our own, or a digest never seen, is asked for at the virtual name itself.
        Raises `NoAnswer`.
        """
        location = await self._places.manifest(virtual, digest)
        upstream = location.upstream if location and location.upstream else virtual.upstream
        repository = location.repository if location else virtual.repository
        asking = self._upstreams[upstream].referrers(repository, digest, artifact_type)
        try:
            return await self._budget.spend(asking, f"the referrers of {digest}")
        except (NotFound, Refused):
            return empty_index()
