"""Several questions at once, none left behind when one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


async def together(questions: Iterable[Coroutine[Any, Any, Answer]], at_once: int = 64) -> tuple[Answer, ...]:
    """Ask all *questions*, *at_once* at a time, and return the answers in their order.

    The first error cancels the rest and is raised as it is.
    """
    slots = asyncio.Semaphore(at_once)

    async def one(question: Coroutine[Any, Any, Answer]) -> Answer:
        async with slots:
            return await question

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(question)) for question in questions]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return tuple(task.result() for task in tasks)
