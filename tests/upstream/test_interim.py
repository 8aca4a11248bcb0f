"""Interim answers in front of an upstream's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from proxy.upstream.interim import Connector

_FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"a" * 100_000
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"


@pytest.mark.parametrize(("before", "size"), [(0, 1 << 20), (1, 1 << 20), (20, 1000), (20, 1 << 20)])
async def test_a_few_are_passed_over(before: int, size: int) -> None:
    """However they come, the answer behind them is whole, and so is the next one on the same connection."""
    async with _session(_HINTS * before + _FINAL, size) as (session, url):
        for _ in range(2):
            async with session.get(url) as response:
                assert (response.status, await response.read()) == (200, b"a" * 100_000)


@pytest.mark.parametrize("before", [21, 100_000])
async def test_too_many_are_no_answer(before: int) -> None:
    """The connection is ended."""
    async with _session(_HINTS * before + _FINAL, 1 << 20) as (session, url):
        with pytest.raises(aiohttp.ClientResponseError, match="interim answers without an end"):
            await session.get(url)


@asynccontextmanager
async def _session(answer: bytes, size: int) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Lend a session, and where a server answers every request with the same bytes, in pieces of *size*."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                for start in range(0, len(answer), size):
                    writer.write(answer[start : start + size])
                    await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(connector=Connector()) as session:
            yield session, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await asyncio.sleep(0.01)
