"""Long lists of names, put together once for all callers and remembered for a while, so that paging costs nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from prometheus_client import Counter

from proxy.virtual.budget import Budget
from proxy.virtual.flight import Flights
from proxy.virtual.recent import Recent

_MAX_NAMES: Final = 500_000  # remembered, of all lists together
_MAX_LISTS: Final = 1_000
LONGEST: Final = 600.0
"""Seconds that a list is remembered at most, even where tags never move: new ones come."""
_FLIGHT_SECONDS: Final = 60.0  # after which a list is given up, whoever still waits

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Listing:
    """All names, sorted by their bytes, and sentences about what they lack."""

    names: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def page(self, limit: int | None, last: str) -> tuple[tuple[str, ...], bool]:
        """Return at most *limit* names that sort behind *last*, and whether others follow."""
        start = bisect_right(self.names, last)
        end = len(self.names) if limit is None else min(start + limit, len(self.names))
        return self.names[start:end], end < len(self.names)


class Lists(Generic[Key]):
    """Remembered lists, each in one flight at a time."""

    def __init__(self, clock: Callable[[], float], coalesced: Counter, longest: float = LONGEST) -> None:
        """Take what is needed.

        Args:
            clock: Seconds since the epoch.
            longest: Seconds that a list is remembered at most.
        """
        self._longest = longest
        self._clock = clock
        self._flights: Flights[Key, Listing] = Flights(coalesced)
        self._recent: Recent[Key, Listing] = Recent(_MAX_LISTS)
        self._current: dict[Key, object] = {}
        self._budget = Budget(_FLIGHT_SECONDS)

    async def close(self) -> None:
        """Stop asking."""
        await self._flights.close()

    async def of(self, key: Key, seconds: float, ask: Callable[[], Coroutine[Any, Any, Listing]]) -> Listing:
        """Return the list of *key*, which *ask* puts together where none is remembered.

        Args:
            seconds: How long it is remembered, ten minutes at most.
        """
        known = self._recent.get(key, self._clock())
        if known is not None:
            return known
        return await self._flights.join(key, lambda: self._asked(key, min(seconds, self._longest), ask))

    def forget(self, key: Key) -> None:
        """Let the next caller ask anew; what is under way may have begun too early to see what changed."""
        self._recent.drop(key)
        self._current.pop(key, None)
        self._flights.leave(key)

    async def _asked(self, key: Key, seconds: float, ask: Callable[[], Coroutine[Any, Any, Listing]]) -> Listing:
        mine = self._current[key] = object()
        try:
            listing = await self._budget.spend(ask(), f"the list of {key}")
        finally:
            current = self._current.get(key) is mine
            if current:
                del self._current[key]
        if current and len(listing.names) <= _MAX_NAMES:
            now = self._clock()
            self._recent.put(key, listing, now + seconds, since=now)
            self._recent.shrink(lambda kept: len(kept.names), _MAX_NAMES)
        return listing
