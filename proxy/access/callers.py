"""Something of its own for each of many callers: made when one comes, closed when it is needed no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(slots=True)
class _Held(Generic[Value]):
    value: Value
    stack: AsyncExitStack
    users: int = 0


class Callers(Generic[Key, Value]):
    """Values by caller, *most* of them; of those that nobody uses the one leaves first that was used longest ago."""

    def __init__(self, opened: Callable[[Key], AbstractAsyncContextManager[Value]], most: int) -> None:
        """Take what makes a value; making it must not take long."""
        self._opened = opened
        self._most = most
        self._held: dict[Key, _Held[Value]] = {}

    def __iter__(self) -> Iterator[Value]:
        """Go through all values."""
        return iter([held.value for held in self._held.values()])

    @asynccontextmanager
    async def borrow(self, key: Key) -> AsyncIterator[Value]:
        """Use the value of *key*; it stays open for as long as the block runs."""
        held = self._held.pop(key, None) or await self._make(key)
        self._held[key] = held  # the one used last comes last
        held.users += 1
        try:
            await self._shrink()
            yield held.value
        finally:
            held.users -= 1

    async def close(self) -> None:
        """Close all values, whoever still uses them."""
        while self._held:
            _, held = self._held.popitem()
            await held.stack.aclose()

    async def _make(self, key: Key) -> _Held[Value]:
        stack = AsyncExitStack()
        held = _Held(await stack.enter_async_context(self._opened(key)), stack)
        meanwhile = self._held.pop(key, None)
        if meanwhile is None:
            return held
        await stack.aclose()
        return meanwhile

    async def _shrink(self) -> None:
        for key in list(self._held):
            if len(self._held) <= self._most:
                return
            held = self._held.get(key)
            if held is not None and not held.users:
                del self._held[key]
                await held.stack.aclose()
