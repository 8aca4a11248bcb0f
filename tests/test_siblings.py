"""Messages between workers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from proxy.siblings import Siblings


async def test_all_others_hear_a_message(tmp_path: Path) -> None:
    """When telling returns, every other worker has heard it, and whoever tells hasn't."""
    heard: dict[int, list[bytes]] = {number: [] for number in range(3)}
    async with AsyncExitStack() as stack:
        for number, mine in heard.items():

            async def hear(message: bytes, mine: list[bytes] = mine) -> None:
                await asyncio.sleep(0.01)
                mine.append(message.strip())

            await stack.enter_async_context(Siblings(tmp_path, number, 3).listening(hear))
        await Siblings(tmp_path, 1, 3).tell(b"news")

    assert heard == {0: [b"news"], 1: [], 2: [b"news"]}


async def test_one_that_isnt_there_is_left_out(tmp_path: Path) -> None:
    """A worker that is being replaced remembers nothing that could be wrong."""
    (tmp_path / "1.sock").touch()  # nobody listens
    await Siblings(tmp_path, 0, 3).tell(b"news")


async def test_a_message_that_isnt_understood_ends_nothing(tmp_path: Path) -> None:
    """Whoever tells goes on, and so does whoever hears."""
    heard: list[bytes] = []

    async def hear(message: bytes) -> None:
        heard.append(message)
        if len(heard) == 1:
            raise ValueError("nonsense")

    async with Siblings(tmp_path, 1, 2).listening(hear):
        for _ in range(2):
            await Siblings(tmp_path, 0, 2).tell(b"news")

    assert len(heard) == 2


async def test_a_new_worker_takes_the_place_of_the_old(tmp_path: Path) -> None:
    """The socket of one that was killed is in nobody's way."""
    heard: list[bytes] = []

    async def hear(message: bytes) -> None:
        heard.append(message)

    (tmp_path / "1.sock").touch()
    async with Siblings(tmp_path, 1, 2).listening(hear):
        await Siblings(tmp_path, 0, 2).tell(b"news")

    assert heard == [b"news\n"]
