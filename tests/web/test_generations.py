"""Replacing what requests use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from proxy.web.generations import Generations


class Rooms:
    """Values that say when they were closed."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def room(self, name: str, error: Exception | None = None) -> AbstractAsyncContextManager[str]:
        """Return a room that opens, or doesn't."""

        @asynccontextmanager
        async def opened() -> AsyncIterator[str]:
            if error is not None:
                raise error
            try:
                yield name
            finally:
                self.closed.append(name)

        return opened()


async def turns() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_unused_one_closes_when_it_is_replaced() -> None:
    """A generation that nobody uses is closed at once."""
    rooms = Rooms()
    async with Generations[str]() as generations:
        await generations.replace(rooms.room("old"))
        await generations.replace(rooms.room("new"))
        await turns()

        assert (generations.present, rooms.closed) == ("new", ["old"])
    assert rooms.closed == ["old", "new"]


async def test_a_used_one_stays_open() -> None:
    """Whoever borrowed the old one keeps it to the end; the next gets the new one."""
    rooms = Rooms()
    async with Generations[str]() as generations:
        await generations.replace(rooms.room("old"))
        with generations.borrow() as mine:
            await generations.replace(rooms.room("new"))
            await turns()
            with generations.borrow() as theirs:
                assert (mine, theirs, rooms.closed) == ("old", "new", [])
        await turns()

        assert rooms.closed == ["old"]


async def test_what_can_t_be_opened_changes_nothing() -> None:
    """An error while opening leaves the present one in use."""
    rooms = Rooms()
    async with Generations[str]() as generations:
        await generations.replace(rooms.room("old"))
        with pytest.raises(OSError, match="no"):
            await generations.replace(rooms.room("new", OSError("no")))

        assert (generations.present, rooms.closed) == ("old", [])


async def test_the_end_closes_everything() -> None:
    """Leaving closes old ones, too, even while they are in use."""
    rooms = Rooms()
    async with Generations[str]() as generations:
        await generations.replace(rooms.room("old"))
        lent = generations.borrow()
        lent.__enter__()
        await generations.replace(rooms.room("new"))

    assert sorted(rooms.closed) == ["new", "old"]
    lent.__exit__(None, None, None)


async def test_before_the_first_there_is_nothing() -> None:
    """Using it too early is a mistake that is told."""
    async with Generations[str]() as generations:
        with pytest.raises(RuntimeError), generations.borrow():
            raise AssertionError("lent")
