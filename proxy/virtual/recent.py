"""What is true for a few seconds only: why the last attempt failed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A mapping whose items end by themselves, and which forgets the oldest when there are too many."""

    def __init__(self, most: int, forgotten: Callable[[Value], None] = lambda value: None) -> None:
        """Hold *most* items; *forgotten* is told of each that makes room for another."""
        self._most = most
        self._forgotten = forgotten
        self._items: dict[Key, tuple[Value, float, float]] = {}

    def __len__(self) -> int:
        """Count the items, ended ones included."""
        return len(self._items)

    def __iter__(self) -> Iterator[Value]:
        """Go through the values, ended ones included."""
        return iter([value for value, *_ in self._items.values()])

    def get(self, key: Key, now: float) -> Value | None:
        """Return the value of *key* if it holds at *now*. A clock that went backwards makes nothing hold for longer."""
        item = self._items.get(key)
        return item[0] if item is not None and item[1] <= now < item[2] else None

    def last(self, key: Key) -> Value | None:
        """Return the value of *key*, whether it still holds or not."""
        item = self._items.get(key)
        return item[0] if item is not None else None

    def until(self, key: Key) -> float:
        """Return when *key*'s item ends; the beginning of time where there is none."""
        item = self._items.get(key)
        return item[2] if item is not None else -math.inf

    def put(self, key: Key, value: Value, until: float, since: float = -math.inf) -> None:
        """Let *value* hold for *key* *since* now *until* then."""
        self._items.pop(key, None)
        if len(self._items) >= self._most:
            oldest, *_ = self._items.pop(next(iter(self._items)))
            self._forgotten(oldest)
        self._items[key] = (value, since, until)

    def drop(self, key: Key) -> None:
        """End *key*'s item now."""
        self._items.pop(key, None)

    def shrink(self, weight: Callable[[Value], int], most: int) -> None:
        """Forget the oldest items until all together weigh *most* at most."""
        total = sum(weight(value) for value, *_ in self._items.values())
        while total > most:
            key = next(iter(self._items))
            total -= weight(self._items.pop(key)[0])
