"""Something for each caller: made once, kept while it is used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from proxy.access.callers import Callers


class Opened:
    """Makes values, and remembers which are open."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.open: set[str] = set()

    @asynccontextmanager
    async def __call__(self, key: str) -> AsyncIterator[str]:
        """Make a value."""
        self.made.append(key)
        self.open.add(key)
        try:
            yield key.upper()
        finally:
            self.open.discard(key)


@pytest.fixture
def opened() -> Opened:
    """Nothing is open yet."""
    return Opened()


async def test_each_has_their_own(opened: Opened) -> None:
    """The same for the same caller."""
    callers = Callers(opened, 10)
    for key in ("a", "b", "a"):
        async with callers.borrow(key) as value:
            assert value == key.upper()
    assert opened.made == ["a", "b"]
    assert sorted(callers) == ["A", "B"]
    await callers.close()
    assert opened.open == set()


async def test_the_one_unused_longest_leaves(opened: Opened) -> None:
    """When there are too many."""
    callers = Callers(opened, 2)
    for key in ("a", "b", "a", "c"):
        async with callers.borrow(key):
            pass
    assert opened.open == {"a", "c"}
    await callers.close()


async def test_what_is_used_stays(opened: Opened) -> None:
    """Even if there are too many: requests are limited elsewhere."""
    callers = Callers(opened, 1)
    async with AsyncExitStack() as stack:
        for key in ("a", "b", "c"):
            await stack.enter_async_context(callers.borrow(key))
        assert opened.open == {"a", "b", "c"}
    async with callers.borrow("d"):
        assert opened.open == {"d"}
    await callers.close()
