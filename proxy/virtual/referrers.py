"""What refers to a digest of a virtual repository: the union of what is said where it is, and at the name itself."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.oci.content import Descriptor
from proxy.oci.errors import NotFound, Refused
from proxy.oci.reference import Digest
from proxy.oci.referrers import union
from proxy.oci.registry import Registry
from proxy.store.base import Virtual
from proxy.virtual.budget import Budget
from proxy.virtual.places import Place, Places
from proxy.virtual.together import together


class Referrers:
    """Referrers of virtual repositories."""

    def __init__(self, upstreams: Mapping[str, Registry], places: Places, budget: Budget) -> None:
        self._upstreams = upstreams
        self._places = places
        self._budget = budget

    async def of(self, virtual: Virtual, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to *digest*, each once, in the order of the digests; empty where nothing is known.

        What is listed is believed as a descriptor alone: nothing is learned from it about where anything is.

        Raises:
            NoAnswer: A place didn't say. A shorter list would look like an unsigned image.
            Refused: So did a source that is no conjecture, for the same reason.
        """
        return await self._budget.spend(self._of(virtual, digest), f"the referrers of {digest}")

    async def _of(self, virtual: Virtual, digest: Digest) -> tuple[Descriptor, ...]:
        places = await self._places.about(virtual, digest)
        asking = (self._ask(place, digest, conjecture=conjecture) for place, conjecture in places.items())
        return union(*await together(asking))

    async def _ask(self, place: Place, digest: Digest, *, conjecture: bool) -> tuple[Descriptor, ...]:
        upstream, repository = place
        try:
            return await self._upstreams[upstream].referrers(repository, digest)
        except NotFound:
            return ()
        except Refused:
            if conjecture:
                return ()
            raise
