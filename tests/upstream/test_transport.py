"""HTTP to one upstream: time limits, pools, redirects, and errors that name the real cause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from yarl import URL

from conftest import until
from ports import free_port
from proxy.oci.errors import BadAnswer, Crowded, TimedOut, Unreachable
from proxy.telemetry import Metrics
from proxy.upstream.transport import Limits, Transport
from scripted import Origin, endless, hang, reset, status, truncated, waits_for
from upstream.peers import drips


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What closes with the test."""
    async with AsyncExitStack() as opened:
        yield opened


async def opened(stack: AsyncExitStack, url: str, limits: Limits | None = None, metrics: Metrics | None = None) -> Ask:
    """Open a transport to *url*."""
    transport = Transport("hub", URL(url), limits or Limits(), metrics or Metrics())
    return Ask(await stack.enter_async_context(transport))


class Ask:
    """A transport, asked in one word."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def document(self, path: str = "/x", *, redirects: bool = True, **headers: str) -> tuple[int, bytes]:
        """Return status and body of a document."""
        url = self.transport.url.with_path(path)
        async with self.transport.document("GET", url, headers, redirects=redirects) as response:
            return response.status, await self.transport.read(response, 1000, "document")

    async def blob(self, path: str = "/blob") -> bytes:
        """Return the body of a blob."""
        async with self.transport.stream(self.transport.url.with_path(path), {}) as response:
            return b"".join([chunk async for chunk in self.transport.chunks(response)])

    async def upload(self) -> int:
        """Return the status of an upload."""

        async def body() -> AsyncIterator[bytes]:
            yield b"bytes"

        async with self.transport.upload("PUT", self.transport.url.with_path("/upload"), {}, body()) as response:
            return response.status


async def talking(stack: AsyncExitStack, words: bytes) -> str:
    """Listen, and say *words* to whoever connects. Returns the address without a scheme."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(words)
        await writer.drain()
        writer.close()

    server = await stack.enter_async_context(await asyncio.start_server(say, "127.0.0.1", 0))
    return "{}:{}".format(*server.sockets[0].getsockname())


async def test_a_closed_transport_says_so() -> None:
    """A transport that isn't open is a mistake of ours, not of the upstream."""
    transport = Transport("hub", URL("http://127.0.0.1:1"), Limits(), Metrics())

    with pytest.raises(RuntimeError, match="not open"):
        async with transport.document("GET", transport.url, {}):
            pass


async def test_identity_is_asked_for_and_cookies_are_not_kept(origin: Origin, stack: AsyncExitStack) -> None:
    """What is hashed is what was sent: no content coding. Nobody follows us from request to request."""
    origin.fail("/x", status(200, Set_Cookie="session=1; Path=/"))
    ask = await opened(stack, origin.url)

    await ask.document()
    await ask.document()

    assert [request.headers["Accept-Encoding"] for request in origin.requests] == ["identity", "identity"]
    assert not [request for request in origin.requests if "Cookie" in request.headers]


async def test_a_coded_body_is_not_decoded(origin: Origin, stack: AsyncExitStack) -> None:
    """Bytes come as they were sent, even if they call themselves gzip."""
    origin.fail("/x", status(200, b"not gzip at all", Content_Encoding="gzip"))
    ask = await opened(stack, origin.url)

    assert await ask.document() == (200, b"not gzip at all")


async def test_the_header_limit_counts_until_the_headers_come(origin: Origin, stack: AsyncExitStack) -> None:
    """An upstream that takes the request and says nothing is given up after `header` seconds."""
    origin.fail("/x", hang())
    ask = await opened(stack, origin.url, Limits(header=0.1))

    with pytest.raises(TimedOut, match=r"hub didn't answer within 0\.1 s"):
        await ask.document()


async def test_waiting_for_a_connection_counts_as_well(origin: Origin, stack: AsyncExitStack) -> None:
    """A request that finds no free connection is given up in time like any other, and says why."""
    origin.fail("/slow", drips(1000, 0.01))
    ask = await opened(stack, origin.url, Limits(header=1, connections=1))
    slow = asyncio.create_task(ask.document("/slow"))
    await until(lambda: len(origin.requests) == 1)

    with pytest.raises(Crowded, match="hub wasn't asked: its 1 connection is in use") as crowded:
        await ask.document()
    slow.cancel()
    assert crowded.value.retry_after == "1"
    assert origin.asked == ["GET /slow"]


async def test_clients_that_read_slowly_open_no_breaker(origin: Origin, stack: AsyncExitStack) -> None:
    """Whoever takes all connections for blobs holds up blobs: the upstream is well, and tags are asked for."""
    origin.fail("/blob", drips(1000, 0.01))
    ask = await opened(stack, origin.url, Limits(header=0.5, connections=2, failures=1))
    slow = [asyncio.create_task(ask.blob()) for _ in range(2)]
    await until(lambda: len(origin.requests) == 2)

    for _ in range(2):
        with pytest.raises(Crowded, match="its 2 connections are in use"):
            await ask.blob()
        with pytest.raises(Crowded, match="its 2 connections are in use"):
            await ask.upload()

    assert (await ask.document())[0] == 404
    for each in slow:
        each.cancel()


async def test_the_total_limit_counts_to_the_last_byte(origin: Origin, stack: AsyncExitStack) -> None:
    """An upstream that drips a document byte by byte is given up after `total` seconds."""
    origin.fail("/x", drips(1000, 0.01))
    ask = await opened(stack, origin.url, Limits(total=0.2))

    with pytest.raises(TimedOut, match=r"hub didn't finish its answer within 0\.2 s"):
        await ask.document()


async def test_a_blob_may_take_longer_than_the_total_limit(origin: Origin, stack: AsyncExitStack) -> None:
    """Layers have no time limit as long as they move."""
    origin.fail("/blob", drips(10, 0.02))
    ask = await opened(stack, origin.url, Limits(total=0.05, header=5))

    assert await ask.blob() == b"." * 10


async def test_a_silent_blob_is_given_up(origin: Origin, stack: AsyncExitStack) -> None:
    """A layer that stops moving is given up after `idle` seconds."""
    origin.fail("/blob", drips(2, 20))
    ask = await opened(stack, origin.url, Limits(idle=0.1))

    with pytest.raises(TimedOut, match="hub was silent for too long"):
        await ask.blob()


async def test_connections_are_limited(origin: Origin, stack: AsyncExitStack) -> None:
    """Twenty requests at once use as many connections as the limit says, and all are answered."""
    origin.fail("/x", waits_for(gate := asyncio.Event()))
    ask = await opened(stack, origin.url, Limits(connections=2))
    requests = [asyncio.create_task(ask.document()) for _ in range(20)]
    await until(lambda: len(origin.requests) == 2)
    await asyncio.sleep(0.05)

    together = len(origin.requests)
    gate.set()

    assert {status for status, _ in await asyncio.gather(*requests)} == {404}
    assert together == 2
    assert len(origin.requests) == 20


async def test_blobs_do_not_stand_in_front_of_documents(origin: Origin, stack: AsyncExitStack) -> None:
    """Documents and blobs have pools of their own: pulls in progress don't delay the next tag."""
    origin.fail("/blob", waits_for(gate := asyncio.Event()))
    ask = await opened(stack, origin.url, Limits(connections=1))
    blob = asyncio.create_task(ask.blob())
    await until(lambda: len(origin.requests) == 1)

    found, _ = await ask.document()
    gate.set()
    await blob

    assert found == 404


async def test_connections_are_kept_alive(origin: Origin, stack: AsyncExitStack) -> None:
    """Requests one after the other share a connection."""
    ports: set[int] = set()

    async def remember(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        return web.Response(body=b"x")

    origin.fail("/x", remember)
    ask = await opened(stack, origin.url)
    for _ in range(5):
        await ask.document()

    assert len(ports) == 1


async def test_a_refused_connection_is_named(stack: AsyncExitStack) -> None:
    """Nobody listens: the sentence names the address and says so."""
    port = free_port()
    ask = await opened(stack, f"http://127.0.0.1:{port}")

    with pytest.raises(Unreachable, match=rf"hub \(127\.0\.0\.1:{port}\): no connection: .*refused"):
        await ask.document()


async def test_a_name_that_does_not_exist_is_named(stack: AsyncExitStack) -> None:
    """A host name that nobody knows: the sentence says so (RFC 6761: .invalid never resolves)."""
    ask = await opened(stack, "http://registry.invalid", Limits(header=60, connect=60))

    with pytest.raises(Unreachable, match=r"hub \(registry\.invalid\S*: the host name can't be resolved"):
        await ask.document()


async def test_a_reset_is_named(origin: Origin, stack: AsyncExitStack) -> None:
    """A connection that closes without an answer: the sentence says so."""
    origin.fail("/x", reset())
    ask = await opened(stack, origin.url)

    with pytest.raises(Unreachable, match=r"closed the connection without an answer|broke off"):
        await ask.document()


@pytest.mark.parametrize("words", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"\x15\x03\x01"])
async def test_what_is_not_http_is_named(stack: AsyncExitStack, words: bytes) -> None:
    """Another protocol on the port: the sentence says so."""
    ask = await opened(stack, f"http://{await talking(stack, words)}")

    with pytest.raises(BadAnswer, match="doesn't speak proper HTTP"):
        await ask.document()


async def test_huge_headers_are_not_read(stack: AsyncExitStack) -> None:
    """Headers beyond 64 KiB are a bad answer."""
    words = b"HTTP/1.1 200 OK\r\nX-Much: " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n"
    ask = await opened(stack, f"http://{await talking(stack, words)}")

    with pytest.raises(BadAnswer):
        await ask.document()


async def test_https_to_a_plain_port_is_named(stack: AsyncExitStack) -> None:
    """TLS where none is spoken: the sentence says so."""
    ask = await opened(stack, f"https://{await talking(stack, b'HTTP/1.1 400 Bad Request' + bytes(100))}")

    with pytest.raises(
        Unreachable, match="TLS failed: none is spoken there; the URL of a plain port begins with http://"
    ):
        await ask.document()


async def test_an_answer_that_breaks_off_is_named(origin: Origin, stack: AsyncExitStack) -> None:
    """Fewer bytes than announced: the sentence says so, for documents and blobs."""
    origin.fail("/", truncated(b"x" * 10, 100))
    ask = await opened(stack, origin.url)

    with pytest.raises(Unreachable, match="broke off in the middle of an answer"):
        await ask.document()
    with pytest.raises(Unreachable, match="broke off in the middle of an answer"):
        await ask.blob()


async def test_a_document_is_measured(origin: Origin, stack: AsyncExitStack) -> None:
    """A document is read up to its limit and not a byte further."""
    origin.fail("/fits", status(200, b"x" * 1000))
    origin.fail("/large", status(200, b"x" * 1001))
    origin.fail("/endless", endless(b"x" * 1001))
    ask = await opened(stack, origin.url)

    assert len((await ask.document("/fits"))[1]) == 1000
    with pytest.raises(BadAnswer, match="a document of 1001 bytes, at most 1000 are accepted"):
        await ask.document("/large")
    with pytest.raises(BadAnswer, match="a document of more than 1000 bytes"):
        await ask.document("/endless")


async def test_redirects_are_followed_with_their_query_untouched(
    origin: Origin, other: Origin, stack: AsyncExitStack
) -> None:
    """The query of a signed URL reaches its target byte for byte."""
    seen: list[str] = []
    signed = "/b%2Fc?X-Sig=a%2Fb%2Bc%3D%7E&e=1&n=%C3%A4+b&p=~!'()*&q=%zz"

    async def remember(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request._message.path)
        return web.Response(body=b"found")

    other.fail("/b", remember)
    origin.fail("/x", status(307, Location=other.url + signed))
    ask = await opened(stack, origin.url)

    assert await ask.document() == (200, b"found")
    assert seen == [signed]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_authorization_stays_at_its_origin(
    origin: Origin, other: Origin, stack: AsyncExitStack, code: int
) -> None:
    """A redirect to another origin loses `Authorization`, for good: coming back doesn't bring it back."""
    origin.fail("/x", status(code, Location="/here"))
    origin.fail("/here", status(code, Location=f"{other.url}/there"))
    other.fail("/there", status(code, Location=f"{origin.url}/back"))
    ask = await opened(stack, origin.url)

    await ask.document(Authorization="Basic secret", Accept="application/json")

    here = [request.headers.get("Authorization") for request in origin.requests]
    assert here == ["Basic secret", "Basic secret", None]
    assert ["Authorization" in request.headers for request in other.requests] == [False]
    assert {request.headers["Accept"] for request in other.requests + origin.requests} == {"application/json"}


@pytest.mark.parametrize("location", ["/x", "", "?again"])
async def test_redirects_in_a_circle_are_left(origin: Origin, stack: AsyncExitStack, location: str) -> None:
    """Five redirects are followed, then it is a bad answer."""
    origin.fail("/x", status(302, Location=location))
    ask = await opened(stack, origin.url)

    with pytest.raises(BadAnswer, match="redirected more than 5 times"):
        await ask.document()
    assert len(origin.requests) == 6


async def test_a_redirect_to_the_metadata_service_is_not_followed(origin: Origin, stack: AsyncExitStack) -> None:
    """Addresses that only the inside may ask are never asked on the upstream's word (CVE-2026-2376)."""
    origin.fail("/x", status(302, Location="http://169.254.169.254/latest/meta-data"))
    metrics = Metrics()
    ask = await opened(stack, origin.url, metrics=metrics)

    with pytest.raises(BadAnswer, match="private address"):
        await ask.document()
    assert 'status="error"' not in metrics.render().decode()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", "\u00e4\ufffd" + "b" * 64])
async def test_a_redirect_to_what_can_not_be_a_host_is_trouble(
    origin: Origin, stack: AsyncExitStack, host: str
) -> None:
    """Resolvers refuse some names before they ask anybody: that is the registry's fault, and none of ours."""
    origin.fail("/x", status(302, Location=f"http://{host}/"))
    ask = await opened(stack, origin.url)

    with pytest.raises((BadAnswer, Unreachable)):
        await ask.document()


async def test_redirects_can_be_left_alone(origin: Origin, stack: AsyncExitStack) -> None:
    """Token services aren't followed anywhere."""
    origin.fail("/x", status(302, Location="/y"))
    ask = await opened(stack, origin.url)

    assert await ask.document(redirects=False) == (302, b"")
    assert len(origin.requests) == 1


async def test_every_outcome_is_counted(origin: Origin, stack: AsyncExitStack) -> None:
    """Answers are counted by status, everything else as `error`; each takes its time."""
    metrics = Metrics()
    origin.fail("/ok", status(200))
    origin.fail("/busy", status(503))
    origin.fail("/reset", reset())
    origin.fail("/hang", hang())
    ask = await opened(stack, origin.url, Limits(header=1), metrics)
    for path in ("/ok", "/ok", "/busy", "/reset", "/hang"):
        await asyncio.gather(ask.document(path), return_exceptions=True)

    text = metrics.render().decode()

    for counted, times in (("200", 2), ("503", 1), ("error", 2)):
        line = f'manifuse_upstream_requests_total{{method="GET",status="{counted}",upstream="hub"}} {times}.0'
        assert line in text
    assert 'manifuse_upstream_seconds_count{upstream="hub"} 5.0' in text


async def test_a_cancelled_request_leaves_its_connection_behind(origin: Origin, stack: AsyncExitStack) -> None:
    """A caller that leaves frees its place in the pool."""
    origin.fail("/slow", hang())
    ask = await opened(stack, origin.url, Limits(connections=1))
    slow = asyncio.create_task(ask.document("/slow"))
    await until(lambda: len(origin.requests) == 1)

    slow.cancel()

    assert (await ask.document())[0] == 404


async def test_a_body_that_is_left_unread_frees_its_connection(origin: Origin, stack: AsyncExitStack) -> None:
    """Who stops reading a blob in the middle doesn't keep its connection."""
    origin.fail("/blob", drips(1000, 0.01))
    ask = await opened(stack, origin.url, Limits(connections=1))
    for _ in range(3):
        async with ask.transport.stream(ask.transport.url.with_path("/blob"), {}) as response:
            assert response.status == 200

    assert len(origin.requests) == 3
