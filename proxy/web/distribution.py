"""The registry API: a path becomes an endpoint, the endpoint one of a registry's five reads, the answer a response."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote

import orjson
import structlog
from aiohttp import web

from proxy.oci import mediatype
from proxy.oci.byterange import Nothing, parse_range
from proxy.oci.content import Delivery, Descriptor, TagPage
from proxy.oci.endpoint import (
    BlobAt,
    Catalog,
    Endpoint,
    ManifestAt,
    NoSuchEndpoint,
    Ping,
    ReferrersOf,
    TagsOf,
    UploadAt,
    parse,
)
from proxy.oci.errors import NoAnswer, PaginationInvalid, RegistryError, Unsupported
from proxy.oci.mediatype import Accept
from proxy.oci.reference import Repository, Tag
from proxy.oci.registry import Registry
from proxy.telemetry import Metrics
from proxy.web.failures import respond

_MAX_PAGE: Final = 1000  # tags in one answer; CVE-2023-2253 was an unbounded `n`
_MAX_WARNINGS: Final = 4096  # bytes of all Warning headers, by the distribution specification
_ALWAYS: Final = {"Docker-Distribution-Api-Version": "registry/2.0", "Server": "manifuse"}

_log: Final = structlog.get_logger("web")
_access: Final = structlog.get_logger("access")


class Directory(Protocol):
    """Which registry a request speaks of."""

    def find(
        self, host: str, namespaces: tuple[str, ...], prefix: str, repository: Repository
    ) -> tuple[Registry, Repository]:
        """Return the registry and the repository there. Raises `NameUnknown`."""
        ...

    def check(self, namespaces: tuple[str, ...], prefix: str) -> None:
        """Raise `NameUnknown` where they name a registry that isn't served."""
        ...


class Single:
    """A directory of one registry, which takes every name."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def find(
        self, host: str, namespaces: tuple[str, ...], prefix: str, repository: Repository
    ) -> tuple[Registry, Repository]:
        """Return the registry."""
        return self._registry, repository

    def check(self, namespaces: tuple[str, ...], prefix: str) -> None:
        """Take every name."""


Borrow = Callable[[], AbstractContextManager[Directory]]
"""Lends a directory for one request, which stays open for as long as the block runs."""


def always(registry: Registry) -> Borrow:
    """Lend the same registry to every request."""
    return lambda: nullcontext(Single(registry))


@dataclass(frozen=True, slots=True)
class _Request:
    """What a handler needs to know of a request."""

    http: web.BaseRequest
    directory: Directory
    prefix: str
    namespaces: tuple[str, ...]

    @property
    def is_head(self) -> bool:
        """Whether the body is to be left out."""
        return self.http.method == "HEAD"


class Distribution:
    """Serves registries over the distribution API, read-only."""

    def __init__(self, borrow: Borrow, metrics: Metrics, clock: Callable[[], float] = time.perf_counter) -> None:
        self._borrow = borrow
        self._metrics = metrics
        self._clock = clock

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, count it and log it. An error of ours is a 500 with its trace in the log."""
        began = self._clock()
        route = "none"
        try:
            self._check_method(http)
            target = parse(http.rel_url.raw_path)
            route = _route(target.endpoint)
            namespaces = tuple(http.rel_url.query.getall("ns", ()))
            with self._borrow() as directory:
                response = await self._answer(_Request(http, directory, target.prefix, namespaces), target.endpoint)
        except RegistryError as error:
            response = respond(error)
            if isinstance(error, NoAnswer):
                _log.warning("no answer", path=http.rel_url.raw_path, status=error.status, reason=error.message)
        except ConnectionError:
            raise  # the client left; there is nobody to answer
        except Exception:  # noqa: BLE001 - a bug of ours is told as one, and never in a trace sent to a client
            _log.exception("internal error", path=http.rel_url.raw_path)
            response = respond(RegistryError("internal error; the log has the details"))
        response.headers.update(_ALWAYS)
        self._record(http, response, route, self._clock() - began)
        return response

    async def _answer(self, request: _Request, endpoint: Endpoint) -> web.StreamResponse:
        match endpoint:
            case Ping():
                request.directory.check(request.namespaces, request.prefix)
                return _json(request, b"{}")
            case ManifestAt():
                return await self._manifest(request, endpoint)
            case BlobAt():
                return await self._blob(request, endpoint)
            case TagsOf():
                return await self._tags(request, endpoint)
            case ReferrersOf():
                return await self._referrers(request, endpoint)
            case UploadAt():
                raise Unsupported("uploads are not accepted here: push to the upstream itself")
            case Catalog():
                raise NoSuchEndpoint("the catalog is not served here")

    async def _manifest(self, request: _Request, at: ManifestAt) -> web.StreamResponse:
        registry, repository = self._find(request, at.repository)
        accept = Accept.parse(request.http.headers.getall("Accept", ()))
        if request.is_head:
            resolved = await registry.resolve(repository, at.reference, accept)
            descriptor, delivery, body = resolved.descriptor, resolved.delivery, None
        else:
            manifest = await registry.manifest(repository, at.reference, accept)
            descriptor, delivery, body = manifest.descriptor, manifest.delivery, manifest.body
        headers = {**_manifest_headers(descriptor), **_delivery_headers(delivery), **_namespace(request)}
        if isinstance(at.reference, Tag):
            headers["Vary"] = "Accept"
        response = web.Response(body=body, headers=headers)
        for warning in _warnings(delivery.warnings):
            response.headers.add("Warning", warning)
        return response

    async def _blob(self, request: _Request, at: BlobAt) -> web.StreamResponse:
        registry, repository = self._find(request, at.repository)
        part = Nothing() if request.is_head else parse_range(request.http.headers.get("Range"))
        async with registry.blob(repository, at.digest, part) as blob:
            response = web.StreamResponse(status=200 if blob.part is None else 206, headers=_namespace(request))
            response.headers.update(
                {
                    "Content-Type": "application/octet-stream",
                    "Docker-Content-Digest": at.digest,
                    "ETag": f'"{at.digest}"',
                    "Accept-Ranges": "bytes",
                }
            )
            if blob.part is not None:
                response.headers["Content-Range"] = str(blob.part)
                response.content_length = blob.part.length
            elif blob.size is not None:
                response.content_length = blob.size
            response.headers.update(_ALWAYS)
            await response.prepare(request.http)
            try:
                async for chunk in blob.chunks:
                    await response.write(chunk)
            except NoAnswer as error:
                _log.warning("blob broken off", path=request.http.rel_url.raw_path, reason=error.message)
                _abort(request)
            except BaseException:
                _abort(request)
                raise
        return response

    async def _tags(self, request: _Request, at: TagsOf) -> web.StreamResponse:
        registry, repository = self._find(request, at.repository)
        query = request.http.rel_url.query
        limit = _page_size(query.get("n"))
        page = TagPage(()) if limit == 0 else await registry.tags(repository, limit, query.get("last", ""))
        response = _json(request, orjson.dumps({"name": at.repository, "tags": page.tags}))
        if page.more and page.tags:
            following = f"{at.path}?n={len(page.tags)}&last={quote(page.tags[-1])}"
            response.headers["Link"] = f'<{following}>; rel="next"'
        return response

    async def _referrers(self, request: _Request, at: ReferrersOf) -> web.StreamResponse:
        registry, repository = self._find(request, at.repository)
        wanted = request.http.rel_url.query.get("artifactType", "")
        found = await registry.referrers(repository, at.digest, wanted)
        headers = {"Content-Type": mediatype.OCI_INDEX, "Content-Length": str(len(found.body))}
        return web.Response(body=None if request.is_head else found.body, headers=headers)

    def _find(self, request: _Request, repository: Repository) -> tuple[Registry, Repository]:
        return request.directory.find(
            request.http.headers.get("Host", ""), request.namespaces, request.prefix, repository
        )

    def _check_method(self, http: web.BaseRequest) -> None:
        if http.method not in ("GET", "HEAD"):
            raise Unsupported(f"{http.method[:20]} is not allowed here: GET and HEAD are")

    def _record(self, http: web.BaseRequest, response: web.StreamResponse, route: str, seconds: float) -> None:
        method = http.method if http.method in ("GET", "HEAD") else "other"
        cache = response.headers.get("X-Manifuse-Cache", "none")
        self._metrics.requests.labels(route, method, str(response.status), cache).inc()
        _access.info(
            "request",
            client=http.remote,
            method=http.method,
            path=http.rel_url.raw_path,
            status=response.status,
            bytes=response.content_length or 0,
            ms=round(seconds * 1000, 1),
            cache=cache,
            agent=http.headers.get("User-Agent", "")[:200],
        )


def _abort(request: _Request) -> None:
    """Let the client see a broken transfer: one that ended cleanly would pass for whole."""
    if request.http.transport is not None:
        request.http.transport.abort()


def _route(endpoint: Endpoint) -> str:
    names: dict[type[Endpoint], str] = {
        Ping: "ping",
        ManifestAt: "manifest",
        BlobAt: "blob",
        TagsOf: "tags",
        ReferrersOf: "referrers",
        UploadAt: "upload",
        Catalog: "catalog",
    }
    return names[type(endpoint)]


def _manifest_headers(descriptor: Descriptor) -> dict[str, str]:
    """GET and HEAD say the same (law 6); the bare media type, as ggcr and oras compare it to the letter."""
    return {
        "Content-Type": descriptor.media_type,
        "Content-Length": str(descriptor.size),
        "Docker-Content-Digest": descriptor.digest,
        "ETag": f'"{descriptor.digest}"',
    }


def _delivery_headers(delivery: Delivery) -> dict[str, str]:
    if delivery.cache is None:
        return {}
    return {"X-Manifuse-Cache": delivery.cache, "Age": str(max(0, int(delivery.age)))}


def _warnings(sentences: tuple[str, ...]) -> list[str]:
    """Write `Warning: 299` headers, as many as the specification's 4096 bytes hold."""
    headers, left = [], _MAX_WARNINGS
    for sentence in sentences:
        clean = sentence.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")
        header = f'299 - "{"".join(c if c.isprintable() else " " for c in clean)}"'
        left -= len(header)
        if left < 0:
            break
        headers.append(header)
    return headers


def _namespace(request: _Request) -> dict[str, str]:
    """Echo the registry that a mirror's client had in mind, as the specification's proxying section asks."""
    return {"OCI-Namespace": request.namespaces[0]} if request.namespaces and request.namespaces[0] else {}


def _json(request: _Request, body: bytes) -> web.Response:
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return web.Response(body=None if request.is_head else body, headers=headers)


def _page_size(text: str | None) -> int | None:
    """Read `n`; more than a page holds means a page."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise PaginationInvalid(f"n must be a whole number, not {text[:20]!a}")
    return min(int(text), _MAX_PAGE)
