"""Writes that nobody waits for: one after the other, in their order, and all of them done before the end.

A line rests until nothing has joined it for a moment. A merge adds a write with each manifest and config that it
reads; begun at once, they would take the disk and a core from the answer that is still being made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final

_MOST: Final = 1000  # waiting writes; a disk that is slower than that makes its callers wait
_REST: Final = 0.05  # seconds without a new write after which they begin: longer than between two rounds of a merge
_RESTS: Final = 20  # of them at most, however busy it is: what is written late is lost with the process


Write = Callable[[], Coroutine[Any, Any, None]]


class Behind:
    """A line of writes. One at a time is enough for a disk, and leaves the threads to those who wait."""

    def __init__(self, rest: float = _REST) -> None:
        """Let a line begin *rest* seconds after its last write was added, or as soon as somebody waits for it."""
        self._rest = rest
        self._hurry = asyncio.Event()
        self._last: asyncio.Task[None] | None = None
        self._pending: dict[Hashable, asyncio.Task[None]] = {}
        self._waiting = 0
        self._added = 0

    def __contains__(self, key: Hashable) -> bool:
        """Whether something of *key* still waits to be written."""
        return key in self._pending

    async def add(self, key: Hashable, write: Write) -> None:
        """Put the *write* of *key* at the end of the line. Waits while the line is full."""
        before = self._last
        if before is not None and self._waiting >= _MOST:
            await self._done(before)
        self._waiting += 1
        self._added += 1
        task = self._last = self._pending[key] = asyncio.create_task(self._after(before, write))
        task.add_done_callback(lambda done: self._finish(key, done))

    async def settle(self, key: Hashable) -> None:
        """Wait until what was written of *key* is there to be read."""
        task = self._pending.get(key)
        if task is not None:
            await self._done(task)

    async def close(self) -> None:
        """Wait until everything is written."""
        if self._last is not None:
            await self._done(self._last)

    async def _done(self, task: asyncio.Task[None]) -> None:
        self._hurry.set()
        await asyncio.wait([task])

    async def _after(self, before: asyncio.Task[None] | None, write: Write) -> None:
        if before is None or before.done():
            await self._quiet()
        else:
            await asyncio.wait([before])
        await write()

    async def _quiet(self) -> None:
        """Rest until no write was added for a while, unless somebody waits."""
        for _ in range(_RESTS):
            added = self._added
            try:
                async with asyncio.timeout(self._rest):
                    await self._hurry.wait()
            except TimeoutError:
                if self._added == added:
                    return
            else:
                return

    def _finish(self, key: Hashable, task: asyncio.Task[None]) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._hurry.clear()
        if self._pending.get(key) is task:
            del self._pending[key]
