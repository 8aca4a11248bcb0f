"""What the caller may read of what is kept: nothing is theirs because we have it (S9).

Where everybody sees the same, nothing has to be checked here. Where each caller has upstream credentials of their own,
whatever is answered from a cache needs a proof: the upstream has lately let them read there.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, Protocol

from prometheus_client import Counter

from proxy.merge.entry import Entry
from proxy.oci.byterange import Nothing
from proxy.oci.errors import NotFound
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, Repository
from proxy.oci.registry import Registry
from proxy.virtual.flight import Flights
from proxy.virtual.holdings import Holdings
from proxy.virtual.places import Place
from proxy.virtual.recent import Recent
from proxy.virtual.together import together

_MOST: Final = 10_000  # places that a caller was seen to read; one that was forgotten is asked again


Where = Callable[[], Awaitable[Collection[tuple[Place, Digest]]]]
"""Finds the places that a manifest comes from, and what is to be looked at there. Raises as a search does."""


class Permissions(Protocol):
    """Says until when the caller may read what is kept. Seconds since the epoch."""

    async def entry(self, entry: Entry) -> float:
        """Look at all places that *entry* is made of. Raises `Refused`, `NotFound` or `NoAnswer` where one says so."""
        ...

    async def manifest(self, where: Where) -> float:
        """Look at the places that a manifest comes from, which *where* finds. Raises the same."""
        ...

    async def blob(self, place: Place, digest: Digest) -> float:
        """Look at the place of a blob. Raises the same."""
        ...

    async def kept_blob(self, place: Place, digest: Digest) -> None:
        """Look whether a blob is there that others may have brought here. Raises the same.

        That a manifest names it proves nothing: registries take manifests that name what they don't hold.
        """
        ...


class Everything:
    """The permissions of callers who all see the same."""

    async def entry(self, entry: Entry) -> float:
        """For good."""
        return math.inf

    async def manifest(self, where: Where) -> float:
        """For good, wherever it comes from: nobody has to find out."""
        return math.inf

    async def blob(self, place: Place, digest: Digest) -> float:
        """For good."""
        return math.inf

    async def kept_blob(self, place: Place, digest: Digest) -> None:
        """Whoever named it, all may read what is kept."""


class EverythingThere(Everything):
    """The permissions of callers who are asked for with the same credentials, and may see different repositories."""

    def __init__(self, upstreams: Mapping[str, Registry], holdings: Holdings) -> None:
        self._upstreams = upstreams
        self._holdings = holdings

    async def kept_blob(self, place: Place, digest: Digest) -> None:
        """Look whether it is there."""
        if not self._holdings.has(place, digest):
            await _look(self._upstreams[place[0]], place, digest, self._holdings)


class Proofs:
    """The permissions of one caller: where the upstream has let them read, each for *seconds*.

    The right to read belongs to repositories, so one successful request proves it for all that is there, and one
    refusal ends it at once. What an upstream tells in the course of other requests counts (`saw`); else it is asked
    with one HEAD of the very thing that is wanted.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Registry],
        seconds: float,
        clock: Callable[[], float],
        coalesced: Counter,
        holdings: Holdings,
        others: Mapping[str, Registry] | None = None,
    ) -> None:
        """Take what is needed.

        Args:
            upstreams: Those that are asked with the caller's credentials.
            others: Those that let everybody read.
            seconds: How long a proof counts; also while the upstream gives no answer, and no longer.
            clock: Seconds since the epoch.
            holdings: What places were seen to hold, in this caller's own requests.
        """
        self._upstreams = upstreams
        self._others = others or {}
        self._holdings = holdings
        self._seconds = seconds
        self._clock = clock
        self._proven: Recent[Place, float] = Recent(_MOST)
        self._questions: Flights[Place, float] = Flights(coalesced)

    async def close(self) -> None:
        """Stop asking."""
        await self._questions.close()

    def saw(self, upstream: str, repository: Repository, status: int, age: float = 0.0) -> None:
        """Take note of an upstream's answer to a question about *repository*, decided *age* seconds ago."""
        if status < 400:
            self._prove((upstream, repository), self._clock() - age)
        elif status in (401, 403):
            self._proven.drop((upstream, repository))

    async def entry(self, entry: Entry) -> float:
        """Look at all places that *entry* is made of: whoever may not read one of them doesn't see the whole."""
        return await self._all([((part.upstream, part.repository), part.digest) for part in entry.parts])

    async def manifest(self, where: Where) -> float:
        """Look at the places that it comes from: an index of our own comes from all that it names."""
        return await self._all(await where())

    async def _all(self, wanted: Collection[tuple[Place, Digest]]) -> float:
        """Return until when all proofs count. Nobody waits where there are all: a request may have no time left."""
        now = self._clock()
        digests = {place: digest for place, digest in wanted if place[0] in self._upstreams}
        proven = {place: until for place in digests if (until := self._proven.get(place, now)) is not None}
        unproven = [self._manifest(place, digest) for place, digest in digests.items() if place not in proven]
        return min((*proven.values(), *(await together(unproven) if unproven else ())), default=math.inf)

    async def blob(self, place: Place, digest: Digest) -> float:
        """Look at the place of a blob."""

        async def head(registry: Registry) -> None:
            await _look(registry, place, digest, self._holdings)

        return await self._proof(place, head) if place[0] in self._upstreams else math.inf

    async def kept_blob(self, place: Place, digest: Digest) -> None:
        """Look whether it is there: once for good, as the right to read is proven for the whole place."""
        if not self._holdings.has(place, digest):
            registry = self._upstreams.get(place[0]) or self._others[place[0]]
            await _look(registry, place, digest, self._holdings)

    async def _manifest(self, place: Place, digest: Digest) -> float:
        async def head(registry: Registry) -> None:
            await registry.resolve(place[1], digest, ANYTHING)

        return await self._proof(place, head)

    async def _proof(self, place: Place, head: Callable[[Registry], Awaitable[None]]) -> float:
        """Return until when a proof counts, or ask for one: one question at a time for each place."""
        until = self._proven.get(place, self._clock())
        if until is not None:
            return until
        return await self._questions.join(place, lambda: self._asked(place, head))

    async def _asked(self, place: Place, head: Callable[[Registry], Awaitable[None]]) -> float:
        registry, asked = self._upstreams[place[0]], self._clock()
        try:
            await head(registry)
        except NotFound:  # it may be gone, and the right to read still be there
            if not (await registry.tags(place[1], 1, "")).tags:
                raise  # of what is hidden some registries list nothing
        seen = self._proven.get(place, self._clock())
        if seen is not None and seen > asked:
            return seen  # as the upstream's own witness says, who knows how old what was believed is
        return self._prove(place, asked)

    def _prove(self, place: Place, moment: float) -> float:
        """Let what was decided at that *moment* count. Returns until when."""
        until = moment + self._seconds
        self._proven.put(place, until, until, since=moment)
        return until


async def _look(registry: Registry, place: Place, digest: Digest, holdings: Holdings) -> None:
    """Ask *registry* with HEAD for a blob. Raises `NotFound`, `Refused` or `NoAnswer`."""
    async with registry.blob(place[1], digest, Nothing()):
        holdings.saw(place, digest)
