"""A large blob, and a registry that sends it in two parts."""

from __future__ import annotations

import asyncio

import aiohttp.web

from scripted import Fault

BIG = b"0123456789abcdef" * 100_000


def blob_path(digest: str) -> str:
    """Return the path of a blob under the virtual name."""
    return f"/v2/kimoqi/alpine/blobs/{digest}"


def arrives(gate: asyncio.Event) -> Fault:
    """Send it up to the first million bytes, and the rest when the gate opens."""

    async def slow(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        response = aiohttp.web.StreamResponse(headers={"Content-Length": str(len(BIG))})
        await response.prepare(request)
        await response.write(BIG[:500_000])
        await response.write(BIG[500_000:1_000_000])
        await gate.wait()
        await response.write(BIG[1_000_000:])
        return response

    return slow
