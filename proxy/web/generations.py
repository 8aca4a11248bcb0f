"""Replacing what requests use, without dropping one: the old one stays open until its last user has left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Generic, Self, TypeVar

Value = TypeVar("Value")


class _Generation(Generic[Value]):
    """One value, how to close it, and how many use it."""

    def __init__(self, value: Value, context: AbstractAsyncContextManager[Value]) -> None:
        self.value = value
        self.context = context
        self.users = 0
        self.unused = asyncio.Event()
        self.unused.set()


class Generations(Generic[Value]):
    """The present generation of a value, and older ones that are still in use. Close it with `async with`."""

    def __init__(self) -> None:
        self._present: _Generation[Value] | None = None
        self._closing: dict[asyncio.Task[None], _Generation[Value]] = {}

    async def __aenter__(self) -> Self:
        """Begin, with no generation yet."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close all generations, whoever still uses them: nobody does after the servers have drained."""
        for generation in self._closing.values():
            generation.unused.set()
        await asyncio.gather(*self._closing)
        if self._present is not None:
            await self._present.context.__aexit__(None, None, None)

    @property
    def present(self) -> Value:
        """The value that new requests use. Raises `RuntimeError` before there is one."""
        if self._present is None:
            raise RuntimeError("there is no generation yet")
        return self._present.value

    @contextmanager
    def borrow(self) -> Iterator[Value]:
        """Use the present value; it stays open for as long as the block runs, replaced or not."""
        generation = self._present
        if generation is None:
            raise RuntimeError("there is no generation yet")
        generation.users += 1
        generation.unused.clear()
        try:
            yield generation.value
        finally:
            generation.users -= 1
            if not generation.users:
                generation.unused.set()

    async def replace(self, context: AbstractAsyncContextManager[Value]) -> None:
        """Open a new generation and let it take over; what opening raises leaves the present one in place."""
        before, self._present = self._present, _Generation(await context.__aenter__(), context)
        if before is not None:
            task = asyncio.create_task(self._close(before))
            self._closing[task] = before
            task.add_done_callback(lambda done: self._closing.pop(done, None))

    async def _close(self, generation: _Generation[Value]) -> None:
        """Close a generation when nobody uses it any more, or when everything ends."""
        await generation.unused.wait()
        await generation.context.__aexit__(None, None, None)
