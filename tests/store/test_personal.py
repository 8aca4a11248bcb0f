"""Metadata of a caller of their own: what is theirs, and what all share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.merge.entry import Entry, Part
from proxy.merge.rule import Learned
from proxy.oci.content import Descriptor
from proxy.oci.mediatype import OCI_INDEX
from proxy.oci.reference import Digest, Repository, Tag
from proxy.store.base import Location, Virtual
from proxy.store.memory import LruMemory, MemoryMetadata
from proxy.store.personal import PersonalMetadata

HERE = Virtual("hub", Repository("team/app"))
V1 = Tag("1.0")
DIGEST = Digest.of(b"index")
ENTRY = Entry(
    descriptor=Descriptor(media_type=OCI_INDEX, digest=DIGEST, size=5),
    merged=True,
    default_child=None,
    parts=(Part("hub", Repository("team/app-x86"), V1, DIGEST, ()),),
    warnings=(),
    fingerprint="f",
    checked_at=1.0,
    changed_at=1.0,
)
PLACE = Location("hub", Repository("team/app-x86"), OCI_INDEX)
THEIRS = replace(PLACE, personal=True)


@pytest.fixture
def shared() -> MemoryMetadata:
    """What all share."""
    return MemoryMetadata(LruMemory[Any, Any](1 << 20))


@pytest.fixture
def callers(shared: MemoryMetadata) -> tuple[PersonalMetadata, PersonalMetadata]:
    """Two callers with one budget."""
    budget = LruMemory[Any, Any](1 << 20)
    return PersonalMetadata(MemoryMetadata(budget), shared), PersonalMetadata(MemoryMetadata(budget), shared)


async def test_what_upstreams_said_is_each_callers_own(
    callers: tuple[PersonalMetadata, PersonalMetadata], shared: MemoryMetadata
) -> None:
    """Tags, and which names exist."""
    mine, theirs = callers
    await mine.keep_entry(HERE, V1, ENTRY)
    await mine.settle(HERE, V1)
    await mine.keep_learned(HERE, Learned("tag-suffix", (), 1.0))
    assert await mine.entry(HERE, V1) == await mine.reread(HERE, V1) == ENTRY
    assert await mine.touch(HERE, V1)
    assert await mine.touch(HERE)
    for other in (theirs, shared):
        assert await other.entry(HERE, V1) is None
        assert await other.reread(HERE, V1) is None
        assert await other.learned(HERE) is None
        assert not await other.touch(HERE, V1)
    await theirs.drop_entry(HERE, V1)
    assert await mine.entry(HERE, V1) == ENTRY
    await mine.drop_entry(HERE, V1)
    assert await mine.entry(HERE, V1) is None


async def test_where_digests_are_is_shared(
    callers: tuple[PersonalMetadata, PersonalMetadata], shared: MemoryMetadata
) -> None:
    """An index of ours is nowhere else, and has to be found after a restart (law 3). Others see whose it is."""
    mine, theirs = callers
    await mine.keep_location(HERE, DIGEST, PLACE)
    assert await theirs.location(HERE, DIGEST) == PLACE
    assert await shared.location(HERE, DIGEST) == THEIRS
    assert await theirs.touch(HERE, DIGEST)
    await theirs.drop_location(HERE, DIGEST)
    assert await mine.location(HERE, DIGEST) is None
    await theirs.remember_location(HERE, DIGEST, PLACE)
    assert await mine.location(HERE, DIGEST) == PLACE
    assert await shared.location(HERE, DIGEST) == THEIRS
