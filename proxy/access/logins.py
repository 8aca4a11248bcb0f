"""User names and passwords that upstreams accept: asked once, and again when it was long ago."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Counter

from proxy.oci.access import Login
from proxy.oci.errors import Overloaded, Refused
from proxy.oci.lease import Lease
from proxy.virtual.flight import Flights
from proxy.virtual.recent import Recent

_MOST: Final = 10_000  # logins that are remembered, good ones and bad ones each
_AGAIN: Final = 5.0  # seconds for which a login that was refused isn't tried again: registries lock accounts
_MOST_AT_ONCE: Final = 8  # new logins of one client that are asked about: who guesses leaves connections for others
_MOST_IN_LINE: Final = 256  # of one client, those that are being asked about included

Greet = Callable[[str, Login], Awaitable[None]]
"""Asks an upstream, by its name, whether it accepts a login now. Raises `Refused` or `NoAnswer`."""


@dataclass(slots=True)
class _Line:
    """Those who wait for one client, and those whose turn it is."""

    length: int = 0
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_AT_ONCE))


class Logins:
    """Which logins upstreams accept. What one of them has said counts for *seconds*, also while it is down.

    They are remembered by a keyed hash, and refusals by their words: a stranger may send long ones, and many.
    """

    def __init__(self, greet: Greet, seconds: float, clock: Callable[[], float], coalesced: Counter) -> None:
        """Take what is needed; *clock* has seconds since the epoch."""
        self._greet = greet
        self._seconds = seconds
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._accepted: Recent[bytes, Lease] = Recent(_MOST)
        self._refused: Recent[bytes, tuple[str, int]] = Recent(_MOST)
        self._questions: Flights[tuple[str, Login], Lease] = Flights(coalesced)
        self._lines: dict[str, _Line] = {}

    async def close(self) -> None:
        """Stop asking."""
        await self._questions.close()

    async def accepted(self, upstream: str, login: Login, client: str | None = None) -> Lease:
        """Return how long *login* counts at *upstream*. Raises `Refused` or `NoAnswer`.

        Args:
            client: Who has sent it, so that whoever tries many leaves the upstream to others; None for nobody in
                particular.
        """
        key, now = self._hashed(upstream, login), self._clock()
        lease = self._accepted.get(key, now)
        if lease is not None:
            return lease
        refused = self._refused.get(key, now)
        if refused is not None:
            message, seen = refused
            raise Refused(message, seen=seen)
        return await self._questions.join((upstream, login), lambda: self._asked_in_turn(key, upstream, login, client))

    def _hashed(self, upstream: str, login: Login) -> bytes:
        text = f"{upstream}\0{login.username}\0{login.password}"
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256")

    async def _asked_in_turn(self, key: bytes, upstream: str, login: Login, client: str | None) -> Lease:
        if client is None or self._accepted.last(key) is not None:  # a login that was good is no guess
            return await self._asked(key, upstream, login)
        async with self._turn(client):
            return await self._asked(key, upstream, login)

    @asynccontextmanager
    async def _turn(self, client: str) -> AsyncIterator[None]:
        """Wait in *client*'s line. Raises `Overloaded` where it is too long."""
        line = self._lines.setdefault(client, _Line())
        if line.length >= _MOST_IN_LINE:
            raise Overloaded("too many logins of this client are being asked about at once", retry_after="1")
        line.length += 1
        try:
            async with line.turns:
                yield
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[client]

    async def _asked(self, key: bytes, upstream: str, login: Login) -> Lease:
        asked = self._clock()
        try:
            await self._greet(upstream, login)
        except Refused as refused:
            self._accepted.drop(key)
            now = self._clock()
            self._refused.put(key, (refused.message, refused.seen), now + _AGAIN, since=now)
            raise
        lease = Lease()
        lease.begins, lease.until = asked, asked + self._seconds
        self._accepted.put(key, lease, lease.until, since=asked)
        return lease
