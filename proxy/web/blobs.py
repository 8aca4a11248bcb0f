"""Blobs on the wire: whole or a part, streamed, and never ended cleanly when they are wrong."""

from __future__ import annotations

from typing import Final

import structlog
from aiohttp import web

from proxy.oci.byterange import Nothing, parse_range
from proxy.oci.endpoint import BlobAt
from proxy.oci.errors import NoAnswer
from proxy.web.request import ALWAYS, Request

_log: Final = structlog.get_logger("web")


async def blob(request: Request, at: BlobAt) -> web.StreamResponse:
    """Answer GET or HEAD of a blob."""
    registry, repository = request.find(at.repository)
    part = Nothing() if request.is_head else parse_range(request.http.headers.get("Range"))
    async with registry.blob(repository, at.digest, part) as found:
        response = web.StreamResponse(status=200 if found.part is None else 206, headers=request.namespace())
        response.headers.update(
            {
                "Content-Type": "application/octet-stream",
                "Docker-Content-Digest": at.digest,
                "ETag": f'"{at.digest}"',
                "Accept-Ranges": "bytes",
            }
        )
        if found.part is not None:
            response.headers["Content-Range"] = str(found.part)
            response.content_length = found.part.length
        elif found.size is not None:
            response.content_length = found.size
        response.headers.update(ALWAYS)
        await response.prepare(request.http)
        try:
            async for chunk in found.chunks:
                await response.write(chunk)
        except NoAnswer as error:
            _log.warning("blob broken off", path=request.http.rel_url.raw_path, reason=error.message)
            request.abort()
        except BaseException:
            request.abort()
            raise
    return response
