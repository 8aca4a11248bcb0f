"""What is true for a few seconds only: why the last attempt failed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A mapping whose items end by themselves, and which forgets the oldest when there are too many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: dict[Key, tuple[Value, float]] = {}

    def __len__(self) -> int:
        """Count the items, ended ones included."""
        return len(self._items)

    def get(self, key: Key, now: float) -> Value | None:
        """Return the value of *key* if it still holds at *now*."""
        item = self._items.get(key)
        return item[0] if item is not None and now < item[1] else None

    def last(self, key: Key) -> Value | None:
        """Return the value of *key*, whether it still holds or not."""
        item = self._items.get(key)
        return item[0] if item is not None else None

    def until(self, key: Key) -> float:
        """Return when *key*'s item ends; the beginning of time where there is none."""
        item = self._items.get(key)
        return item[1] if item is not None else -math.inf

    def put(self, key: Key, value: Value, until: float) -> None:
        """Let *value* hold for *key* until then."""
        self._items.pop(key, None)
        if len(self._items) >= self._most:
            del self._items[next(iter(self._items))]
        self._items[key] = (value, until)

    def drop(self, key: Key) -> None:
        """End *key*'s item now."""
        self._items.pop(key, None)

    def shrink(self, weight: Callable[[Value], int], most: int) -> None:
        """Forget the oldest items until all together weigh *most* at most."""
        total = sum(weight(value) for value, _ in self._items.values())
        while total > most:
            key = next(iter(self._items))
            total -= weight(self._items.pop(key)[0])
