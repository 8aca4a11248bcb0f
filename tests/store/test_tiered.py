"""A small fast store in front of a large slow one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.store.behind import Behind
from proxy.store.disk import DiskContent, DiskMetadata, Folder
from proxy.store.history import Uses
from proxy.store.memory import LruMemory, MemoryContent, MemoryMetadata
from proxy.store.tiered import TieredContent, TieredMetadata
from store.conformance import (
    DATA,
    DIGEST,
    HERE,
    URLS,
    V1,
    ContentConformance,
    MetadataConformance,
    a_location,
    an_entry,
    what_was_learned,
)


@pytest.fixture
async def content(folder: Folder) -> AsyncIterator[TieredContent]:
    """Memory in front of disk, as it is run."""
    behind = Behind()
    yield TieredContent(MemoryContent(LruMemory(1 << 20)), DiskContent(folder), Uses(), behind)
    await behind.close()


@pytest.fixture
def metadata(folder: Folder) -> TieredMetadata:
    """Memory in front of disk, as it is run."""
    return TieredMetadata(MemoryMetadata(LruMemory(1 << 20)), DiskMetadata(folder, URLS), Uses(), Behind())


@pytest.fixture
def fast() -> MemoryMetadata:
    """What is in front."""
    return MemoryMetadata(LruMemory(1 << 20))


@pytest.fixture
def slow() -> MemoryMetadata:
    """What is behind."""
    return MemoryMetadata(LruMemory(1 << 20))


class TestContent(ContentConformance):
    """Two content stores are a content store."""


class TestMetadata(MetadataConformance):
    """Two metadata stores are a metadata store."""


class TestContentThatForgets(ContentConformance):
    """With a fast store that keeps nothing, the slow one is a content store."""

    @pytest.fixture
    async def content(self, folder: Folder) -> AsyncIterator[TieredContent]:
        """No memory in front of disk."""
        behind = Behind()
        yield TieredContent(MemoryContent(LruMemory(0)), DiskContent(folder), Uses(), behind)
        await behind.close()


class TestMetadataThatForgets(MetadataConformance):
    """With a fast store that keeps nothing, the slow one is a metadata store."""

    @pytest.fixture
    def metadata(self, folder: Folder) -> TieredMetadata:
        """No memory in front of disk."""
        return TieredMetadata(MemoryMetadata(LruMemory(0)), DiskMetadata(folder, URLS), Uses(), Behind())


async def test_content_is_put_into_both() -> None:
    """What is put is in the fast store at once, and in the one that lasts."""
    fast, slow = MemoryContent(LruMemory(1 << 20)), MemoryContent(LruMemory(1 << 20))
    await TieredContent(fast, slow, Uses(), Behind()).put(DIGEST, DATA)

    assert (await fast.get(DIGEST), await slow.get(DIGEST)) == (DATA, DATA)


async def test_content_moves_up_when_it_is_read() -> None:
    """What the slow store alone had is in the fast one afterwards."""
    fast, slow = MemoryContent(LruMemory(1 << 20)), MemoryContent(LruMemory(1 << 20))
    await slow.put(DIGEST, DATA)

    assert await TieredContent(fast, slow, Uses(), Behind()).get(DIGEST) == DATA
    assert await fast.get(DIGEST) == DATA


async def test_content_of_the_fast_store_is_enough(folder: Folder) -> None:
    """What is in front is answered without looking behind."""
    tiered = TieredContent(MemoryContent(LruMemory(1 << 20)), DiskContent(folder), Uses(), Behind())
    await tiered.put(DIGEST, DATA)
    (folder.root / "content/blobs/sha256" / DIGEST.hex).unlink()

    assert await tiered.get(DIGEST) == DATA


async def test_remembering_waits_for_no_disk(folder: Folder) -> None:
    """What is remembered is in the fast store at once, and in the slow one when the store was closed."""
    fast, slow = MemoryContent(LruMemory(1 << 20)), DiskContent(folder)
    behind = Behind()
    tiered = TieredContent(fast, slow, Uses(), behind)
    await tiered.remember(DIGEST, DATA)

    assert await fast.get(DIGEST) == DATA
    await behind.close()
    assert await slow.get(DIGEST) == DATA


async def test_metadata_is_kept_in_both(fast: MemoryMetadata, slow: MemoryMetadata) -> None:
    """What is kept is in the fast store at once, and soon in the one that lasts."""
    behind = Behind()
    tiered = TieredMetadata(fast, slow, Uses(), behind)
    await tiered.keep_entry(HERE, V1, an_entry())
    await tiered.keep_location(HERE, DIGEST, a_location())
    await tiered.keep_learned(HERE, what_was_learned())
    await behind.close()

    for store in (fast, slow):
        assert await store.entry(HERE, V1) == an_entry()
        assert await store.location(HERE, DIGEST) == a_location()
        assert await store.learned(HERE) == what_was_learned()


async def test_metadata_moves_up_when_it_is_read(fast: MemoryMetadata, slow: MemoryMetadata) -> None:
    """What the slow store alone had is in the fast one afterwards."""
    await slow.keep_entry(HERE, V1, an_entry())
    await slow.keep_location(HERE, DIGEST, a_location())
    await slow.keep_learned(HERE, what_was_learned())
    tiered = TieredMetadata(fast, slow, Uses(), Behind())
    for read in (tiered.entry(HERE, V1), tiered.location(HERE, DIGEST), tiered.learned(HERE)):
        await read

    assert await fast.entry(HERE, V1) == an_entry()
    assert await fast.location(HERE, DIGEST) == a_location()
    assert await fast.learned(HERE) == what_was_learned()


async def test_an_entry_is_dropped_from_both(fast: MemoryMetadata, slow: MemoryMetadata) -> None:
    """A dropped entry doesn't come back from behind."""
    tiered = TieredMetadata(fast, slow, Uses(), Behind())
    await tiered.keep_entry(HERE, V1, an_entry())
    await tiered.drop_entry(HERE, V1)

    assert await tiered.entry(HERE, V1) is None
    assert await fast.entry(HERE, V1) is None
    assert await slow.entry(HERE, V1) is None
