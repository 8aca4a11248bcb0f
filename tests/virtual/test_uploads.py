"""Blobs on their way up: sessions, chunks, mounts, and clients that wait or leave."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest
from structlog.testing import capture_logs
from yarl import URL

from conftest import StartProxy, until
from images import ARM, X86, push_pair
from patience import HANGING
from proxy.oci.reference import Digest
from scripted import Origin, status
from virtual.pushing import OPEN, VIRTUAL_TAG, Pusher


@pytest.mark.parametrize(
    "sent",
    [
        f"POST /v2/{ARM}/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc",
        f"PUT /v2/{ARM}/manifests/1.0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["upload", "manifest"],
)
async def test_a_client_that_leaves_is_nobodys_error(
    origin: Origin, start: StartProxy, rule: dict[str, Any], sent: str
) -> None:
    """Neither ours, with a trace in the log, nor the upstream's, which would be left alone for it.

    Whoever stops a `docker push` breaks off five uploads at once.
    """
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], upstream={**OPEN, "breaker": 5})
    url = URL(proxy.url)
    with capture_logs() as logs:
        for _ in range(10):
            _, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(sent.encode())
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.close()
            await writer.wait_closed()
        await until(lambda: not _in_flight())
        answer = await proxy.get(VIRTUAL_TAG)

    assert answer.status == 200
    assert {log["event"] for log in logs if log["log_level"] in ("warning", "error")} == set()


def _in_flight() -> list[str]:
    """Return the requests that something is done for."""
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    return [name for name in names if name.endswith("RequestHandler._handle_request")]


async def test_an_upload_in_chunks(origin: Origin, pusher: Pusher) -> None:
    """POST, two PATCHes, a look at how far it has come, PUT; every Location leads back to the proxy."""
    begun = await pusher.begin(ARM)
    first = await pusher.send("PATCH", begun.headers["Location"], b"hello ", Content_Range="0-5")
    second = await pusher.send("PATCH", first.headers["Location"], b"world", Content_Range="6-10")
    asked = await pusher.send("GET", second.headers["Location"])
    done = await pusher.send("PUT", f"{asked.headers['Location']}&digest={Digest.of(b'hello world')}")
    read = await pusher.proxy.get(done.headers["Location"])

    assert [a.status for a in (begun, first, second, asked, done)] == [202, 202, 202, 204, 201]
    assert asked.headers["Range"] == "0-10"
    assert begun.headers["Location"].startswith(f"/v2/{ARM}/blobs/uploads/1?")
    assert done.headers["Location"] == f"/v2/{ARM}/blobs/{Digest.of(b'hello world')}"
    assert read.body == b"hello world"


async def test_a_chunk_out_of_order_is_the_registrys_to_refuse(pusher: Pusher) -> None:
    """The upstream's own status and code reach the client."""
    begun = await pusher.begin(ARM)
    answer = await pusher.send("PATCH", begun.headers["Location"], b"world", Content_Range="6-10")

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (416, "RANGE_INVALID")


async def test_an_upload_in_one_request(pusher: Pusher) -> None:
    """A monolithic POST with the digest (end-4b)."""
    done = await pusher.send("POST", f"/v2/{ARM}/blobs/uploads/?digest={Digest.of(b'all')}", b"all")

    assert (done.status, done.headers["Location"]) == (201, f"/v2/{ARM}/blobs/{Digest.of(b'all')}")


async def test_an_upload_is_cancelled(pusher: Pusher) -> None:
    """After DELETE the session is unknown."""
    begun = await pusher.begin(ARM)
    cancelled = await pusher.send("DELETE", begun.headers["Location"])
    again = await pusher.send("GET", begun.headers["Location"])

    assert (cancelled.status, again.status) == (204, 404)
    assert orjson.loads(again.body)["errors"][0]["code"] == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize("session", ["~forged.signature", "..", "a%2Fb", "a%20b", "%7e"])
async def test_a_session_nobody_gave_out_leads_nowhere(origin: Origin, pusher: Pusher, session: str) -> None:
    """What comes back from a client never picks what is asked upstream (law 10)."""
    answer = await pusher.send("PATCH", f"/v2/{ARM}/blobs/uploads/{session}", b"data")

    assert answer.status in (400, 404)
    assert origin.requests == []


async def test_other_paths_of_uploads_come_back_signed(origin: Origin, pusher: Pusher) -> None:
    """A registry that continues uploads elsewhere on its own host is asked there, and only there."""
    origin.fail("POST ", status(202, Location=f"/artifacts-uploads/{ARM}/xyz?token=a%2Fb"))
    begun = await pusher.begin(ARM)
    location = begun.headers["Location"]
    origin.fail("PUT /artifacts-uploads", status(201))
    done = await pusher.send("PUT", f"{location}?digest={Digest.of(b'data')}", b"data")
    stolen = await pusher.send("PUT", location.replace(str(ARM), str(X86)), b"data")

    assert (begun.status, done.status, stolen.status) == (202, 201, 404)
    assert location.startswith(f"/v2/{ARM}/blobs/uploads/~")
    assert [(r.method, r.path, r.query) for r in origin.requests if "uploads/kimoqi" in r.path] == [
        ("PUT", f"/artifacts-uploads/{ARM}/xyz", f"token=a%2Fb&digest={Digest.of(b'data')}")
    ]


async def test_an_upload_that_goes_on_elsewhere_is_refused(origin: Origin, pusher: Pusher) -> None:
    """Nobody but the upstream gets what is pushed."""
    origin.fail("POST ", status(202, Location="http://evil.example/v2/upload"))

    answer = await pusher.begin(ARM)

    assert answer.status == 502


async def test_a_mount_from_a_virtual_name_is_one_from_its_owner(origin: Origin, pusher: Pusher) -> None:
    """Clients remember blobs by the virtual name that they pulled them from."""
    _, arm = push_pair(origin.registry)
    await pusher.proxy.get(VIRTUAL_TAG)
    image = orjson.loads((await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{arm.digest}")).body)
    digest = image["layers"][0]["digest"]

    mounted = await pusher.begin("kimoqi/new", f"?mount={digest}&from=kimoqi/alpine")

    assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/kimoqi/new/blobs/{digest}")


async def test_bodies_are_streamed(origin: Origin, pusher: Pusher) -> None:
    """The upstream has the first bytes while the client still sends: nothing is kept until all of it is there."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def watch(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        await request.content.readexactly(65536)
        arrived.set()
        rest = await request.content.read()
        return aiohttp.web.Response(status=201 if len(rest) == 65536 else 400)

    async def slowly() -> Any:
        yield b"x" * 65536
        await go_on.wait()
        yield b"y" * 65536

    begun = await pusher.begin(ARM)
    origin.fail("PUT ", watch)
    sending = asyncio.create_task(pusher.send("PUT", f"{begun.headers['Location']}&digest={Digest.of(b'')}", slowly()))
    await asyncio.wait_for(arrived.wait(), HANGING)
    go_on.set()

    assert (await sending).status == 201


async def test_a_client_that_leaves_is_no_fault_of_the_upstream(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """A push that breaks off leaves no trace in the circuit breaker, and no answer of 500."""
    proxy = await start(origin, rule=[rule], upstream={"push": True, "breaker": 1})
    pusher = Pusher(proxy)
    begun = await pusher.begin(ARM)
    reader, writer = await asyncio.open_connection(*proxy.url.removeprefix("http://").split(":"))
    head = f"PATCH {begun.headers['Location']} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    writer.write(head.encode() + b"only this")
    await until(lambda: any(request.method == "PATCH" for request in origin.requests))
    writer.close()

    assert (await pusher.begin(ARM)).status == 202
    assert not await reader.read()
    assert b'status="500"' not in (await proxy.page("/metrics")).body


async def test_a_client_may_wait_until_it_is_told_to_send(pusher: Pusher) -> None:
    """`Expect: 100-continue` is answered before the body, which curl and Go clients wait for."""
    begun = await pusher.begin(ARM)
    reader, writer = await asyncio.open_connection(*pusher.proxy.url.removeprefix("http://").split(":"))
    path = f"{begun.headers['Location']}&digest={Digest.of(b'data')}"
    writer.write(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n".encode())
    told = await reader.readline()
    await reader.readline()
    writer.write(b"data")
    answered = await reader.readline()
    writer.close()

    assert told == b"HTTP/1.1 100 Continue\r\n"
    assert answered.startswith(b"HTTP/1.1 201 ")


async def test_a_client_of_http_1_0_is_not_told_to_send(pusher: Pusher) -> None:
    """It knows no interim answers, and would take one for the answer (RFC 9110, 10.1.1)."""
    begun = await pusher.begin(ARM)
    reader, writer = await asyncio.open_connection(*pusher.proxy.url.removeprefix("http://").split(":"))
    path = f"{begun.headers['Location']}&digest={Digest.of(b'data')}"
    writer.write(f"PUT {path} HTTP/1.0\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\ndata".encode())
    answered = await reader.readline()
    writer.close()

    assert answered == b"HTTP/1.0 201 Created\r\n"
