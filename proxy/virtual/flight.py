"""One question at a time for each key: whoever comes meanwhile waits for the same answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from prometheus_client import Counter

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class Flights(Generic[Key, Answer]):
    """Questions under way, each in a task of its own.

    A caller that leaves takes nothing with it: the question goes on for the others, and for the cache. Its
    outcome, error or answer, goes to all of them; the slot is free as soon as it is there.
    """

    def __init__(self, coalesced: Counter) -> None:
        """Count in *coalesced* the callers that found their question already asked."""
        self._tasks: dict[Key, asyncio.Task[Answer]] = {}
        self._left: set[asyncio.Task[Answer]] = set()
        self._coalesced = coalesced

    def __len__(self) -> int:
        """Count the questions under way."""
        return len(self._tasks)

    def begin(self, key: Key, ask: Callable[[], Coroutine[Any, Any, Answer]]) -> asyncio.Task[Answer]:
        """Return the task that asks for *key*, a new one where there is none. Never cancel it."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(ask())
            task.add_done_callback(lambda done: self._land(key, done))
        return task

    async def join(self, key: Key, ask: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Wait for the answer to *key*. Being cancelled cancels only the waiting."""
        if key in self._tasks:
            self._coalesced.inc()
        return await asyncio.shield(self.begin(key, ask))

    def anew(self, key: Key, ask: Callable[[], Coroutine[Any, Any, Answer]]) -> asyncio.Task[Answer]:
        """Return a task that asks for *key* after whatever is under way: that may have begun too early to see."""
        under_way = self._tasks.get(key)

        async def after() -> Answer:
            if under_way is not None:
                await asyncio.wait([under_way])
            return await ask()

        self._tasks.pop(key, None)
        return self.begin(key, after)

    def leave(self, key: Key) -> None:
        """Let the next caller begin anew; whoever waits for what is under way still gets that."""
        task = self._tasks.pop(key, None)
        if task is not None:
            self._left.add(task)

    async def close(self) -> None:
        """Cancel what is under way and wait until it is gone."""
        tasks = [*self._tasks.values(), *self._left]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _land(self, key: Key, task: asyncio.Task[Answer]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also when every waiter has left
