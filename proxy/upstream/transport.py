"""HTTP to one upstream: pools, time limits, manners, redirects, and aiohttp's errors in our words."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from typing import Final, Self

import aiohttp
from yarl import URL

from proxy.oci.errors import BadAnswer, NoAnswer, TimedOut, Unreachable
from proxy.telemetry import Metrics
from proxy.upstream.breaker import Breaker, Trial
from proxy.upstream.guard import MAX_REDIRECTS, check_redirect
from proxy.upstream.ratelimit import Quota, RateLimit
from proxy.upstream.retry import NotConnected, Retries

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_FIELD: Final = 64 * 1024  # bearer tokens, signed Locations and Links outgrow aiohttp's 8 KiB
_READ_BUFFER: Final = 64 * 1024  # bytes; aiohttp holds twice as much for each transfer whose client is slow
_USER_AGENT: Final = "manifuse"
_COMMIT: Final = 300.0  # seconds a registry has for its answer when it has got the whole of an upload
_NO_RETRIES: Final = Retries()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds, but for *connections* and *failures*.

    Attributes:
        connect: For TCP and TLS.
        header: From sending a request to its response headers, waiting for a free connection and all attempts
            included.
        total: For a whole manifest, config, token or list. Blobs have no such limit.
        idle: Between two reads of a blob.
        connections: In each of the two pools: one for documents, one for blobs, so that pulls in progress
            never stand in front of the next tag.
        failures: Requests in a row without an answer after which a server is left alone for a while; 0 for never.
    """

    connect: float = 5.0
    header: float = 8.0
    total: float = 30.0
    idle: float = 60.0
    connections: int = 100
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """Somebody who is asked: the registry itself, or the token service that it sends us to."""

    breaker: Breaker
    rate_limit: RateLimit


class Transport:
    """Two keep-alive pools to one upstream. Open it with `async with`."""

    def __init__(
        self,
        name: str,
        url: URL,
        limits: Limits,
        metrics: Metrics,
        tls: ssl.SSLContext | None = None,
        *,
        retries: Retries = _NO_RETRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is needed.

        Args:
            clock: Seconds that never go backwards.
        """
        self.name = name
        self.url = url
        self._limits = limits
        self._metrics = metrics
        self._retries = retries
        self._clock = clock
        self.registry = Server(
            Breaker(name, limits.failures, clock, metrics.upstream_breaker_open.labels(name).set),
            RateLimit(name, clock, self._show),
        )
        tokens = f"the token service of {name}"
        self.tokens = Server(Breaker(tokens, limits.failures, clock), RateLimit(tokens, clock))
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._documents: aiohttp.ClientSession | None = None
        self._blobs: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the pools; nothing is connected yet."""
        self._documents = self._session()
        self._blobs = self._session()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close all connections."""
        for session in (self._documents, self._blobs):
            if session is not None:
                await session.close()

    @asynccontextmanager
    async def document(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        redirects: bool = True,
        server: Server | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for something small; the whole block has `total` seconds. Raises `NoAnswer`.

        Args:
            body: What is sent along; redirects aren't followed with one.
            server: Who is asked, if not the registry itself.
        """
        server = server or self.registry
        server.rate_limit.check()
        with server.breaker.trial() as trial:
            async with (
                self._within(self._limits.total, f"{self.name} didn't finish its answer"),
                self._send(
                    self._documents,
                    method,
                    url,
                    headers,
                    server,
                    trial,
                    body=body,
                    redirects=redirects and body is None,
                ) as response,
            ):
                yield response

    @asynccontextmanager
    async def upload(
        self, method: str, url: URL, headers: Mapping[str, str], body: AsyncIterator[bytes]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a *body* that passes only once, however long it takes to come. Raises `NoAnswer`.

        The answer has `_COMMIT` seconds after its last byte: a registry may have to move what it got. There is no
        second attempt, and no redirect is followed.
        """
        if self._blobs is None:
            raise RuntimeError("the transport is not open")
        with self.registry.breaker.trial() as trial:
            response = await self._once(self._blobs, method, url, headers, body=body, timeout=self._patient())
            try:
                trial.saw(response.status)
                yield response
            finally:
                response.release()

    @asynccontextmanager
    async def stream(
        self, url: URL, headers: Mapping[str, str], *, redirects: bool = True
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for a blob. Raises `NoAnswer` before the block; errors of reading are the reader's to translate.

        Rate limits are for documents: a pull that has its manifest is let finish.
        """
        with self.registry.breaker.trial() as trial:
            sent = self._send(self._blobs, "GET", url, headers, self.registry, trial, redirects=redirects)
            async with sent as response:
                trial.settle()  # a layer may take hours
                yield response

    async def read(self, response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
        """Read a body of at most *limit* bytes. Raises `BadAnswer` for more, `NoAnswer` for less than announced."""
        if (response.content_length or 0) > limit:
            raise BadAnswer(
                f"{self.name} sent a {what} of {response.content_length} bytes, at most {limit} are accepted"
            )
        body = bytearray()
        with self._translated():
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise BadAnswer(f"{self.name} sent a {what} of more than {limit} bytes")
        return bytes(body)

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """Yield a body as it comes. Raises `NoAnswer` when it breaks off."""
        try:
            with self._translated():
                async for chunk in response.content.iter_any():
                    yield chunk
        except NoAnswer:
            response.close()  # its place in the pool is needed to ask for the rest
            raise

    async def first(self, chunks: AsyncGenerator[bytes, None]) -> bytes:
        """Wait for the first of *chunks*, `header` seconds at most; empty where there is none."""
        async with self._within(self._limits.header, f"{self.name} didn't begin to send"):
            return await anext(chunks, b"")

    @asynccontextmanager
    async def _send(
        self,
        session: aiohttp.ClientSession | None,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        server: Server,
        trial: Trial,
        *,
        redirects: bool,
        body: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and follow redirects. What their targets do says nothing about *server*."""
        if session is None:
            raise RuntimeError("the transport is not open")
        for hop in range(MAX_REDIRECTS + 1):
            response = await self._persistently(session, method, url, headers, None if hop else server, body)
            try:
                if not hop:
                    trial.saw(response.status)
                location = response.headers.get("Location", "")
                if not redirects or response.status not in REDIRECTS:
                    yield response
                    return
                trial.settle()
                target = check_redirect(self.url, url, location)
                if target.origin() != url.origin():
                    headers = {name: value for name, value in headers.items() if name != "Authorization"}
                url = target
            finally:
                response.release()
        raise BadAnswer(f"{self.name} redirected more than {MAX_REDIRECTS} times")

    async def _persistently(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        server: Server | None,
        body: bytes | None,
    ) -> aiohttp.ClientResponse:
        """Send a request, and again where that may help; `header` seconds for all attempts together."""
        end = self._clock() + self._limits.header
        async with self._within(self._limits.header, f"{self.name} didn't answer"):
            for attempt in count():
                outcome: aiohttp.ClientResponse | NoAnswer
                try:
                    outcome = await self._once(session, method, url, headers, body=body)
                except NoAnswer as error:
                    outcome = error
                pause = self._pause(attempt, outcome, end - self._clock(), server)
                if isinstance(outcome, NoAnswer):
                    if pause is None:
                        raise outcome
                elif pause is None:
                    return outcome
                else:
                    outcome.release()
                await self._retries.sleep(pause)
        raise AssertionError("attempts have an end")

    def _pause(
        self, attempt: int, outcome: aiohttp.ClientResponse | NoAnswer, left: float, server: Server | None
    ) -> float | None:
        """Return how long to wait before the next attempt, or None. A server that is left alone gets none."""
        if isinstance(outcome, NoAnswer):
            wait, asked_for = self._retries.pause(attempt, outcome, left=left), 0.0
        else:
            asked_for = server.rate_limit.heard(outcome.status, outcome.headers) if server else 0.0
            wait = self._retries.pause(attempt, outcome.status, left=left, asked_for=asked_for)
        return wait if server is None or server.breaker.is_closed else None

    async def _once(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        body: bytes | AsyncIterator[bytes] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - aiohttp's own limits, not one of a caller
    ) -> aiohttp.ClientResponse:
        """Send one request and wait for its headers; every outcome is counted."""
        began = time.perf_counter()
        status = "error"
        try:
            with self._translated():
                response = await session.request(
                    method,
                    url,
                    headers=headers,
                    data=BytesIO(body) if isinstance(body, bytes) else body,  # sent in pieces, others get their turn
                    allow_redirects=False,
                    timeout=timeout or session.timeout,
                    skip_auto_headers=("Content-Type",) if body is not None else None,
                )
            status = str(response.status)
        finally:
            self._metrics.upstream_requests.labels(self.name, method, status).inc()
            self._metrics.upstream_seconds.labels(self.name).observe(time.perf_counter() - began)
        return response

    @asynccontextmanager
    async def _within(self, seconds: float, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise TimedOut(f"{what} within {seconds:g} s") from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn aiohttp's errors into ours, naming the real cause: DNS, TLS, refused, broken off, not HTTP."""
        try:
            yield
        except aiohttp.ConnectionTimeoutError:
            raise NotConnected(f"{self.name} ({self.url.authority}): no connection in time") from None
        except aiohttp.ServerTimeoutError as error:
            raise TimedOut(f"{self.name} was silent for too long ({type(error).__name__})") from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise self._error(error) from None

    def _error(self, error: Exception) -> NoAnswer:
        place = f"{self.name} ({self.url.authority})"
        match error:
            case aiohttp.ClientConnectorDNSError():
                return Unreachable(f"{place}: the host name can't be resolved")
            case aiohttp.ClientConnectorCertificateError():
                return Unreachable(f"{place}: the TLS certificate is not trusted: {error.certificate_error}")
            case aiohttp.ClientSSLError():
                return Unreachable(f"{place}: TLS failed: {error}")
            case aiohttp.ClientConnectorError():
                return Unreachable(f"{place}: no connection: {_reason(error.os_error)}")
            case aiohttp.ServerDisconnectedError():
                return Unreachable(f"{place} closed the connection without an answer")
            case aiohttp.ClientPayloadError() | OSError():
                return Unreachable(f"{place} broke off in the middle of an answer")
            case aiohttp.ClientResponseError():
                return BadAnswer(f"{place} doesn't speak proper HTTP: {error.message[:120]}")
            case _:
                return BadAnswer(f"{place}: {type(error).__name__}")

    def _show(self, quota: Quota) -> None:
        self._metrics.upstream_ratelimit_limit.labels(self.name).set(quota.limit)
        self._metrics.upstream_ratelimit_remaining.labels(self.name).set(quota.remaining)

    def _patient(self) -> aiohttp.ClientTimeout:
        """Return limits for an upload: aiohttp waits for the answer only from the body's last byte on."""
        limits = self._limits
        return aiohttp.ClientTimeout(total=None, sock_connect=limits.connect, sock_read=max(limits.idle, _COMMIT))

    def _session(self) -> aiohttp.ClientSession:
        limits = self._limits
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=limits.connections, limit_per_host=0, ssl=self._tls, keepalive_timeout=60, ttl_dns_cache=30
            ),
            # Header and total limits are ours; aiohttp's own total would cut large layers.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect, sock_read=limits.idle),
            # No content coding anywhere: what is hashed is what was sent.
            headers={"Accept-Encoding": "identity", "User-Agent": _USER_AGENT},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            requote_redirect_url=False,
            max_line_size=_MAX_FIELD,
            max_field_size=_MAX_FIELD,
            read_bufsize=_READ_BUFFER,
        )


def _reason(error: OSError) -> str:
    """Say why in the system's words: asyncio's own name the address instead."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
