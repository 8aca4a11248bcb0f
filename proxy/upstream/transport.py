"""HTTP to one upstream: pools, time limits, manners, redirects."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from types import SimpleNamespace
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from proxy.oci.errors import BadAnswer, Crowded, NoAnswer, RegistryError, TimedOut
from proxy.telemetry import Metrics
from proxy.upstream.breaker import Breaker, Trial
from proxy.upstream.causes import translated
from proxy.upstream.guard import MAX_REDIRECTS, Bounds
from proxy.upstream.interim import Connector
from proxy.upstream.ratelimit import Quota, RateLimit
from proxy.upstream.resolver import BoundResolver
from proxy.upstream.retry import Retries

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


@dataclass(slots=True)
class _Place:
    """The place of one request in a pool; *waiting* while it stands in line for it."""

    waiting: bool = False


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
        others: ssl.SSLContext | None = None,
        realms: Collection[str] = (),
        redirect_hosts: Collection[str] = (),
        retries: Retries = _NO_RETRIES,
        clock: Callable[[], float] = time.monotonic,
        resolve: Callable[[], AbstractResolver] = aiohttp.ThreadedResolver,
    ) -> None:
        """Take what is needed.

        Args:
            tls: How to meet the upstream itself and its token service, None for the system's way.
            others: How to meet whoever they send us to, None for the system's way: our certificate isn't for them.
            realms: Origins that token realms may have beside the upstream's own.
            redirect_hosts: Hosts that redirects may lead to although they are private.
            clock: Seconds that never go backwards.
            resolve: Makes what turns names into addresses, when the pools are opened.
        """
        self.name = name
        self.url = url
        self.bounds = Bounds(url, realms, redirect_hosts)
        self._resolve = resolve
        self._limits = limits
        self._metrics = metrics
        self._retries = retries
        self._clock = clock
        self.registry = Server(
            Breaker(name, limits.failures, clock, metrics.upstream_breaker_open.labels(name).set),
            RateLimit(name, clock, self._show),
        )
        self._tokens_name = f"the token service of {name}"
        self.tokens = Server(Breaker(self._tokens_name, limits.failures, clock), RateLimit(self._tokens_name, clock))
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._others: ssl.SSLContext | bool = True if others is None else others
        self._resolver: AbstractResolver | None = None
        self._documents: aiohttp.ClientSession | None = None
        self._blobs: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the pools; nothing is connected yet."""
        resolver = self._resolver = BoundResolver(self._resolve(), self.bounds)
        self._documents = self._session(resolver)
        self._blobs = self._session(resolver)
        return self

    def apart(self) -> Transport:
        """Return the same pools and breakers, once open, for somebody whose rate limits are their own.

        What is granted to one user, and that it is used up, says nothing of another.
        """
        theirs = copy(self)
        theirs.registry = Server(self.registry.breaker, RateLimit(self.name, self._clock, self._show))
        theirs.tokens = Server(self.tokens.breaker, RateLimit(self._tokens_name, self._clock))
        return theirs

    def retire(self) -> None:
        """Let metrics say no more of this upstream: only requests in flight are left, and another may have its name."""
        self.registry.breaker.retire()

    async def __aexit__(self, *exc: object) -> None:
        """Close all connections."""
        for session in (self._documents, self._blobs):
            if session is not None:
                await session.close()
        if self._resolver is not None:
            await self._resolver.close()

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
        about: str | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for something small; the whole block has `total` seconds. Raises `NoAnswer`.

        Args:
            body: What is sent along; redirects aren't followed with one.
            server: Who is asked, if not the registry itself.
            about: What for, where *url* doesn't say.
        """
        server = server or self.registry
        server.rate_limit.check()
        with server.breaker.trial(_subject(url) if about is None else about) as trial:
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
        with self.registry.breaker.trial(_subject(url)) as trial:
            place, passing = _Place(), _Passing(body)
            with self._in_line(place), passing.blamed():
                response = await self._once(
                    self._blobs, method, url, headers, place, body=passing.chunks(), timeout=self._patient()
                )
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
        with self.registry.breaker.trial(_subject(url)) as trial:
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
        with translated(self.name, self.url):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise BadAnswer(f"{self.name} sent a {what} of more than {limit} bytes")
        return bytes(body)

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """Yield a body as it comes. Raises `NoAnswer` when it breaks off."""
        try:
            with translated(self.name, self.url):
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
                target = self.bounds.redirect(url, location)
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
        end, place = self._clock() + self._limits.header, _Place()
        with self._in_line(place):
            async with self._within(self._limits.header, f"{self.name} didn't answer"):
                for attempt in count():
                    outcome: aiohttp.ClientResponse | NoAnswer
                    try:
                        outcome = await self._once(session, method, url, headers, place, body=body)
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
        place: _Place,
        *,
        body: bytes | AsyncIterator[bytes] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - aiohttp's own limits, not one of a caller
    ) -> aiohttp.ClientResponse:
        """Send one request and wait for its headers; every outcome is counted."""
        began = time.perf_counter()
        status = "error"
        try:
            with translated(self.name, self.url):
                response = await session.request(
                    method,
                    url,
                    headers=headers,
                    data=BytesIO(body) if isinstance(body, bytes) else body,  # sent in pieces, others get their turn
                    allow_redirects=False,
                    ssl=self._tls if self.bounds.trusts(url) else self._others,
                    timeout=timeout or session.timeout,
                    skip_auto_headers=("Content-Type",) if body is not None else None,
                    trace_request_ctx=place,
                )
            status = str(response.status)
        finally:
            self._metrics.upstream_requests.labels(self.name, method, status).inc()
            self._metrics.upstream_seconds.labels(self.name).observe(time.perf_counter() - began)
        return response

    @contextmanager
    def _in_line(self, place: _Place) -> Iterator[None]:
        """Say of a request that never got a connection that it was never sent: that is nothing the server has done."""
        try:
            yield
        except NoAnswer:
            if not place.waiting:
                raise
            most = self._limits.connections
            used = "connection is" if most == 1 else "connections are"
            raise Crowded(f"{self.name} wasn't asked: its {most} {used} in use", retry_after="1") from None

    @asynccontextmanager
    async def _within(self, seconds: float, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise TimedOut(f"{what} within {seconds:g} s") from None

    def _show(self, quota: Quota) -> None:
        self._metrics.upstream_ratelimit_limit.labels(self.name).set(quota.limit)
        self._metrics.upstream_ratelimit_remaining.labels(self.name).set(quota.remaining)

    def _patient(self) -> aiohttp.ClientTimeout:
        """Return limits for an upload: aiohttp waits for the answer only from the body's last byte on."""
        limits = self._limits
        return aiohttp.ClientTimeout(
            total=None, connect=limits.header, sock_connect=limits.connect, sock_read=max(limits.idle, _COMMIT)
        )

    def _session(self, resolver: AbstractResolver) -> aiohttp.ClientSession:
        limits = self._limits
        return aiohttp.ClientSession(
            connector=Connector(
                limit=limits.connections,
                limit_per_host=0,
                keepalive_timeout=60,
                ttl_dns_cache=30,
                resolver=resolver,
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
            trace_configs=[_tracing()],
        )


class _Passing:
    """A body that comes from somebody else, who may break it off: that is nothing the server has done."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._error: Exception | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Pass it on."""
        try:
            async for chunk in self._body:
                yield chunk
        except Exception as error:
            self._error = error
            raise

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Say of a request whose body broke off that nothing was learned of the server."""
        try:
            yield
        except NoAnswer:
            if self._error is None:
                raise
            reason = f": {self._error.message}" if isinstance(self._error, RegistryError) else ""
            raise NoAnswer(f"the body was broken off by whoever sent it{reason}") from None


def _subject(url: URL) -> str:
    """Return what may be broken by itself: a manifest, a list, or the blobs of a repository, which go together."""
    return url.raw_path.partition("/blobs/")[0]


def _tracing() -> aiohttp.TraceConfig:
    """Note whether a request stands in line for a connection."""

    async def begins(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
        context.trace_request_ctx.waiting = True

    async def ends(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
        context.trace_request_ctx.waiting = False

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_queued_start.append(begins)
    tracing.on_connection_queued_end.append(ends)
    return tracing
