"""How often a client may ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_MAX_RATES: Final = 1 << 16  # clients whose rate is known; at most some 10 MB


class Rates:
    """A token bucket for each client, as a single number: when it will be full again (the generic cell rate algorithm).

    A full one needs no entry. Where there are more clients than entries, the fullest buckets are forgotten.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float], most: int = _MAX_RATES) -> None:
        """Fill each bucket with *rate* tokens a second, up to *burst* of them."""
        self._interval = 1 / rate
        self._depth = (burst - 1) / rate
        self._clock = clock
        self._most = most
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        """Count the clients that are known."""
        return len(self._full_at)

    def take(self, client: str | None) -> bool:
        """Take a token of *client*, if there is one. Who isn't known isn't held up."""
        if client is None:
            return True
        now = self._clock()
        full_at = self._full_at.get(client, 0.0)
        if full_at - now > self._depth:
            return False
        self._full_at[client] = max(full_at, now) + self._interval
        if len(self._full_at) > self._most:
            self._forget(now)
        return True

    def wait(self, client: str | None) -> float:
        """Return the seconds until *client* has a token."""
        full_at = self._full_at.get(client, 0.0) if client is not None else 0.0
        return max(0.0, full_at - self._clock() - self._depth)

    def _forget(self, now: float) -> None:
        """Forget full buckets, and where they aren't enough the fuller half of all."""
        left = {client: at for client, at in self._full_at.items() if at > now}
        if len(left) > self._most // 2:
            emptiest = sorted(left.items(), key=lambda entry: entry[1], reverse=True)
            left = dict(emptiest[: self._most // 2])
        self._full_at = left
