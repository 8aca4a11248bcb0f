"""What a request may wait for, all together."""

from __future__ import annotations

import asyncio

import pytest

from proxy.oci.errors import TimedOut
from proxy.virtual.budget import Budget


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
