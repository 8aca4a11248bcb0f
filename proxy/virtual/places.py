"""Where the digests of a virtual repository are: learned first, then looked for, never outside it (law 8)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.merge.rule import Learned, Rule, find
from proxy.oci.content import Descriptor
from proxy.oci.errors import NoAnswer, NotFound, Refused, RegistryError, Unreadable
from proxy.oci.reference import Digest, Repository
from proxy.oci.registry import Registry
from proxy.store.base import Location, Metadata, Virtual
from proxy.virtual.leases import Leases
from proxy.virtual.together import together

Place = tuple[str, Repository]
Look = Callable[[Registry, Repository], Coroutine[Any, Any, Descriptor]]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A place where a digest is, and what is known of it."""

    place: Place
    descriptor: Descriptor


class Places:
    """The sources of virtual repositories, as places to look for digests in."""

    def __init__(
        self,
        rules: Sequence[Rule],
        upstreams: Mapping[str, Registry],
        durable: Metadata,
        volatile: Metadata,
        leases: Leases,
    ) -> None:
        """Take what is needed.

        Args:
            durable: Keeps the locations of manifests: what was advertised is found after a restart.
            volatile: Keeps the locations of blobs: there are many, and looking again is cheap.
            leases: Ends with what is known of a manifest.
        """
        self._rules = rules
        self._upstreams = upstreams
        self._durable = durable
        self._volatile = volatile
        self._leases = leases

    async def of(self, virtual: Virtual) -> tuple[Place, ...]:
        """Return the places that *virtual* may have content in, those with a configured upstream.

        The name itself is always one, the last where the rule ignores what is tagged there: signatures are
        pushed to it.
        """
        rule = find(self._rules, virtual.upstream, virtual.repository)
        learned = await self._durable.learned(virtual) if rule.conventions else None
        return self._places(rule, virtual, learned)

    def _places(self, rule: Rule, virtual: Virtual, learned: Learned | None) -> tuple[Place, ...]:
        places = rule.repositories(virtual.upstream, virtual.repository, learned)
        home = (virtual.upstream, virtual.repository)
        return tuple(place for place in dict.fromkeys((*places, home)) if place[0] in self._upstreams)

    async def about(self, virtual: Virtual, digest: Digest | None) -> Mapping[Place, bool]:
        """Return the places that may have something to say about a manifest: signatures, attestations, referrers.

        The name itself comes first: a push through us lands there. Then the source that owns the manifest, or where
        that isn't known all others, those that other tags were found in before the rest. With each place goes whether
        it is a mere conjecture that it exists, so that being refused there tells nothing: registries refuse what
        doesn't exist. A source that stands in the configuration, or that has brought the manifest, is none.
        """
        rule = find(self._rules, virtual.upstream, virtual.repository)
        places = {(virtual.upstream, virtual.repository): rule.merges}
        location = await self.known(virtual, digest) if digest else None
        if location is None:
            for place in (*await self.of(virtual), *self._places(rule, virtual, None)):
                places.setdefault(place, not self.is_written(virtual, place))
        elif location.upstream:
            places[location.upstream, location.repository] = False
        return places

    async def manifest(self, virtual: Virtual, digest: Digest) -> Location | None:
        """Return where a manifest was last found. Raises `Unreadable` where that may be known.

        What was found with credentials that may do more than ours isn't known.
        """
        found = await self._durable.location(virtual, digest)
        return found if found and not found.personal and found.upstream in ("", *self._upstreams) else None

    async def known(self, virtual: Virtual, digest: Digest) -> Location | None:
        """Return where a manifest was last found, as far as that can be read."""
        try:
            return await self.manifest(virtual, digest)
        except Unreadable:
            return None

    async def keep_manifest(self, virtual: Virtual, descriptor: Descriptor, place: Place) -> None:
        """Remember where a manifest is."""
        found = Location(*place, descriptor.media_type)
        await self._durable.remember_location(virtual, descriptor.digest, found)
        self._leases.end(virtual, descriptor.digest)

    async def keep_index(self, virtual: Virtual, descriptor: Descriptor, body: bytes) -> None:
        """Keep an index of our own, which nobody else has. It lasts when this returns."""
        own = Location("", virtual.repository, descriptor.media_type, body)
        await self._durable.keep_location(virtual, descriptor.digest, own)
        self._leases.end(virtual, descriptor.digest)

    async def forget(self, virtual: Virtual, digest: Digest) -> None:
        """Forget where *digest* is, as a manifest and as a blob: it was deleted."""
        await self._durable.drop_location(virtual, digest)
        await self._volatile.drop_location(virtual, digest)
        self._leases.end(virtual, digest)

    async def blob(self, virtual: Virtual, digest: Digest) -> Place | None:
        """Return where a blob was last found."""
        found = await self._volatile.location(virtual, digest)
        return (found.upstream, found.repository) if found and found.upstream in self._upstreams else None

    async def keep_blobs(self, virtual: Virtual, digests: Sequence[Digest], place: Place) -> None:
        """Remember where the blobs of a manifest are: where the manifest is."""
        for digest in digests:
            await self._volatile.keep_location(virtual, digest, Location(*place, ""))

    async def search(self, virtual: Virtual, look: Look, missing: NotFound) -> Sighting:
        """Look in all places of *virtual* at once and return the first that has it, in the rule's order.

        What was learned of its tags says where to look first: another tag may be named otherwise.

        Raises:
            NotFound: *missing*, when every place says no. A place that refuses says no, too, where it is a mere
                conjecture and another place answered: most that a convention names don't exist.
            NoAnswer, Refused: Nobody has it, and somebody didn't say.
        """
        answers: dict[Place, Sighting | RegistryError] = {}
        rule = find(self._rules, virtual.upstream, virtual.repository)
        for places in (await self.of(virtual), self._places(rule, virtual, None)):
            new = [place for place in places if place not in answers]
            answers |= zip(new, await together(self._look(place, look) for place in new), strict=True)
            for answer in answers.values():
                if isinstance(answer, Sighting):
                    return answer
        for answer in answers.values():
            if isinstance(answer, NoAnswer):
                raise answer
        refusals = {place: answer for place, answer in answers.items() if isinstance(answer, Refused)}
        for place, refusal in refusals.items():
            if len(refusals) == len(answers) or self.is_written(virtual, place):
                raise refusal
        raise missing

    def is_written(self, virtual: Virtual, place: Place) -> bool:
        """Whether a source stands in the configuration, so that its refusal is no guess gone wrong."""
        rule = find(self._rules, virtual.upstream, virtual.repository)
        return bool(rule.sources) and place != (virtual.upstream, virtual.repository)

    async def _look(self, place: Place, look: Look) -> Sighting | RegistryError:
        try:
            return Sighting(place, await look(self._upstreams[place[0]], place[1]))
        except RegistryError as error:
            return error
