"""Proofs: what lets a caller read what is kept, and for how long."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from prometheus_client import Counter

from conftest import Clock
from images import ARM, X86, push
from proxy.memory import MemoryRegistry
from proxy.merge.entry import Entry, Part
from proxy.oci.content import Descriptor, Resolved, TagPage
from proxy.oci.errors import ManifestUnknown, NoAnswer, Refused, RegistryError
from proxy.oci.mediatype import Accept
from proxy.oci.reference import Digest, Reference, Repository, Tag
from proxy.virtual.holdings import Holdings
from proxy.virtual.permissions import Everything, Proofs, Where
from proxy.virtual.places import Place

V1 = Tag("1.0")
GONE = Digest.of(b"gone")


class Asked(MemoryRegistry):
    """A registry that remembers what it was asked, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.error: RegistryError | None = None

    async def resolve(self, repository: Repository, reference: Reference, accept: Accept) -> Resolved:
        """Answer HEAD."""
        self._note(f"{repository}@{reference}")
        return await super().resolve(repository, reference, accept)

    async def tags(self, repository: Repository, limit: int | None, last: str) -> TagPage:
        """Answer a list."""
        self._note(f"{repository} tags")
        return await super().tags(repository, limit, last)

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error


@pytest.fixture
def hub() -> Asked:
    """A registry with the pair."""
    return Asked()


@pytest.fixture
def images(hub: Asked) -> dict[Repository, Descriptor]:
    """The pair."""
    return {X86: push(hub, X86), ARM: push(hub, ARM, platform="linux/arm64")}


@pytest.fixture
def proofs(hub: Asked, clock: Clock) -> Proofs:
    """What one caller was seen to read, each for a minute."""
    return Proofs({"hub": hub}, 60.0, clock, Counter("coalesced", "waiting", registry=None), Holdings())


def where(place: Place, digest: Digest) -> Where:
    """Return what finds one place."""

    async def found() -> list[tuple[Place, Digest]]:
        return [(place, digest)]

    return found


async def nowhere() -> list[tuple[Place, Digest]]:
    """Fail: nobody has to find out."""
    raise AssertionError("it was asked where the manifest is")


def entry(images: dict[Repository, Descriptor]) -> Entry:
    """Return an entry made of the pair."""
    parts = tuple(Part("hub", where, V1, image.digest, (image,)) for where, image in images.items())
    return Entry(
        descriptor=images[X86],
        merged=True,
        default_child=None,
        parts=parts,
        warnings=(),
        fingerprint="",
        checked_at=0.0,
        changed_at=0.0,
    )


async def test_one_question_for_each_place(
    proofs: Proofs, hub: Asked, images: dict[Repository, Descriptor], clock: Clock
) -> None:
    """However many ask, for a minute; it begins when the question was asked."""
    began = clock()
    untils = await asyncio.gather(*(proofs.entry(entry(images)) for _ in range(9)))
    assert set(untils) == {began + 60}
    assert sorted(hub.asked) == sorted(f"{where}@{image.digest}" for where, image in images.items())
    clock.advance(59)
    await proofs.entry(entry(images))
    assert len(hub.asked) == 2
    clock.advance(1)
    await proofs.entry(entry(images))
    assert len(hub.asked) == 4


async def test_a_clock_that_goes_back_proves_nothing(
    proofs: Proofs, hub: Asked, images: dict[Repository, Descriptor], clock: Clock
) -> None:
    """A permission that is revoked ends within its time, whatever the clock does."""
    await proofs.entry(entry(images))
    clock.advance(-86_400)

    assert await proofs.entry(entry(images)) == clock() + 60
    assert len(hub.asked) == 4


async def test_what_was_seen_needs_no_question(
    proofs: Proofs, hub: Asked, images: dict[Repository, Descriptor], clock: Clock
) -> None:
    """Other requests of the same caller prove it as well; a refusal ends it."""
    proofs.saw("hub", X86, 200)
    clock.advance(10)
    proofs.saw("hub", ARM, 307)
    proofs.saw("hub", ARM, 503)
    proofs.saw("hub", ARM, 404)
    assert await proofs.entry(entry(images)) == clock() + 50
    assert hub.asked == []
    proofs.saw("hub", ARM, 403)
    await proofs.entry(entry(images))
    assert hub.asked == [f"{ARM}@{images[ARM].digest}"]


@pytest.mark.parametrize("error", [Refused("no"), NoAnswer("nothing")])
async def test_without_a_proof_there_is_none(
    proofs: Proofs, hub: Asked, images: dict[Repository, Descriptor], error: RegistryError
) -> None:
    """Neither a refusal nor no answer is one, and both are asked about again."""
    hub.error = error
    for _ in range(2):
        with pytest.raises(type(error)):
            await proofs.entry(entry(images))
    hub.error = None
    await proofs.entry(entry(images))


async def test_what_is_gone_may_still_be_theirs(
    proofs: Proofs, hub: Asked, images: dict[Repository, Descriptor]
) -> None:
    """The right is the repository's: its list of tags proves it as well."""
    await proofs.manifest(where(("hub", X86), GONE))
    assert hub.asked == [f"{X86}@{GONE}", f"{X86} tags"]
    with pytest.raises(RegistryError):
        await proofs.manifest(where(("hub", Repository("other/app")), GONE))


async def test_a_list_of_nothing_is_no_proof(proofs: Proofs, hub: Asked, images: dict[Repository, Descriptor]) -> None:
    """A registry may hide a repository by listing nothing of it: that it says 404 stands."""
    hub.remove(X86, V1)
    assert await hub.tags(X86, 1, "") == TagPage((), more=False)

    with pytest.raises(ManifestUnknown):
        await proofs.manifest(where(("hub", X86), GONE))


async def test_a_blob_is_asked_for_as_a_blob(proofs: Proofs, hub: Asked, images: dict[Repository, Descriptor]) -> None:
    """Where no manifest is known that it belongs to."""
    config = next(digest for repository, digest in hub._blobs if repository == X86)
    assert await proofs.blob(("hub", X86), config) < math.inf
    assert hub.asked == []
    assert await proofs.blob(("hub", ARM), GONE) < math.inf
    assert hub.asked == [f"{ARM} tags"]


async def test_upstreams_that_let_everybody_read(proofs: Proofs, images: dict[Repository, Descriptor]) -> None:
    """They aren't asked with the caller's credentials, and need no proof."""
    whole = entry(images)
    elsewhere = replace(whole, parts=tuple(replace(part, upstream="public") for part in whole.parts))
    assert await proofs.entry(elsewhere) == math.inf
    assert await proofs.blob(("public", X86), GONE) == math.inf


async def test_where_all_see_the_same(images: dict[Repository, Descriptor]) -> None:
    """Nothing is asked, for good."""
    everything = Everything()
    assert await everything.entry(entry(images)) == math.inf
    assert await everything.manifest(nowhere) == math.inf
    assert await everything.blob(("hub", X86), GONE) == math.inf
