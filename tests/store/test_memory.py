"""Remembering within a budget of bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.reference import Digest, Tag
from proxy.store.memory import ITEM_OVERHEAD, LruMemory, MemoryContent, MemoryMetadata, Shared
from store.conformance import (
    DATA,
    DIGEST,
    HERE,
    V1,
    V2,
    ContentConformance,
    MetadataConformance,
    a_location,
    an_entry,
)

STEPS = st.lists(st.tuples(st.sampled_from(["put", "get", "drop"]), st.integers(0, 7), st.integers(0, 60)), max_size=60)


@pytest.fixture
def budget() -> Shared:
    """A megabyte."""
    return LruMemory(1 << 20)


@pytest.fixture
def content(budget: Shared) -> MemoryContent:
    """Content in memory."""
    return MemoryContent(budget)


@pytest.fixture
def metadata(budget: Shared) -> MemoryMetadata:
    """Metadata in memory, in the same budget."""
    return MemoryMetadata(budget)


class TestContent(ContentConformance):
    """Memory is a content store."""


class TestMetadata(MetadataConformance):
    """Memory is a metadata store."""


@given(STEPS, st.integers(0, 100))
def test_a_budget_is_never_exceeded(steps: list[tuple[str, int, int]], limit: int) -> None:
    """Whatever is put, read and dropped: `used` is the sum of what is kept, and never above the limit."""
    kept: LruMemory[int, int] = LruMemory(limit)
    sizes: dict[int, int] = {}
    for action, key, size in steps:
        if action == "put":
            kept.put(key, size, size)
        elif action == "get":
            kept.get(key)
        else:
            kept.drop(key)
        sizes = {key: value for key, (value, _) in kept._items.items()}

        assert kept.used == sum(sizes.values()) <= limit
        assert len(kept) == len(sizes)


@given(STEPS, st.integers(0, 100))
def test_the_least_recently_used_leaves_first(steps: list[tuple[str, int, int]], limit: int) -> None:
    """A budget keeps what an ordered list does that is cut at its front until it fits."""
    kept: LruMemory[int, int] = LruMemory(limit)
    model: OrderedDict[int, int] = OrderedDict()
    for action, key, size in steps:
        if action == "get":
            assert kept.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
            continue
        model.pop(key, None)
        if action == "drop":
            kept.drop(key)
            continue
        kept.put(key, size, size)
        model |= {key: size} if size <= limit else {}
        while sum(model.values()) > limit:
            model.popitem(last=False)

    assert {key: kept.get(key) for key in range(8)} == {key: model.get(key) for key in range(8)}


def test_what_is_read_stays() -> None:
    """Reading counts as use."""
    kept: LruMemory[str, str] = LruMemory(20)
    kept.put("a", "A", 10)
    kept.put("b", "B", 10)
    kept.get("a")
    kept.put("c", "C", 10)

    assert (kept.get("a"), kept.get("b"), kept.get("c")) == ("A", None, "C")


def test_what_is_too_large_replaces_nothing_else() -> None:
    """One item above the limit isn't kept, and doesn't push out what is; its older self is gone."""
    kept: LruMemory[str, str] = LruMemory(20)
    kept.put("a", "A", 10)
    kept.put("b", "B", 10)
    kept.put("b", "huge", 21)

    assert (kept.get("a"), kept.get("b"), kept.used) == ("A", None, 10)


async def test_a_budget_of_nothing_keeps_nothing() -> None:
    """`cache.memory = 0` means no memory, and no error."""
    content, metadata = MemoryContent(LruMemory(0)), MemoryMetadata(LruMemory(0))
    await content.put(DIGEST, DATA)
    await metadata.keep_entry(HERE, V1, an_entry())

    assert await content.get(DIGEST) is None
    assert await metadata.entry(HERE, V1) is None


async def test_content_counts_with_its_keys() -> None:
    """Python's own share is counted: many small items don't hold more than the budget says."""
    budget: Shared = LruMemory(10 * ITEM_OVERHEAD)
    content = MemoryContent(budget)
    for n in range(100):
        await content.put(Digest.of(b"%d" % n), b"")

    assert len(budget) == 10


async def test_content_and_metadata_share_a_budget() -> None:
    """One limit holds for both: new content pushes out old metadata."""
    budget: Shared = LruMemory(4 * ITEM_OVERHEAD)
    content, metadata = MemoryContent(budget), MemoryMetadata(budget)
    await metadata.keep_location(HERE, DIGEST, a_location())
    await content.put(DIGEST, b"x" * 3 * ITEM_OVERHEAD)

    assert await metadata.location(HERE, DIGEST) is None
    assert await content.get(DIGEST)


async def test_an_entry_counts_by_what_it_holds(budget: Shared, metadata: MemoryMetadata) -> None:
    """An entry of many children counts more than one of few."""
    few = an_entry()
    many = replace(few, parts=(replace(few.parts[0], children=few.parts[0].children * 1000),))
    await metadata.keep_entry(HERE, V1, few)
    small = budget.used
    await metadata.keep_entry(HERE, V2, many)

    assert budget.used - small > 300 * 1000


async def test_names_and_digests_are_different_keys(content: MemoryContent, metadata: MemoryMetadata) -> None:
    """A tag can't be mistaken for a digest, nor content for metadata, in the budget that they share."""
    await content.put(DIGEST, DATA)
    await metadata.keep_location(HERE, DIGEST, a_location())

    assert await metadata.entry(HERE, Tag(DIGEST)) is None
    assert await content.get(DIGEST) == DATA
