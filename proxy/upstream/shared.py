"""Work done once for all who want its outcome at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from proxy.oci.errors import RegistryError

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Shared(Generic[Key, Value]):
    """One piece of work under way for each key.

    Its outcome, value or `RegistryError`, is that of all who wait for it. When the one who does it leaves, the next
    does it.
    """

    def __init__(self) -> None:
        self._under_way: dict[Key, asyncio.Future[Value]] = {}

    def __len__(self) -> int:
        """Return how much is under way."""
        return len(self._under_way)

    async def do(self, key: Key, work: Callable[[], Awaitable[Value]]) -> Value:
        """Return what *work* makes, here or where it is being done already. Raises what it raises."""
        while (other := self._under_way.get(key)) is not None:
            await asyncio.wait([other])
            if not other.cancelled():
                return other.result()
        outcome = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            value = await work()
        except RegistryError as error:
            outcome.set_exception(error)
            outcome.exception()  # seen, also when nobody waits
            raise
        else:
            outcome.set_result(value)
            return value
        finally:
            outcome.cancel()  # nothing, where it has come
            del self._under_way[key]
