"""Writes that nobody waits for: begun in their order, as many together as wait, and all of them done before the end.

A line rests until nothing has joined it for a moment. A merge adds a write with each manifest and config that it
reads; begun at once, they would take the disk and a core from the answer that is still being made, and each would be
synced alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Final

import structlog

_MOST: Final = 1000  # waiting writes; a disk that is slower than that makes its callers wait
_TOGETHER: Final = 64  # writes at once: files that are open at a time
_REST: Final = 0.05  # seconds without a new write after which they begin: longer than between two rounds of a merge
_RESTS: Final = 20  # of them at most, however busy it is: what is written late is lost with the process

_log: Final = structlog.get_logger("store")

Write = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A write in the line; *done* is set when it has ended, however."""

    key: Hashable
    write: Write
    done: asyncio.Future[None]


class Behind:
    """A line of writes. One group at a time is enough for a disk, and leaves the threads to those who wait."""

    def __init__(self, rest: float = _REST) -> None:
        """Let a line begin *rest* seconds after its last write was added, or as soon as somebody waits for it."""
        self._rest = rest
        self._hurry = asyncio.Event()
        self._line: deque[_Waiting] = deque()
        self._going: list[_Waiting] = []
        self._last: dict[Hashable, _Waiting] = {}
        self._work: asyncio.Task[None] | None = None
        self._added = 0

    def __contains__(self, key: Hashable) -> bool:
        """Whether something of *key* still waits to be written."""
        return key in self._last

    async def add(self, key: Hashable, write: Write) -> None:
        """Put the *write* of *key* at the end of the line. Waits while the line is full."""
        while len(self._line) >= _MOST:
            await self._ended(self._line[0])
        waiting = _Waiting(key, write, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        self._last[key] = waiting
        self._added += 1
        if self._work is None:
            self._work = asyncio.create_task(self._run())

    async def settle(self, key: Hashable) -> None:
        """Wait until what was written of *key* is there to be read."""
        if (waiting := self._last.get(key)) is not None:
            await self._ended(waiting)

    async def close(self, limit: float | None = None) -> bool:
        """Wait until everything is written, *limit* seconds at most; say whether it is. What isn't is given up."""
        if self._work is None:
            return True
        self._hurry.set()
        _, late = await asyncio.wait([self._work], timeout=limit)
        if late:
            self._give_up()
        return not late

    def _give_up(self) -> None:
        _log.warning("cache folder too slow, not everything is kept", count=len(self._going) + len(self._line))
        given_up = [*self._going, *self._line]
        self._line.clear()
        for each in given_up:
            self._end(each)

    async def _ended(self, waiting: _Waiting) -> None:
        self._hurry.set()
        await asyncio.wait([waiting.done])

    async def _run(self) -> None:
        await self._quiet()
        while group := self._group():
            self._going = group
            await asyncio.wait([asyncio.create_task(each.write()) for each in group])
            for each in group:
                self._end(each)
            self._going = []
        self._hurry.clear()
        self._work = None

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

    def _group(self) -> list[_Waiting]:
        """Take from the line what may be written at once: of one key only the first, as its next may undo it."""
        group, keys = list[_Waiting](), set[Hashable]()
        while self._line and len(group) < _TOGETHER and self._line[0].key not in keys:
            group.append(self._line.popleft())
            keys.add(group[-1].key)
        return group

    def _end(self, waiting: _Waiting) -> None:
        if not waiting.done.done():
            waiting.done.set_result(None)
        if self._last.get(waiting.key) is waiting:
            del self._last[waiting.key]
