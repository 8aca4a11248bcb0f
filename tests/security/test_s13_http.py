"""S13: HTTP itself. What has two readings is refused, what is too much or too slow is cut off, nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import permutations

import orjson

from conftest import until
from images import push_pair
from patience import HANGING
from process import Process
from proxy.oci.reference import Repository
from scripted import Origin, status, waits_for
from security.conftest import StartProcess

_PATH = "/v2/kimoqi/alpine/manifests/1.0"
_GET = f"GET {_PATH} HTTP/1.1\r\nHost: a\r\n"
_CHUNKED = f"{_GET}Transfer-Encoding: chunked\r\n\r\n"
_SECOND = "GET /v2/secret/smuggled/manifests/1 HTTP/1.1\r\nHost: a\r\n\r\n"
_MOST = 5 << 20  # bytes that the process may have grown by


def _config(origin: Origin, more: str = "", upstream: str = "") -> str:
    return f'{more}\n[[upstream]]\nname = "registry"\nurl = "{origin.url}"\n{upstream}'


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Found = tuple[int, dict[str, str], bytes]  # status, 0 for a closed connection, headers and body


@asynccontextmanager
async def _connected(process: Process, local: str | None = None) -> AsyncIterator[Connection]:
    """Connect, perhaps from another address of this machine."""
    reader, writer = await asyncio.open_connection(
        process.url.host, process.url.port, local_addr=(local, 0) if local else None
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _ask(connection: Connection, data: str) -> Found:
    """Send *data*, and return the next answer."""
    reader, writer = connection
    with contextlib.suppress(ConnectionError):
        writer.write(data.encode("latin-1"))
    return await _answer(reader)


async def _answer(reader: asyncio.StreamReader) -> Found:
    async with asyncio.timeout(HANGING):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
            headers = {name.lower(): value for name, _, value in lines}
            return int(head.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, {}, b""


async def _once(process: Process, data: str, local: str | None = None) -> Found:
    async with _connected(process, local) as connection:
        return await _ask(connection, data)


async def _let_in(process: Process, data: str) -> Found:
    """Send *data* until there is a place for it, and return the answer."""
    found: list[Found] = []

    async def is_in() -> bool:
        found.append(await _once(process, data))
        return found[-1][0] not in (429, 503)

    await until(is_in)
    return found[-1]


def _codes(body: bytes) -> list[str]:
    return [each["code"] for each in orjson.loads(body)["errors"]]


async def _open(process: Process) -> float:
    """Return how many connections there are, as metrics say."""
    return _value((await process.page("/metrics")).body, "manifuse_connections ")


def _value(metrics: bytes, name: str) -> float:
    return sum(float(line.split()[-1]) for line in metrics.decode().splitlines() if line.startswith(name))


async def _none_open(process: Process) -> None:
    async def is_alone() -> bool:
        return not await _open(process)

    await until(is_alone)


MALFORMED = {
    "two hosts": f"{_GET}Host: b\r\n\r\n",
    "the same host twice": f"{_GET}host: a\r\n\r\n",
    "CL and TE": f"{_GET}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{_SECOND}",
    "TE and CL": f"{_GET}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{_SECOND}",
    "two lengths": f"{_GET}Content-Length: 0\r\nContent-Length: {len(_SECOND)}\r\n\r\n{_SECOND}",
    "a list of lengths": f"{_GET}Content-Length: 0, 0\r\n\r\n{_SECOND}",
    "a length with a sign": f"{_GET}Content-Length: +0\r\n\r\n{_SECOND}",
    "a negative length": f"{_GET}Content-Length: -1\r\n\r\n{_SECOND}",
    "an unknown coding": f"{_GET}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{_SECOND}",
    "chunked is not last": f"{_GET}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{_SECOND}",
    "another coding first": f"{_GET}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{_SECOND}",
    "chunked twice": f"{_GET}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{_SECOND}",
    "a coding behind a tab": f"{_GET}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{_SECOND}",
    "chunked in HTTP/1.0": f"GET {_PATH} HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{_SECOND}",
    "a chunk size in C": f"{_CHUNKED}0x0\r\n\r\n{_SECOND}",
    "a negative chunk size": f"{_CHUNKED}-1\r\n\r\n{_SECOND}",
    "a chunk size beyond 64 bits": f"{_CHUNKED}fffffffffffffffff\r\n\r\n{_SECOND}",
    "a space behind a chunk size": f"{_CHUNKED}0 \r\n\r\n{_SECOND}",
    "a bare LF in a chunk extension": f"{_CHUNKED}0;a\nb\r\n\r\n{_SECOND}",
    "a bare LF behind a chunk size": f"{_CHUNKED}1\na\r\n0\r\n\r\n{_SECOND}",
    "a chunk without its end": f"{_CHUNKED}1\r\nax0\r\n\r\n{_SECOND}",
    "a folded field": f"{_GET}X: a\r\n b\r\n\r\n",
    "a folded field first": f"GET {_PATH} HTTP/1.1\r\n Host: a\r\n\r\n",
    "bare LFs": _GET.replace("\r\n", "\n") + "\n",
    "a bare LF": f"{_GET}X: a\nHost: b\r\n\r\n",
    "a bare CR": f"{_GET}X: a\rHost: b\r\n\r\n",
    "a space before the colon": f"{_GET}X : a\r\n\r\n",
    "a length behind a space": f"{_GET}Content-Length : {len(_SECOND)}\r\n\r\n{_SECOND}",
    "no colon": f"{_GET}X\r\n\r\n",
    "no name": f"{_GET}: a\r\n\r\n",
    "a NUL": f"{_GET}X: a\0b\r\n\r\n",
    "an address of another host": f"GET http://b{_PATH} HTTP/1.1\r\nHost: a\r\n\r\n",
    "an address with a user": f"GET http://u@a{_PATH} HTTP/1.1\r\nHost: a\r\n\r\n",
    "an address of another scheme": f"GET ftp://a{_PATH} HTTP/1.1\r\nHost: a\r\n\r\n",
    "a host as path": f"GET //b{_PATH} HTTP/1.1\r\nHost: a\r\n\r\n",
    "an authority": "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "everything": "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS of everything": "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a host with a user": f"GET {_PATH} HTTP/1.1\r\nHost: a@registry\r\n\r\n",
    "a host with too large a port": f"GET {_PATH} HTTP/1.1\r\nHost: a:999999\r\n\r\n",
    "a host with two ports": f"GET {_PATH} HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
    "a host with no port": f"GET {_PATH} HTTP/1.1\r\nHost: a:\r\n\r\n",
    "a host with a path": f"GET {_PATH} HTTP/1.1\r\nHost: a/registry\r\n\r\n",
    "an empty host": f"GET {_PATH} HTTP/1.1\r\nHost:\r\n\r\n",
    "a list of hosts": f"GET {_PATH} HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "no host": f"GET {_PATH} HTTP/1.1\r\n\r\n",
    "HTTP/0.9": f"GET {_PATH}\r\n\r\n",
    "HTTP/1.2": f"GET {_PATH} HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2": f"GET {_PATH} HTTP/2.0\r\nHost: a\r\n\r\n",
    "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "a method in small letters": f"get {_PATH} HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the path": f"GET {_PATH} x HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


async def test_what_has_two_readings_has_none(launch: StartProcess, origin: Origin) -> None:
    """A 4xx or 5xx and the end of the connection: what comes behind isn't read, and no upstream is asked.

    Warm or not: what is answered hot is the head that aiohttp has accepted, to the byte. No request is answered for
    another.
    """
    push_pair(origin.registry)
    process = await launch(_config(origin))
    clean = f"{_GET}\r\n"
    for _ in range(2):
        for name, data in MALFORMED.items():
            origin.requests.clear()
            async with _connected(process) as connection:
                status, _, body = await _ask(connection, data)
                rest = await connection[0].read() if status not in (404, 405) else b""
            assert 400 <= status < 600, (name, status)
            assert status != 500, name
            assert (rest, origin.requests) == (b"", []), name
            assert orjson.loads(body)["errors"], name
        assert (await _once(process, clean))[0] == 200
    await _refuses_reordered_heads(process)
    await _answers_in_order(process)
    assert "internal error" not in process.log
    assert _value((await process.page("/metrics")).body, 'manifuse_rejected_total{reason="malformed"}') > 80


async def _refuses_reordered_heads(process: Process) -> None:
    """The lines of an answered head, one of them twice, folded or cut otherwise, in any order: never an answer."""
    lines = ["Host: a", "Accept: */*", "X-A: b"]
    for _ in range(2):
        assert (await _once(process, f"GET {_PATH} HTTP/1.1\r\n" + "\r\n".join([*lines, "", ""])))[0] == 200
    for extra in ("Host: a", " X-A: b", "X-A : b", "\tb"):
        for order in permutations([*lines, extra]):
            head = f"GET {_PATH} HTTP/1.1\r\n" + "\r\n".join([*order, "", ""])
            assert (await _once(process, head))[0] == 400, order


async def _answers_in_order(process: Process) -> None:
    """A warm head in a body is a body; pipelined requests are answered in their order: none for another."""
    warm = f"{_GET}\r\n"
    for _ in range(2):
        assert (await _once(process, warm))[0] == 200
    ping = "GET /v2/ HTTP/1.1\r\nHost: a\r\n"
    absent = "GET /v2/none/such/manifests/1 HTTP/1.1\r\nHost: a\r\n\r\n"
    cases = [
        (f"{ping}Content-Length: {len(warm)}\r\n\r\n{warm}{absent}", [200, 404]),
        (f"{ping}Transfer-Encoding: chunked\r\n\r\n{len(warm):x}\r\n{warm}\r\n0\r\n\r\n{absent}", [200, 404]),
        (f"{ping}Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n\r\n{absent}{warm}", [200, 404, 200]),
        (f"{ping}Expect: 100-continue\r\n\r\n{absent}{warm}", [200, 404, 200]),
        (f"{absent}{warm}{ping}\r\n{warm}", [404, 200, 200, 200]),
        (f"{ping}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", [200]),
        (f"{ping}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", [200]),
    ]
    for data, expected in cases:
        for size in (len(data), 7):
            async with _connected(process) as (reader, writer):
                for start in range(0, len(data), size):
                    writer.write(data[start : start + size].encode())
                    await writer.drain()
                    await asyncio.sleep(0)
                answers = [await _answer(reader) for _ in expected]
                assert [status for status, _, _ in answers] == expected, data
                for status, headers, _ in answers:
                    assert ("docker-content-digest" in headers) <= (status == 200)
                await _ask((reader, writer), warm)
    assert (await _once(process, warm))[0] == 200


async def test_a_body_behind_an_upgrade_is_no_request(launch: StartProcess, origin: Origin) -> None:
    """Nobody is taken to another protocol, and a parser that stops there loses its place: the connection ends."""
    process = await launch(_config(origin))
    ping = "GET /v2/ HTTP/1.1\r\nHost: a\r\n"
    behind = f"POST /v2/kimoqi/alpine/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: {len(_SECOND)}\r\n\r\n"
    for protocol in ("h2c", "websocket", "TLS/1.0"):
        upgrade = f"{ping}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n"
        for first in (f"{upgrade}\r\n", f"{upgrade}Content-Length: 1\r\n\r\na"):
            origin.requests.clear()
            async with _connected(process) as connection:
                status, headers, _ = await _ask(connection, first + behind)
                assert (status, headers["connection"]) == (200, "close"), protocol
                assert (await _ask(connection, _SECOND))[0] == 0, protocol
            assert origin.requests == [], protocol
    head = f"{ping}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    for place in range(1, len(head)):
        async with _connected(process) as connection:
            assert (await _ask(connection, f"{ping}\r\n{head[:place]}"))[0] == 200
            status, headers, _ = await _ask(connection, head[place:] + behind)
            assert (status, headers["connection"]) == (200, "close"), place
    async with _connected(process) as connection:
        assert [(await _ask(connection, head))[0] for _ in range(3)] == [200] * 3


async def test_floods_of_headers(launch: StartProcess, origin: Origin) -> None:
    """100 000 fields, one of 5 MB, as many trailers, heads that don't end: 431 or closed, and memory stays flat."""
    push_pair(origin.registry)
    limits = '[limits]\nbody_timeout = "1s"\nheader_max = "4KiB"\nheader_fields = 40\n'
    process = await launch(_config(origin, limits))
    await _limits_heads(process)
    floods = [
        _GET + "X: a\r\n" * 100_000 + "\r\n",
        _GET + "".join(f"X-{n}: a\r\n" for n in range(100_000)) + "\r\n",
        f"{_GET}X: {'a' * 5_000_000}\r\n\r\n",
        f"{_GET}{'x' * 5_000_000}: a\r\n\r\n",
        f"GET /{'a' * 5_000_000} HTTP/1.1\r\nHost: a\r\n\r\n",
        "G" * 5_000_000,
        _CHUNKED + "0\r\n" + "X: a\r\n" * 100_000 + "\r\n",
        f"{_CHUNKED}0\r\nX: {'a' * 5_000_000}",
        f"{_CHUNKED}0;{'a' * 5_000_000}",
        "\r\n" * 1_000_000,
    ]
    await _once(process, f"{_GET}\r\n")
    before = process.resident
    for number, flood in enumerate(floods * 2):
        async with _connected(process) as connection:
            status, _, _ = await _ask(connection, flood)
            if flood.startswith(_CHUNKED) and status == 200:  # its head was fine
                status, _, _ = await _answer(connection[0])
            assert status in (0, 400, 431), (number, status)
    assert (await _once(process, f"{_GET}\r\n"))[0] == 200
    assert process.resident - before < _MOST
    await _none_open(process)


async def _limits_heads(process: Process) -> None:
    """All of a head counts, whether it comes in one piece or in many."""
    long = _GET + "".join(f"X-{n}: {'a' * 150}\r\n" for n in range(30)) + "\r\n"
    many = _GET + "".join(f"X-{n}: a\r\n" for n in range(45)) + "\r\n"
    fits = _GET + "".join(f"X-{n}: {'a' * 90}\r\n" for n in range(30)) + "\r\n"
    assert [(await _once(process, data))[0] for data in (long, many, fits)] == [431, 431, 200]
    async with _connected(process) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(long), 100):
                writer.write(long[start : start + 100].encode())
                await writer.drain()
                await asyncio.sleep(0.001)
        assert (await _answer(reader))[0] in (0, 431)


async def test_what_is_slow(launch: StartProcess, origin: Origin) -> None:
    """A head that doesn't end, however steadily it comes, is 408; a connection on which nothing is asked is closed.

    So is a body that drips. One that is too large is 413.
    """
    push_pair(origin.registry)
    limits = '[limits]\nhead_timeout = "1s"\nidle_timeout = "2s"\nbody_timeout = "1s"\nupload_max = "64KiB"\n'
    process = await launch(_config(origin, limits, "push = true\n"))

    async def loris(start: str) -> Found:
        async with _connected(process) as (reader, writer):
            writer.write(start.encode())
            dripping = asyncio.create_task(_drip(writer))
            status, headers, body = await _answer(reader)
            if status == 200:
                status, headers, body = await _answer(reader)
            dripping.cancel()
            return status, headers, body

    async def idler(*asked: str) -> None:
        async with _connected(process) as connection, asyncio.timeout(HANGING):
            for head in asked:
                assert (await _ask(connection, head))[0] == 200
            assert await connection[0].read() == b""

    starts = ["GET /", _GET, f"{_GET}\r\n{_GET}", f"{_GET}X-"] * 10
    found, *_ = await asyncio.gather(
        asyncio.gather(*(loris(start) for start in starts)),
        idler(),
        idler(f"{_GET}\r\n"),
        _limits_bodies(process),
    )
    assert {status for status, _, _ in found} <= {0, 408}
    assert 408 in {status for status, _, _ in found}
    assert (await _once(process, f"{_GET}\r\n"))[0] == 200
    await _none_open(process)


async def _drip(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.02)


async def _limits_bodies(process: Process) -> None:
    """A body that drips is 408, one that is too large 413, told before or found out; neither is pushed."""
    digest = "sha256:" + "0" * 64
    manifest = "PUT /v2/kimoqi/new/manifests/1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    upload = f"POST /v2/kimoqi/new/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: a\r\n"
    for slow in (f"{manifest}Content-Length: 1000\r\n\r\n", f"{upload}Transfer-Encoding: chunked\r\n\r\n"):
        async with _connected(process) as (reader, writer):
            writer.write(slow.encode())
            dripping = asyncio.create_task(_drip(writer)) if "Length" in slow else None
            assert (await _answer(reader))[0] == 408
            if dripping:
                dripping.cancel()
    large = [
        f"{upload}Content-Length: 65537\r\n\r\n",
        f"{upload}Content-Length: 1\r\nContent-Range: 65536-65536\r\n\r\na",
        f"{upload}Transfer-Encoding: chunked\r\n\r\n11000\r\n{'a' * 0x11000}\r\n0\r\n\r\n",
    ]
    for data in large:
        status, _, body = await _once(process, data)
        assert (status, _codes(body)) == (413, ["SIZE_INVALID"])
    assert (await _once(process, "GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 200
    assert (await process.get("/v2/kimoqi/new/manifests/1")).status == 404


async def test_manifests_that_are_pushed_take_only_so_much_memory(launch: StartProcess, origin: Origin) -> None:
    """They are kept until the registry has them: one client's take half of what there is, and give it back."""
    gate = asyncio.Event()
    origin.fail("PUT", status(400))
    origin.fail("PUT", waits_for(gate))
    process = await launch(_config(origin, '[limits]\nmanifests_max = "16MiB"\n', "push = true\n"))
    body = "a" * (4 << 20)
    push = f"PUT /v2/kimoqi/new/manifests/1 HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    held = [asyncio.create_task(_once(process, push, local)) for local in ("127.0.0.1", "127.0.0.1", "127.0.0.2")]
    await until(lambda: len(origin.requests) == 3)
    found = await _once(process, push)
    assert (found[0], found[1]["retry-after"], _codes(found[2])) == (503, "1", ["TOOMANYREQUESTS"])
    gate.set()
    assert [(await each)[0] for each in held] == [400] * 3
    assert (await _once(process, push))[0] == 400


async def test_a_client_that_does_not_read(launch: StartProcess, origin: Origin) -> None:
    """Its connection is closed, whoever writes to it, and what it took is free again."""
    layer = bytes(24 << 20)
    digest = origin.registry.add_blob(Repository.parse("kimoqi/big"), layer)
    more = '[limits]\nsend_timeout = "1s"\nrequests = 1\n'
    process = await launch(
        _config(origin, more) + f'[[upstream]]\nname = "cached"\nurl = "{origin.url}"\nblobs = "cache"\n'
    )
    for count, name in enumerate(("registry", "cached"), 1):
        head = f"GET /v2/{name}/kimoqi/big/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n"
        async with _connected(process) as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(head.encode())
            await until(partial(_gave_up, process, count))
        status, _, body = await _let_in(process, head)  # it is told of a moment before its place is free
        assert (status, len(body)) == (200, len(layer)), name


async def _gave_up(process: Process, clients: int) -> bool:
    """Whether so many clients were given up that took nothing."""
    metrics = (await process.page("/metrics")).body
    return _value(metrics, 'manifuse_rejected_total{reason="send_timeout"}') == clients


async def test_too_many_connections(launch: StartProcess, origin: Origin) -> None:
    """One too many of all is 503, one too many of an address 429; others are answered, and later that one as well."""
    push_pair(origin.registry)
    process = await launch(_config(origin, "[limits]\nconnections = 5\nconnections_per_client = 3\n"))
    async with contextlib.AsyncExitStack() as stack:
        mine = [await stack.enter_async_context(_connected(process)) for _ in range(3)]
        for each in mine:
            assert (await _ask(each, f"{_GET}\r\n"))[0] == 200
        status, headers, body = await _once(process, f"{_GET}\r\n")
        assert (status, headers["retry-after"], _codes(body)) == (429, "1", ["TOOMANYREQUESTS"])
        for _ in range(2):
            other = await stack.enter_async_context(_connected(process, "127.0.0.2"))
            assert (await _ask(other, f"{_GET}\r\n"))[0] == 200
        status, headers, body = await _once(process, f"{_GET}\r\n", "127.0.0.3")
        assert (status, headers["retry-after"], _codes(body)) == (503, "1", ["TOOMANYREQUESTS"])
        flood = [asyncio.create_task(_once(process, "", f"127.0.1.{n % 250}")) for n in range(400)]
        assert {status for status, _, _ in await asyncio.gather(*flood)} <= {0, 503}
        assert (await _ask(mine[0], f"{_GET}\r\n"))[0] == 200
        metrics = (await process.page("/metrics")).body
        assert _value(metrics, "manifuse_connections ") == 5
        assert _value(metrics, 'manifuse_rejected_total{reason="connections"}') == 401
        assert _value(metrics, 'manifuse_rejected_total{reason="connections_per_client"}') == 1
    await _none_open(process)
    assert (await _once(process, f"{_GET}\r\n"))[0] == 200


async def test_too_many_requests_in_flight(launch: StartProcess, origin: Origin) -> None:
    """Also when those in flight are given up by their clients: their places are free again."""
    push_pair(origin.registry)
    gate = asyncio.Event()
    origin.fail("", waits_for(gate))
    process = await launch(_config(origin, "[limits]\nrequests = 3\nrequests_per_client = 2\n"))
    async with contextlib.AsyncExitStack() as stack:

        async def waiting(name: str, local: str | None = None) -> None:
            _, writer = await stack.enter_async_context(_connected(process, local))
            writer.write(f"GET /v2/kimoqi/{name}/manifests/1 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            await until(lambda: f"/v2/kimoqi/{name}/" in str(origin.requests))

        await waiting("one")
        await waiting("two")
        assert (await _once(process, f"{_GET}\r\n"))[0] == 429
        await waiting("three", "127.0.0.2")
        status, headers, body = await _once(process, f"{_GET}\r\n", "127.0.0.3")
        assert (status, headers["retry-after"], _codes(body)) == (503, "1", ["TOOMANYREQUESTS"])
    gate.set()
    assert (await _let_in(process, f"{_GET}\r\n"))[0] == 200


async def test_slow_readers_leave_connections_to_the_registry(launch: StartProcess, origin: Origin) -> None:
    """An address that takes nothing has so many blobs on their way; others get theirs, and so does it from disk."""
    digest = origin.registry.add_blob(Repository.parse("kimoqi/big"), bytes(24 << 20))
    more = f'[limits]\nstreams_per_client = 2\n[[upstream]]\nname = "cached"\nurl = "{origin.url}"\nblobs = "cache"\n'
    process = await launch(_config(origin, more, "connections = 4\n"))
    heads = [f"GET /v2/{name}/kimoqi/big/blobs/{digest} HTTP/1.1\r\nHost: a\r\n" for name in ("registry", "cached")]
    slow, kept = (f"{head}\r\n" for head in heads)
    assert (await _once(process, kept))[0] == 200
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            reader, writer = await stack.enter_async_context(_connected(process))
            writer.write(slow.encode())
            assert (await reader.readexactly(12)) == b"HTTP/1.1 200"
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        status, headers, body = await _once(process, slow)
        assert (status, headers["retry-after"], _codes(body)) == (429, "1", ["TOOMANYREQUESTS"])
        assert (await process.get(f"/v2/registry/kimoqi/big/blobs/{digest}", "HEAD")).status == 200
        assert (await _once(process, slow, "127.0.0.2"))[0] == 200
        assert (await _once(process, kept))[0] == 200
    assert (await _let_in(process, slow))[0] == 200


async def test_a_rate_holds_for_hot_answers_too(launch: StartProcess, origin: Origin) -> None:
    """After the burst an address is told when to come back, on a connection or many; another one is answered."""
    push_pair(origin.registry)
    more = 'trusted_proxies = ["127.0.0.2"]\n[limits]\nrate = "1/h"\nburst = 3\nconnections_per_client = 1\n'
    process = await launch(_config(origin, more))
    async with _connected(process, "127.0.0.9") as connection:
        statuses = [(await _ask(connection, f"{_GET}\r\n"))[0] for _ in range(5)]
        assert statuses == [200] * 3 + [429] * 2
        status, headers, body = await _ask(connection, f"{_GET}\r\n")
    assert (status, _codes(body)) == (429, ["TOOMANYREQUESTS"])
    assert 3500 < int(headers["retry-after"]) <= 3600
    await _none_open(process)
    assert (await _once(process, f"{_GET}\r\n", "127.0.0.9"))[0] == 429
    assert (await _once(process, f"{_GET}\r\n", "127.0.0.8"))[0] == 200
    await _knows_clients_behind_proxies(process)


async def _knows_clients_behind_proxies(process: Process) -> None:
    """A trusted proxy says whom it speaks for, hot or not; what anybody else says of that counts for nothing."""

    def head(*forwarded: str) -> str:
        return _GET + "".join(f"X-Forwarded-For: {each}\r\n" for each in forwarded) + "\r\n"

    async with _connected(process, "127.0.0.2") as proxy, _connected(process, "127.0.0.2") as second:
        for client in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
            assert [(await _ask(proxy, head(client)))[0] for _ in range(4)] == [200] * 3 + [429]
        assert (await _ask(second, head("2001:db8::2")))[0] == 429  # the same /64
        assert (await _ask(second, head("198.51.100.7, 192.0.2.1")))[0] == 429  # what the client says itself
        assert (await _ask(second, head("192.0.2.1, 198.51.100.7")))[0] == 200
        assert (await _ask(second, head("192.0.2.1", "127.0.0.2")))[0] == 429
    async with _connected(process) as nobody:
        statuses = [(await _ask(nobody, head(f"192.0.2.{n}")))[0] for n in range(10, 15)]
        assert statuses == [200] * 3 + [429] * 2
