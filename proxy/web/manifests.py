"""Manifests on the wire: the bare media type, digest, and how the answer came about."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from proxy.oci.conditional import etag, is_known
from proxy.oci.content import CacheResult, Delivery, Descriptor
from proxy.oci.endpoint import ManifestAt
from proxy.oci.mediatype import Accept
from proxy.oci.reference import Tag
from proxy.web.request import Request
from proxy.web.table import Leased

_AGAIN: Final[dict[str, str]] = {"X-Manifuse-Cache": CacheResult.HIT}  # whatever it was for the one who asked first
_MAX_WARNINGS: Final = 4096  # bytes of all Warning headers, by the distribution specification


async def manifest(request: Request, at: ManifestAt) -> web.StreamResponse:
    """Answer GET or HEAD of a manifest."""
    registry, repository = request.find(at.repository)
    accept = Accept.parse(request.http.headers.getall("Accept", ()))
    if request.is_head:
        resolved = await registry.resolve(repository, at.reference, accept)
        descriptor, delivery, body = resolved.descriptor, resolved.delivery, None
    else:
        found = await registry.manifest(repository, at.reference, accept)
        descriptor, delivery, body = found.descriptor, found.delivery, found.body
    headers = {**_describing(descriptor), **_delivering(delivery), **request.namespace()}
    if isinstance(at.reference, Tag):
        headers["Vary"] = "Accept"
    known = is_known(request.http.headers.getall("If-None-Match", ()), descriptor.digest)
    response = Leased(
        delivery.lease,
        status=304 if known else 200,
        body=None if known else body,
        headers=headers,
        again=None if delivery.cache is None else _AGAIN,
    )
    for warning in warnings(delivery.warnings):
        response.headers.add("Warning", warning)
    return response


def _describing(descriptor: Descriptor) -> dict[str, str]:
    """GET and HEAD say the same (law 6); the bare media type, as ggcr and oras compare it to the letter."""
    return {
        "Content-Type": descriptor.media_type,
        "Content-Length": str(descriptor.size),
        "Docker-Content-Digest": descriptor.digest,
        "ETag": etag(descriptor.digest),
    }


def _delivering(delivery: Delivery) -> dict[str, str]:
    if delivery.cache is None:
        return {}
    return {"X-Manifuse-Cache": delivery.cache, "Age": str(max(0, int(delivery.age)))}


def warnings(sentences: tuple[str, ...]) -> list[str]:
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
