"""What a request may wait for, all together."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from patience import HANGING
from proxy.merge.entry import Entry
from proxy.oci.content import CacheResult, Delivery, Descriptor, Manifest
from proxy.oci.errors import TimedOut
from proxy.oci.mediatype import ANYTHING, DOCKER_MANIFEST, OCI_INDEX, Accept
from proxy.oci.reference import Digest, Repository, Tag
from proxy.virtual.budget import Budget, Left
from proxy.virtual.manifests import Answer
from proxy.virtual.registry import Parts, VirtualRegistry


async def test_what_one_thing_takes_is_not_left_for_the_next() -> None:
    """The clock runs from the beginning, not from each question on; what needs no waiting is answered all the same."""

    async def known() -> int:
        return 1

    left = Budget(0.01).begin()
    await asyncio.sleep(0.02)

    assert await left.spend(known(), "what is known") == 1
    with pytest.raises(TimedOut, match=r"^no answer on the rest within 0\.01 s$"):
        await left.spend(asyncio.Event().wait(), "the rest")


async def test_some_of_it_may_be_over_before() -> None:
    """Whoever has waited elsewhere has so much less."""
    with pytest.raises(TimedOut, match=r"within 0\.01 s$"):
        await Budget(0.01, 0.01).spend(asyncio.Event().wait(), "it")


class Slow:
    """Says what a tag stands for when the time is over, and never what is in it."""

    async def tag(self, _virtual: object, _tag: object, left: Left | None = None) -> Answer:
        """Take all the time that there is."""
        left = left or Budget(0.01).begin()
        await asyncio.sleep(left.end - asyncio.get_running_loop().time())
        index = Descriptor(media_type=OCI_INDEX, digest=Digest.of(b"index"), size=5)
        entry = SimpleNamespace(descriptor=index, default_child=index)
        return Answer(cast("Entry", entry), Delivery(CacheResult.MISS))

    async def body(self, _virtual: object, _what: object, left: Left | None = None) -> Manifest:
        """Wait for as long as there is time, which is for good where it has a budget of its own."""
        forever: asyncio.Future[Manifest] = asyncio.get_running_loop().create_future()
        return await (left or Budget(HANGING).begin()).spend(forever, "the rest")

    manifest = body


@pytest.mark.parametrize("accept", [ANYTHING, Accept.parse([DOCKER_MANIFEST])])
async def test_a_tag_and_its_bytes_have_it_together(accept: Accept) -> None:
    """Law 11: a name that is passed through is looked at, and then fetched; the one child for old clients is, too."""
    slow: Any = Slow()
    parts = cast("Parts", SimpleNamespace(manifests=slow, digests=slow, budget=Budget(0.01)))
    registry = VirtualRegistry("hub", parts)

    with pytest.raises(TimedOut, match=r"within 0\.01 s"):
        await registry.manifest(Repository("team/app"), Tag("1.0"), accept)
