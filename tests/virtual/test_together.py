"""Several questions at once."""

from __future__ import annotations

import asyncio

import pytest

from proxy.oci.errors import BadAnswer
from proxy.virtual.together import together


async def test_answers_keep_their_order() -> None:
    """Answers come in the order of the questions, whoever was first."""

    async def after(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert await together(after(turns) for turns in (3, 1, 2)) == (3, 1, 2)


async def test_the_first_error_ends_the_rest() -> None:
    """An error is raised as it is, and no question is left running."""
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise BadAnswer("nonsense")

    with pytest.raises(BadAnswer, match="nonsense"):
        await together([forever(), fails()])

    assert ended.is_set()


async def test_no_more_than_allowed_at_once() -> None:
    """Only *at_once* questions run at the same time."""
    running = most = 0

    async def question() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await together((question() for _ in range(20)), at_once=3)

    assert most == 3
