"""Pushes on the wire: bodies are streamed on, and every `Location` leads back here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final, get_args

from aiohttp import web

from proxy.oci.content import MAX_MANIFEST
from proxy.oci.endpoint import BlobAt, Endpoint, ManifestAt, UploadAt
from proxy.oci.errors import TooLarge, Unsupported
from proxy.oci.write import BLOB, GOING_ON, MANIFEST, OPENING, SENT, Method, Target, Write, Written, digest_of
from proxy.web.request import Request

METHODS: Final = frozenset(get_args(Method)) - {"GET"}

_READ: Final = ("GET", "HEAD")


class ClientLeft(ConnectionError):
    """The client left in the middle of a body; there is nobody to answer."""


async def write(request: Request, endpoint: Endpoint) -> web.StreamResponse:
    """Pass one step of a push on, and answer as the registry did. Raises `Unsupported` for what can't be written."""
    if not isinstance(endpoint, UploadAt | ManifestAt | BlobAt):
        raise Unsupported(f"{request.http.method} is not allowed here: GET and HEAD are")
    registry, repository = request.find(endpoint.repository)
    there = replace(endpoint, repository=repository)
    registry.check_write(there)
    query = _without_namespace(request.http.rel_url.raw_query_string)
    step = Write(method=_method(endpoint, request.http.method), at=there, query=query, headers=_sent(request))
    if not request.http.body_exists:
        return _respond(request, endpoint, step, await registry.write(replace(step, length=0)))
    _expected(request.http)
    incoming = _Incoming(request.http)
    try:
        written = await registry.write(await _with_body(step, incoming))
    except Exception:
        if incoming.broken:
            raise ClientLeft("the client left in the middle of its body") from None
        raise
    return _respond(request, endpoint, step, written)


def _method(endpoint: Target, method: str) -> Method:
    """Return a method that writes to *endpoint*. Raises `Unsupported` for any other."""
    others: tuple[str, ...] = ()
    match endpoint:
        case UploadAt(session=""):
            methods = OPENING
        case UploadAt():
            methods = GOING_ON
        case ManifestAt():
            methods, others = MANIFEST, _READ
        case BlobAt():
            methods, others = BLOB, _READ
    for known in methods:
        if known == method:
            return known
    allowed = (*others, *methods)
    raise Unsupported(f"{method[:20]} is not allowed here: {', '.join(allowed)} are", allowed=allowed)


class _Incoming:
    """A request's body, passed on as it comes; *broken* when the client didn't send all of it."""

    def __init__(self, http: web.BaseRequest) -> None:
        self._http = http
        self.length = http.content_length
        self.broken = False

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._http.content.iter_any():
                yield chunk
        except Exception:
            self.broken = True
            raise

    async def whole(self, limit: int) -> bytes:
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise TooLarge(f"the manifest has more than {limit} bytes")
        return bytes(body)


async def _with_body(step: Write, incoming: _Incoming) -> Write:
    """Take a manifest into memory, where it can be read and sent twice; everything else passes through."""
    if isinstance(step.at, ManifestAt):
        body = await incoming.whole(MAX_MANIFEST)
        return replace(step, body=body, length=len(body))
    return replace(step, body=incoming.chunks(), length=incoming.length)


def _expected(http: web.BaseRequest) -> None:
    """Let a client that waits for it send its body: aiohttp does so only in applications."""
    if http.headers.get("Expect", "").lower() == "100-continue" and http.transport is not None:
        http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _sent(request: Request) -> dict[str, str]:
    headers = request.http.headers
    return {name: headers[name] for name in SENT if name in headers}


def _without_namespace(query: str) -> str:
    """Leave out `ns`, which is ours; everything else goes back to the registry as it came."""
    return "&".join(part for part in query.split("&") if part and part.partition("=")[0] != "ns")


def _respond(request: Request, at: Target, step: Write, written: Written) -> web.StreamResponse:
    response = web.Response(status=written.status, headers={**written.headers, **request.namespace()})
    location = _location(request, at, step, written)
    if location:
        response.headers["Location"] = location
    return response


def _location(request: Request, at: Target, step: Write, written: Written) -> str:
    """Say where an upload goes on, or where what was written is now."""
    if written.session:
        return request.location(UploadAt(at.repository, written.session).path, written.query)
    if written.status != 201:
        return ""
    if isinstance(at, UploadAt):
        digest = step.digest or digest_of(step.query, "mount")
        return request.location(BlobAt(at.repository, digest).path) if digest else ""
    return request.location(at.path)
