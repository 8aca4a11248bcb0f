"""Writes that nobody waits for: one after the other, in their order, and all of them done before the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final

_MOST: Final = 1000  # waiting writes; a disk that is slower than that makes its callers wait


Write = Callable[[], Coroutine[Any, Any, None]]


class Behind:
    """A line of writes. One at a time is enough for a disk, and leaves the threads to those who wait."""

    def __init__(self) -> None:
        self._last: asyncio.Task[None] | None = None
        self._pending: dict[Hashable, asyncio.Task[None]] = {}
        self._waiting = 0

    async def add(self, key: Hashable, write: Write) -> None:
        """Put the *write* of *key* at the end of the line. Waits while the line is full."""
        before = self._last
        if before is not None and self._waiting >= _MOST:
            await asyncio.wait([before])
        self._waiting += 1
        task = self._last = self._pending[key] = asyncio.create_task(self._after(before, write))
        task.add_done_callback(lambda done: self._finish(key, done))

    async def settle(self, key: Hashable) -> None:
        """Wait until what was written of *key* is there to be read."""
        task = self._pending.get(key)
        if task is not None:
            await asyncio.wait([task])

    async def close(self) -> None:
        """Wait until everything is written."""
        if self._last is not None:
            await asyncio.wait([self._last])

    async def _after(self, before: asyncio.Task[None] | None, write: Write) -> None:
        if before is not None:
            await asyncio.wait([before])
        await write()

    def _finish(self, key: Hashable, task: asyncio.Task[None]) -> None:
        self._waiting -= 1
        if self._pending.get(key) is task:
            del self._pending[key]
