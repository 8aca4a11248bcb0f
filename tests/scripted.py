"""An upstream that does as it is told: a memory registry over HTTP, with faults on request."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from multidict import CIMultiDictProxy

from proxy.memory import MemoryRegistry
from proxy.telemetry import Metrics
from proxy.web.distribution import Distribution
from proxy.web.request import always
from proxy.web.server import listen

Fault = Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]]
"""Answers a request, or returns None to let the registry answer it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request that came."""

    method: str
    path: str
    query: str
    headers: CIMultiDictProxy[str]

    def __str__(self) -> str:
        """Write it as a test compares it."""
        return f"{self.method} {self.path.removeprefix('/v2/')}"


@dataclass
class Origin:
    """A memory registry that listens, records, and fails where it was told to."""

    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    requests: list[Recorded] = field(default_factory=list)
    faults: list[tuple[re.Pattern[str], Fault]] = field(default_factory=list)
    address: tuple[str, int] = ("", 0)

    @property
    def url(self) -> str:
        """Where it is."""
        return "http://{}:{}".format(*self.address)

    @property
    def asked(self) -> list[str]:
        """The requests so far, sorted: those sent at once have no order."""
        return sorted(str(request) for request in self.requests)

    def fail(self, pattern: str, fault: Fault) -> None:
        """Let *fault* answer requests whose `METHOD path` *pattern* is found in. The latest fault counts."""
        self.faults.insert(0, (re.compile(pattern), fault))

    def heal(self) -> None:
        """Take all faults back."""
        self.faults.clear()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.rel_url.raw_path
        self.requests.append(Recorded(request.method, path, request.rel_url.raw_query_string, request.headers))
        for pattern, fault in self.faults:
            if pattern.search(f"{request.method} {path}"):
                answer = await fault(request)
                if answer is not None:
                    return answer
        return await Distribution(always(self.registry), Metrics()).handle(request)


@asynccontextmanager
async def running(origin: Origin) -> AsyncIterator[Origin]:
    """Let *origin* listen on a free port."""
    async with listen(origin.handle, ("127.0.0.1", 0), drain=0.1) as address:
        origin.address = address
        yield origin


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer *code*. Header names are written with underscores."""

    async def fault(request: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, body=body, headers=named)

    return fault


def html(code: int = 200) -> Fault:
    """Answer a login page."""
    return status(code, b"<!doctype html><title>Log in</title>", Content_Type="text/html")


def hang() -> Fault:
    """Never answer."""

    async def fault(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response(status=504)

    return fault


def waits_for(gate: asyncio.Event) -> Fault:
    """Answer as usual, but only when *gate* opens."""

    async def fault(request: web.BaseRequest) -> None:
        await gate.wait()

    return fault


def reset() -> Fault:
    """Close the connection without an answer."""

    async def fault(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return fault


def truncated(body: bytes, announced: int, **headers: str) -> Fault:
    """Announce more bytes than are sent, then close the connection."""

    async def fault(request: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = web.StreamResponse(headers={**named, "Content-Length": str(announced)})
        await response.prepare(request)
        await response.write(body)
        assert request.transport is not None
        request.transport.close()
        return response

    return fault


def endless(chunk: bytes = b" " * 65536, **headers: str) -> Fault:
    """Send chunk after chunk, 64 MiB at most, without a length."""

    async def fault(request: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = web.StreamResponse(headers=named)
        await response.prepare(request)
        for _ in range(1024):
            await response.write(chunk)
        return response

    return fault


def once(fault: Fault) -> Fault:
    """Let *fault* answer one request, the registry all others."""
    left = [fault]

    async def first(request: web.BaseRequest) -> web.StreamResponse | None:
        return await left.pop()(request) if left else None

    return first
