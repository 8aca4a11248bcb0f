"""Long lists of names: paged, put together once, remembered for a while and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Clock, until
from proxy.oci.errors import Unreachable
from proxy.telemetry import Metrics
from proxy.virtual.lists import Listing, Lists
from proxy.virtual.recent import Recent

Ask = Callable[[], Coroutine[Any, Any, Listing]]


def telling(*answers: Listing) -> Ask:
    """Return a question that is answered differently every time, and at last not at all."""
    left = list(answers)

    async def ask() -> Listing:
        if not left:
            raise Unreachable("nobody is there")
        return left.pop(0)

    return ask


A, B = Listing(("a",)), Listing(("a", "b"))


async def test_a_clock_that_goes_back_makes_no_list_last(clock: Clock) -> None:
    """It is put together anew."""
    lists = Lists[str](clock, Metrics().coalesced)
    ask = telling(A, B)
    await lists.of("key", 60.0, ask)
    clock.advance(-86_400)

    assert await lists.of("key", 60.0, ask) == B


@given(st.lists(st.text(max_size=3), unique=True), st.integers(1, 5))
def test_pages_make_the_whole_list(names: list[str], limit: int) -> None:
    """Leafing from page to page meets every name once, in the order of their bytes."""
    listing, last, seen, more = Listing(tuple(sorted(names))), "", list[str](), True
    while more:
        page, more = listing.page(limit, last)
        assert len(page) <= limit
        seen += page
        last = page[-1] if page else last

    assert seen == sorted(name for name in names if name)


@pytest.mark.parametrize(
    ("limit", "last", "page"), [(None, "", (("a", "b"), False)), (1, "", (("a",), True)), (9, "zz", ((), False))]
)
def test_a_page(limit: int | None, last: str, page: tuple[tuple[str, ...], bool]) -> None:
    """A limit of None takes all; behind the end is nothing."""
    assert B.page(limit, last) == page


async def test_a_list_lasts_its_time(clock: Clock) -> None:
    """It is asked for anew after that, and an error isn't remembered in its place."""
    lists, ask = Lists[str](clock, Metrics().coalesced), telling(A, B)

    assert [await lists.of("x", 60, ask), await lists.of("x", 60, ask)] == [A, A]
    clock.advance(61)
    assert await lists.of("x", 60, ask) == B
    clock.advance(61)
    with pytest.raises(Unreachable):
        await lists.of("x", 60, ask)


async def test_what_is_forgotten_is_asked_for_anew(clock: Clock) -> None:
    """Also by those who come while an older question is under way, whose answer nobody remembers then."""
    lists, gate = Lists[str](clock, Metrics().coalesced), asyncio.Event()

    async def slow() -> Listing:
        await gate.wait()
        return A

    early = asyncio.create_task(lists.of("x", 60, slow))
    await asyncio.sleep(0)
    lists.forget("x")

    assert await lists.of("x", 60, telling(B)) == B
    gate.set()
    assert await early == A
    assert await lists.of("x", 60, telling()) == B


async def test_closing_ends_what_was_left(clock: Clock) -> None:
    """No question goes on behind a service that has stopped."""
    lists = Lists[str](clock, Metrics().coalesced)
    began = asyncio.Event()

    async def never() -> Listing:
        began.set()
        await asyncio.Event().wait()
        return A

    waiting = asyncio.create_task(lists.of("x", 60, never))
    await began.wait()
    lists.forget("x")
    await lists.close()

    await until(waiting.done)
    assert waiting.cancelled()


async def test_all_lists_together_are_bounded(clock: Clock) -> None:
    """The oldest leave first; one that is larger than all may be isn't remembered at all."""
    lists = Lists[int](clock, Metrics().coalesced)
    large = Listing(tuple(str(n) for n in range(200_000)))
    for key in range(3):
        await lists.of(key, 60, telling(large))

    assert await lists.of(0, 60, telling(A)) == A
    assert await lists.of(2, 60, telling()) == large
    huge = Listing(large.names * 3)
    assert await lists.of(3, 60, telling(huge)) == huge
    assert await lists.of(3, 60, telling(A)) == A


def test_the_oldest_items_make_room() -> None:
    """Items are forgotten until the rest weighs no more than it may."""
    recent = Recent[str, int](9)
    for key, weight in (("a", 5), ("b", 3), ("c", 4)):
        recent.put(key, weight, until=10.0)

    recent.shrink(lambda weight: weight, 7)

    assert [recent.get(key, 0.0) for key in "abc"] == [None, 3, 4]
