"""Pushes on the wire: bodies are streamed on, and every `Location` leads back here."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final, get_args
from urllib.parse import unquote_plus

from aiohttp import HttpVersion11, web

from proxy.oci.content import MAX_MANIFEST
from proxy.oci.endpoint import BlobAt, Endpoint, ManifestAt, UploadAt
from proxy.oci.errors import Invalid, NotFound, RegistryError, TooLarge, Unsupported
from proxy.oci.reference import Repository
from proxy.oci.registry import Served
from proxy.oci.write import (
    BLOB,
    GOING_ON,
    MANIFEST,
    OPENING,
    SENT,
    Method,
    Target,
    Write,
    Written,
    digest_of,
)
from proxy.web.request import Request

METHODS: Final = frozenset(get_args(Method)) - {"GET"}

_READ: Final = ("GET", "HEAD")
_MOUNT: Final = ("mount", "from")
_SEPARATOR: Final = re.compile("[&;]")


class ClientLeft(ConnectionError):
    """The client left in the middle of a body; there is nobody to answer."""


async def write(request: Request, endpoint: Endpoint) -> web.StreamResponse:
    """Pass one step of a push on, and answer as the registry did. Raises `Unsupported` for what can't be written."""
    if not isinstance(endpoint, UploadAt | ManifestAt | BlobAt):
        raise Unsupported(f"{request.http.method} is not allowed here: GET and HEAD are")
    registry, repository = request.find(endpoint.repository)
    there = replace(endpoint, repository=repository)
    registry.check_write(there)
    query = _mountable(request, registry, _without_namespace(request.http.rel_url.raw_query_string))
    step = Write(method=_method(endpoint, request.http.method), at=there, query=query, headers=_sent(request, endpoint))
    if not request.http.body_exists:
        return _respond(request, endpoint, step, await registry.write(replace(step, length=0)))
    incoming = _Incoming(request)
    _expected(request.http)
    try:
        with request.gate.holding(request.client) as take:
            written = await registry.write(await _with_body(step, incoming, take))
    except Exception:
        if incoming.refused is not None:
            raise incoming.refused from None
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
    """A request's body, passed on as it comes.

    It is *broken* when the client didn't send all of it, and *refused* when it came too slowly or is too large.
    """

    def __init__(self, request: Request) -> None:
        """Raise `TooLarge` for a body that says so itself."""
        self._http = request.http
        self._gate = request.gate
        self.length = request.http.content_length
        self.broken = False
        self.refused: RegistryError | None = None
        self._gate.check_body(self.length)
        self._gate.check_body(_end(request.http.headers.get("Content-Range", "")))

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._gate.body(self._http.content):
                yield chunk
        except RegistryError as error:
            self.refused = error
            raise
        except Exception:
            self.broken = True
            raise

    async def whole(self, limit: int, take: Callable[[int], None]) -> bytes:
        body = bytearray()
        async for chunk in self.chunks():
            take(len(chunk))
            body += chunk
            if len(body) > limit:
                raise TooLarge(f"the manifest has more than {limit} bytes")
        return bytes(body)


async def _with_body(step: Write, incoming: _Incoming, take: Callable[[int], None]) -> Write:
    """Take a manifest into memory, where it can be read and sent twice; everything else passes through."""
    if isinstance(step.at, ManifestAt):
        body = await incoming.whole(MAX_MANIFEST, take)
        return replace(step, body=body, length=len(body))
    return replace(step, body=incoming.chunks(), length=incoming.length)


def _expected(http: web.BaseRequest) -> None:
    """Let a client that waits for it send its body: aiohttp does so only in applications."""
    waits = http.version >= HttpVersion11 and http.headers.get("Expect", "").lower() == "100-continue"
    if waits and http.transport is not None:
        http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _end(content_range: str) -> int | None:
    """Return how many bytes of the blob there are with this part; what can't be read is the registry's to refuse."""
    last = content_range.removeprefix("bytes ").partition("/")[0].partition("-")[2]
    return int(last) + 1 if last.isascii() and last.isdigit() and len(last) < 20 else None


def _sent(request: Request, endpoint: Target) -> dict[str, str]:
    """Return what the registry is told of a body.

    The bytes of a blob are that and nothing else, whatever a client calls them: in a form many registries would look
    for a mount that nobody has checked.
    """
    headers = request.http.headers
    sent = {name: headers[name] for name in SENT if name in headers}
    if isinstance(endpoint, UploadAt) and "Content-Type" in sent:
        sent["Content-Type"] = "application/octet-stream"
    return sent


def _without_namespace(query: str) -> str:
    """Leave out `ns`, which is ours; everything else goes back to the registry as it came."""
    return "&".join(part for part in query.split("&") if part and part.partition("=")[0] != "ns")


def _mountable(request: Request, registry: Served, query: str) -> str:
    """Let what is to be mounted be of *registry*, where the caller may read it: that only sees that we may.

    Else the bytes are asked for, as a registry does where nothing can be mounted. Where no source is said, some
    registries look in all of their repositories (end-11, automatic content discovery).
    """
    fields = _fields(query)
    named = [value for _, name, value in fields if name == "from" and value]
    sources = {value: there for value in named if (there := _source(request, registry, value)) is not None}
    if len(sources) < len(set(named)) or (not named and request.caller.limited):
        left = [part for part, name, _ in fields if name not in _MOUNT]
        return query if len(left) == len(fields) else "&".join(left)
    if all(value == there for value, there in sources.items()):
        return query
    return "&".join(f"from={sources[value]}" if name == "from" and value else part for part, name, value in fields)


def _source(request: Request, registry: Served, name: str) -> Repository | None:
    """Return where *name* leads, if that is at *registry* and the caller may read it."""
    try:
        return request.beside(registry, Repository.parse(name))
    except (Invalid, NotFound):
        return None


def _fields(query: str) -> list[tuple[str, str, str]]:
    """Return the fields of *query*, as any registry may read them: what they look like, their names and values.

    To some, as those made with older releases of Go, `;` separates fields, too; to others `From` is `from`.
    """
    parts = [(part, *part.partition("=")) for part in _SEPARATOR.split(query)]
    return [(part, unquote_plus(name).lower(), unquote_plus(value)) for part, name, _, value in parts]


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
