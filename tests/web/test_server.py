"""Listening and leaving: malformed HTTP, draining, clients that go away."""

from __future__ import annotations

import asyncio
import gzip
import io
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.helpers import ceil_timeout

from conftest import until
from patience import HANGING
from ports import free_port
from proxy.web import server as module
from proxy.web.gate import Gate
from proxy.web.limits import Limits
from proxy.web.server import bind, is_loopback, listen
from proxy.web.table import Tables


async def ok(request: web.BaseRequest) -> web.StreamResponse:
    """Answer anything."""
    return web.Response(text=request.path)


async def talk(address: tuple[str, int], data: bytes) -> bytes:
    """Send *data* as it is and return everything that comes back."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    async with asyncio.timeout(HANGING):
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
        b"GET http://[]@ HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["garbage", "two hosts", "smuggling", "NUL", "TLS", "no URL"],
)
async def test_what_is_not_http_gets_a_400_in_ocis_words(data: bytes) -> None:
    """Malformed requests, two Host headers and a TLS hello are a quick 400 with OCI JSON."""
    async with listen(ok, ("127.0.0.1", 0), drain=1) as address:
        answer = await talk(address, data)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    assert orjson.loads(body)["errors"][0]["message"] == "the request is not valid HTTP"


async def test_a_body_is_as_it_came() -> None:
    """A content coding is its sender's business: nothing is unpacked, and what can't be is no error of ours."""

    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=await request.read())

    head = b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    async with listen(echo, ("127.0.0.1", 0), drain=1) as address:
        for body in (gzip.compress(b"x" * 1000), b"not packed"):
            assert (await talk(address, head % len(body) + body)).endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200 + b"\r\n",
    ],
    ids=["line", "field", "fields"],
)
async def test_a_head_too_large_is_a_431_in_ocis_words(data: bytes) -> None:
    """A line longer than is read, or more of them."""
    async with listen(ok, ("127.0.0.1", 0), drain=1) as address:
        answer = await talk(address, data)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 431 " in head.splitlines()[0]
    assert orjson.loads(body)["errors"][0]["message"].startswith("the head of the request has more than")


async def test_a_body_is_no_head() -> None:
    """However large it is, and in how many pieces it comes; the head behind it is one, again."""

    async def counting(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=str(sum([len(chunk) async for chunk in request.content.iter_any()])))

    limits = Gate(Limits(header_max=4096))
    async with (
        listen(counting, ("127.0.0.1", 0), drain=1, gate=limits) as (host, port),
        aiohttp.ClientSession() as session,
    ):
        for size in (0, 1, 5000, 3_000_000):
            for body in (io.BytesIO(bytes(size)), _pieces(size)):
                async with session.post(f"http://{host}:{port}/", data=body) as response:
                    assert (response.status, await response.text()) == (200, str(size))
        assert limits.connections == 1


async def _pieces(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 10_000):
        yield bytes(min(10_000, size - start))


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


@pytest.mark.parametrize("hot", [True, False])
async def test_who_has_just_connected_is_answered(monkeypatch: pytest.MonkeyPatch, *, hot: bool) -> None:
    """A connection that was taken is no refused one: its first request may still be on its way when we stop."""
    monkeypatch.setattr(module, "_FIRST_WORD", HANGING)
    tables, gate = Tables(1 << 20, time.time) if hot else None, Gate(Limits())
    server = listen(ok, ("127.0.0.1", 0), drain=HANGING, tables=tables, gate=gate)
    address = await server.__aenter__()
    reader, writer = await asyncio.open_connection(*address)
    await until(lambda: gate.connections == 1)
    stopping = asyncio.create_task(server.__aexit__(None, None, None))
    await asyncio.sleep(0.05)
    writer.write(b"GET /some HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(HANGING):
        answer = await reader.read()
        await stopping
    writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"/some")


async def test_who_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However patient `drain` is: a connection that is opened ahead may never be used."""
    monkeypatch.setattr(module, "_FIRST_WORD", 0.02)
    gate = Gate(Limits())
    server = listen(ok, ("127.0.0.1", 0), drain=60, gate=gate)
    reader, writer = await asyncio.open_connection(*(await server.__aenter__()))
    await until(lambda: gate.connections == 1)
    async with asyncio.timeout(HANGING):
        await server.__aexit__(None, None, None)
        assert await reader.read() == b""
    writer.close()


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


async def test_stopping_takes_no_longer_than_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut isn't waited for as long again: whoever stops the service would lose patience, and kill it."""
    begun, waits = asyncio.Event(), list[float]()

    def counted(seconds: float | None, **options: float) -> AbstractAsyncContextManager[object]:
        waits.append(seconds or 0)
        return ceil_timeout(seconds, **options)

    async def forever(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        await asyncio.sleep(60)
        return web.Response()

    async with aiohttp.ClientSession() as session:
        async with listen(forever, ("127.0.0.1", 0), drain=0.5) as (host, port):
            asking = asyncio.create_task(_text(session, f"http://{host}:{port}/"))
            await begun.wait()
            monkeypatch.setattr("aiohttp.web_protocol.ceil_timeout", counted)

        with pytest.raises(aiohttp.ClientError):
            await asking

    assert waits
    assert sum(waits) <= 0.5


async def test_a_taken_port_is_an_os_error() -> None:
    """Two servers can't have one port, and the second says so at once."""
    async with listen(ok, ("127.0.0.1", 0), drain=1) as address:
        with pytest.raises(OSError, match="in use"):
            async with listen(ok, address, drain=1):
                pass


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_port_is_free_again_when_nobody_listens(*, before: bool, after: bool) -> None:
    """Connections that the last server has ended stay with the system for a minute, and refuse no next one."""
    address = ("127.0.0.1", free_port())
    with bind(address, shared=before) as listening:
        listening.listen()
        with socket.create_connection(address) as client:
            listening.setblocking(True)
            listening.accept()[0].close()
            listening.close()
            bind(address, shared=after).close()
            client.close()
            bind(address, shared=after).close()


async def _text(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        return await response.text()


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("", False), ("0.0.0.0", False)]
)
def test_what_is_loopback(host: str, local: bool) -> None:
    """An address of this machine alone; a socket that is bound says so itself."""
    assert is_loopback((host, 0)) == local


def test_a_socket_knows_whether_it_is_on_loopback() -> None:
    """As a worker gets one."""
    for host, local in (("127.0.0.1", True), ("0.0.0.0", False)):
        with bind((host, 0)) as sock:
            assert is_loopback(sock) == local


@pytest.mark.parametrize("ask", [bind, is_loopback])
def test_a_name_of_nothing_is_told_with_its_port(ask: Callable[[tuple[str, int]], object]) -> None:
    """Whoever asks first."""
    with pytest.raises(OSError, match=r"^nobody\.invalid:5081 can't be listened on: "):
        ask(("nobody.invalid", 5081))
