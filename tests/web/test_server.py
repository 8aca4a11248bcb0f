"""Listening and leaving: malformed HTTP, draining, clients that go away."""

from __future__ import annotations

import asyncio

import aiohttp
import orjson
import pytest
from aiohttp import web

from proxy.web.server import listen


async def ok(request: web.BaseRequest) -> web.StreamResponse:
    """Answer anything."""
    return web.Response(text=request.path)


async def talk(address: tuple[str, int], data: bytes) -> bytes:
    """Send *data* as it is and return everything that comes back."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["garbage", "two hosts", "smuggling", "NUL", "TLS", "long line"],
)
async def test_what_is_not_http_gets_a_400_in_ocis_words(data: bytes) -> None:
    """Malformed requests, two Host headers and a TLS hello are a quick 400 with OCI JSON."""
    async with listen(ok, ("127.0.0.1", 0), drain=1) as address:
        answer = await talk(address, data)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    assert orjson.loads(body)["errors"][0]["message"] == "the request is not valid HTTP"


async def test_a_request_in_flight_is_finished() -> None:
    """Stopping waits for what is being answered, and takes no new connection."""
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        await gate.wait()
        return web.Response(text="done")

    async with aiohttp.ClientSession() as session:
        server = listen(slow, ("127.0.0.1", 0), drain=10)
        host, port = await server.__aenter__()
        asking = asyncio.create_task(_text(session, f"http://{host}:{port}/"))
        await begun.wait()
        stopping = asyncio.create_task(server.__aexit__(None, None, None))
        await asyncio.sleep(0.05)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://{host}:{port}/")
        gate.set()
        await stopping

        assert await asking == "done"


async def test_stopping_is_bounded() -> None:
    """A request that never ends is cut when the time is over."""
    begun = asyncio.Event()

    async def forever(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        await asyncio.sleep(60)
        return web.Response()

    async with aiohttp.ClientSession() as session:
        async with listen(forever, ("127.0.0.1", 0), drain=0.05) as (host, port):
            asking = asyncio.create_task(_text(session, f"http://{host}:{port}/"))
            await begun.wait()

        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_a_taken_port_is_an_os_error() -> None:
    """Two servers can't have one port, and the second says so at once."""
    async with listen(ok, ("127.0.0.1", 0), drain=1) as address:
        with pytest.raises(OSError, match="in use"):
            async with listen(ok, address, drain=1):
                pass


async def _text(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        return await response.text()
