"""Holding the limits of a port: connections, requests in flight, rates and bodies are counted here.

Nothing here grows with what clients send: tables have an entry for an open connection, a request in flight, or one of
as many clients as `Rates` knows.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from aiohttp import StreamReader, web

from proxy.oci.errors import TooLarge
from proxy.telemetry import Metrics
from proxy.web.forwarded import Networks, forwarded_for, is_trusted
from proxy.web.limits import BODY_CREDIT, BodyTooSlow, HeadTooLarge, Limits, TooMany, network, wire
from proxy.web.rates import Rates

_MAX_TURNED_AWAY: Final = 128  # connections that are told why they are closed, at once
_PATIENCE: Final = 1.0  # seconds that they have to send what is answered
_QUIET: Final = 60.0  # seconds between two lines in the log about the same reason
_WORDS: Final = {
    "connections": (503, "too many connections are open"),
    "connections_per_client": (429, "this client has too many connections"),
    "requests": (503, "too many requests are being answered"),
    "requests_per_client": (429, "this client has too many requests in flight"),
    "streams_per_client": (429, "this client has too many blobs on their way from registries"),
    "manifests_max": (503, "too many manifests are being pushed"),
    "rate": (429, "this client sends too many requests"),
}

_log: Final = structlog.get_logger("limits")


class Gate:
    """Lets clients in as far as the limits go, and counts and logs those that it doesn't."""

    def __init__(
        self,
        limits: Limits,
        metrics: Metrics | None = None,
        trusted: Networks = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is needed.

        Args:
            trusted: Networks of reverse proxies: their connections are many clients', which `X-Forwarded-For` names.
            clock: Seconds that never go backwards.
        """
        self.limits = limits
        self.rates = Rates(limits.rate, limits.burst, clock) if limits.rate else None
        self.connections = 0
        self._metrics = metrics
        self._trusted = trusted
        self._clock = clock
        self._connections_of: dict[str, int] = {}
        self._requests = 0
        self._requests_of: dict[str, int] = {}
        self._streams_of: Counter[str] = Counter()
        self._manifests = 0
        self._manifests_of: Counter[str] = Counter()
        self._turned_away = 0
        self._told: dict[str, tuple[float, int]] = {}
        if metrics is not None:
            metrics.settling(self.settle)

    def client(self, address: str | None) -> str | None:
        """Return what the limits for one client go by; None for a reverse proxy, and where they don't matter."""
        if address is None or not self.limits.tell_clients_apart:
            return None
        if self._trusted and is_trusted(address, self._trusted):
            return None
        return network(address)

    def asking(self, request: web.BaseRequest, client: str | None) -> str | None:
        """Return who sent a request over the connection of *client*: behind a reverse proxy whom that names."""
        if client is not None or not self._trusted or not self.limits.tell_clients_apart:
            return client
        named = forwarded_for(request, self._trusted)
        return network(named) if named else None

    def enter(self, client: str | None) -> str | None:
        """Count a connection. Returns the reason where there may be no other one; then it isn't counted."""
        if self.connections >= self.limits.connections:
            return "connections"
        most = self.limits.connections_per_client
        if client is not None and most:
            open_now = self._connections_of.get(client, 0)
            if open_now >= most:
                return "connections_per_client"
            self._connections_of[client] = open_now + 1
        self.connections += 1
        return None

    def leave(self, client: str | None) -> None:
        """Count a connection that was let in as closed."""
        self.connections -= 1
        if client is not None and self.limits.connections_per_client:
            _count_down(self._connections_of, client)

    @contextmanager
    def answering(self, client: str | None) -> Iterator[None]:
        """Count a request of *client* as in flight while the block runs. Raises `TooMany`."""
        if self.rates is not None and not self.rates.take(client):
            raise self._too_many("rate", self.rates.wait(client))
        if self._requests >= self.limits.requests:
            raise self._too_many("requests")
        most = self.limits.requests_per_client if client is not None else 0
        if client is not None and most:
            in_flight = self._requests_of.get(client, 0)
            if in_flight >= most:
                raise self._too_many("requests_per_client")
            self._requests_of[client] = in_flight + 1
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            if client is not None and most:
                _count_down(self._requests_of, client)

    @contextmanager
    def streaming(self, client: str | None) -> Iterator[None]:
        """Count a blob as on its way from a registry to *client* while the block runs. Raises `TooMany`.

        However slowly it is read, a connection to the registry is taken: no client may have all of them.
        """
        most = self.limits.streams_per_client
        if client is None or not most:
            yield
            return
        if self._streams_of[client] >= most:
            raise self._too_many("streams_per_client")
        self._streams_of[client] += 1
        try:
            yield
        finally:
            _count_down(self._streams_of, client)

    def count(self, reason: str) -> None:
        """Count something that was refused, or came to nothing, for the metrics alone."""
        if self._metrics is not None:
            self._metrics.rejected.labels(reason).inc()

    def refused(self, reason: str) -> None:
        """Count something that was refused; the log has a line for each reason once a minute at most."""
        self.count(reason)
        last, count = self._told.get(reason, (-math.inf, 0))
        now, count = self._clock(), count + 1
        if now - last >= _QUIET:
            _log.warning("clients refused", reason=reason, count=count)
            last, count = now, 0
        self._told[reason] = (last, count)

    def turn_away(self, transport: asyncio.Transport, reason: str) -> None:
        """Close a connection that may not be: with a word, as long as there aren't too many to be told."""
        self.refused(reason)
        if self._turned_away >= _MAX_TURNED_AWAY:
            transport.abort()
            return
        self._turned_away += 1
        transport.set_protocol(_TurnedAway(transport, wire(_error(reason)), self._let_go))

    def settle(self) -> None:
        """Let the metrics know how many connections there are."""
        if self._metrics is not None:
            self._metrics.connections.set(self.connections)

    def check_head(self, request: web.BaseRequest) -> None:
        """Raise `HeadTooLarge` for a head that has more bytes than it may."""
        fields = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
        if len(request.raw_path) + fields > self.limits.header_max:
            raise self.head_too_large()

    def head_too_large(self) -> HeadTooLarge:
        """Count a head that is too large, and return what is said of it."""
        self.refused("header_max")
        most, fields = self.limits.header_max, self.limits.header_fields
        return HeadTooLarge(f"the head of the request has more than {most} bytes or {fields} fields")

    def check_body(self, length: int | None) -> None:
        """Raise `TooLarge` for a body, or a part of a blob, of which is known that it ends behind the limit."""
        if length is not None and length > self.limits.upload_max:
            self.refused("upload_max")
            raise TooLarge(f"more than {self.limits.upload_max} bytes are not taken")

    @contextmanager
    def holding(self, client: str | None) -> Iterator[Callable[[int], None]]:
        """Count bytes of a manifest of *client* as in memory while the block runs.

        What is yielded is told of them, and raises `TooMany` where there are too many.
        """
        taken, most = 0, self.limits.manifests_max

        def take(count: int) -> None:
            nonlocal taken
            theirs = self._manifests_of[client] + count if client is not None else 0
            if self._manifests + count > most or theirs > most // 2:
                raise self._too_many("manifests_max")
            taken += count
            self._manifests += count
            if client is not None:
                self._manifests_of[client] = theirs

        try:
            yield take
        finally:
            self._manifests -= taken
            if client is not None and taken:
                self._manifests_of[client] -= taken
                if not self._manifests_of[client]:
                    del self._manifests_of[client]

    async def body(self, content: StreamReader) -> AsyncIterator[bytes]:
        """Yield a body as it comes. Raises `TooLarge` or `BodyTooSlow`.

        Time counts only while the client is waited for, and each `BODY_CREDIT` bytes are worth the whole of it: who
        sends a byte at a time is cut off, who waits for us isn't.
        """
        loop, patience = asyncio.get_running_loop(), self.limits.body_timeout
        total, credit, left = 0, 0, patience
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout(left):
                    chunk = await content.readany()
            except TimeoutError:
                self.refused("body_timeout")
                raise BodyTooSlow("the body of the request comes too slowly") from None
            if not chunk:
                return
            total += len(chunk)
            credit += len(chunk)
            left -= loop.time() - began
            if credit >= BODY_CREDIT:
                credit, left = 0, patience
            self.check_body(total)
            yield chunk

    def _too_many(self, reason: str, seconds: float = 1.0) -> TooMany:
        self.refused(reason)
        return _error(reason, seconds)

    def _let_go(self) -> None:
        self._turned_away -= 1


class _TurnedAway(asyncio.Protocol):
    """A connection too many. It is answered once it has asked: closed before that, its answer might never arrive."""

    def __init__(self, transport: asyncio.Transport, answer: bytes, let_go: Callable[[], None]) -> None:
        self._transport = transport
        self._answer = answer
        self._let_go = let_go
        self._end = asyncio.get_running_loop().call_later(_PATIENCE, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answer, whatever it is."""
        if not self._transport.is_closing():
            self._transport.write(self._answer)
            self._transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._end.cancel()
        self._let_go()


def _error(reason: str, seconds: float = 1.0) -> TooMany:
    status, words = _WORDS[reason]
    return TooMany(words, status=status, reason=reason, seconds=seconds)


def _count_down(counts: dict[str, int], client: str) -> None:
    counts[client] -= 1
    if not counts[client]:
        del counts[client]
