"""Blobs on the wire: whole or a part, never ended cleanly when they are wrong; or a word on where they are."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Final

import structlog
from aiohttp import web

from proxy.oci.byterange import ByteRange, Nothing, Part, SuffixRange
from proxy.oci.conditional import etag, is_known, wanted
from proxy.oci.content import Blob, Redirect
from proxy.oci.endpoint import BlobAt
from proxy.oci.errors import NoAnswer, RangeInvalid
from proxy.oci.reference import Digest
from proxy.web.request import ALWAYS, Request
from proxy.web.sendfile import can_send, send

_log: Final = structlog.get_logger("web")


async def blob(request: Request, at: BlobAt) -> web.StreamResponse:
    """Answer GET or HEAD of a blob."""
    registry, repository = request.find(at.repository)
    if is_known(request.http.headers.getall("If-None-Match", ()), at.digest):
        async with registry.blob(repository, at.digest, Nothing()):
            return web.Response(status=304, headers={**_describing(at.digest), **request.namespace()})
    part = Nothing() if request.is_head else _wanted(request, at.digest)
    if isinstance(part, ByteRange | SuffixRange) and part.is_empty:
        async with registry.blob(repository, at.digest, Nothing()) as described:
            if isinstance(described, Blob):
                raise RangeInvalid("no blob has a byte of this range", size=described.size)
    async with registry.blob(repository, at.digest, part) as found:
        if isinstance(found, Redirect):
            return _elsewhere(found, at.digest)
        with request.gate.streaming(request.client) if found.streamed else nullcontext():
            return await _sent(request, found)


def _wanted(request: Request, digest: Digest) -> Part:
    return wanted(request.http.headers.get("Range"), request.http.headers.get("If-Range"), digest)


def _elsewhere(redirect: Redirect, digest: Digest) -> web.Response:
    headers = {"Location": redirect.url, "Docker-Content-Digest": digest, "Content-Length": "0"}
    return web.Response(status=307, headers=headers)


def _describing(digest: Digest) -> dict[str, str]:
    return {"Docker-Content-Digest": digest, "ETag": etag(digest), "Accept-Ranges": "bytes"}


async def _sent(request: Request, found: Blob) -> web.StreamResponse:
    response = web.StreamResponse(status=200 if found.part is None else 206, headers=request.namespace())
    response.headers.update({"Content-Type": "application/octet-stream", **_describing(found.digest), **ALWAYS})
    if found.part is not None:
        response.headers["Content-Range"] = str(found.part)
        response.content_length = found.part.length
    elif found.size is not None:
        response.content_length = found.size
    writer = await response.prepare(request.http)
    try:
        transport = request.http.transport
        if found.file is not None and writer is not None and transport is not None and can_send(transport):
            await send(writer, transport, found.file, request.gate.limits.send_timeout)
        else:
            async for chunk in found.chunks:
                await response.write(chunk)
    except NoAnswer as error:
        _log.warning("blob broken off", path=request.http.rel_url.raw_path, reason=error.message)
        request.abort()
    except BaseException:
        request.abort()
        raise
    return response
