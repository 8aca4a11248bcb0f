"""S13, the other side: what an upstream answers is limited as what clients send is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import repeat

from security.conftest import StartProcess

_MOST = 8 << 20  # bytes that the process may have grown by
_BODY = b'{"schemaVersion":2}'
_TYPE = b"Content-Type: application/vnd.oci.image.index.v1+json\r\n"
_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
_CLEAN = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (_TYPE, len(_INDEX), _INDEX)
_OK = b"HTTP/1.1 200 OK\r\n" + _TYPE


@dataclass
class Flooding:
    """An upstream that answers every request with the same bytes, perhaps without an end."""

    answer: list[bytes] | Iterator[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; the connection ends when the client leaves, or the answer does."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in self.answer:
                writer.write(piece)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def _flooding() -> AsyncIterator[Flooding]:
    one = Flooding()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        await asyncio.sleep(0)


FLOODS: dict[str, list[bytes] | Iterator[bytes]] = {
    "100 000 fields": [_OK + b"X: a\r\n" * 100_000 + b"\r\n"],
    "100 000 names": [_OK, *(b"X-%d: a\r\n" % n for n in range(100_000)), b"\r\n"],
    "endless fields": repeat(b"X: a\r\n" * 10_000),
    "a field of 20 MB": [_OK + b"X: ", *repeat(b"a" * 100_000, 200), b"\r\n\r\n"],
    "an endless field": repeat(b"a" * 100_000),
    "a reason of 20 MB": [b"HTTP/1.1 200 ", *repeat(b"a" * 100_000, 200), b"\r\n\r\n"],
    "endless 1xx": repeat(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 1000),
    "endless 100": repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "100 000 trailers": [
        _OK + b"Transfer-Encoding: chunked\r\n\r\n13\r\n" + _BODY + b"\r\n0\r\n" + b"X: a\r\n" * 100_000 + b"\r\n"
    ],
    "an endless trailer": repeat(b"0\r\nX: " + b"a" * 100_000),
    "an endless chunk extension": repeat(b"a" * 100_000),
    "two lengths": [_OK + b"Content-Length: 19\r\nContent-Length: 5\r\n\r\n" + _BODY],
    "CL and TE": [_OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n13\r\n" + _BODY + b"\r\n0\r\n\r\n"],
    "orders in a field": [b"HTTP/1.1 429 No\r\nRetry-After: 5\x01\x1b[2J\r\nContent-Length: 0\r\n\r\n"],
    "HTTP/0.9": [_BODY],
    "HTTP/2": [b"\0\0\4\4\0\0\0\0\0\0\0\0\0" * 10],
    "nothing": [],
}
_BEGINS = {
    "endless fields": _OK,
    "an endless field": _OK + b"X: ",
    "an endless trailer": _OK + b"Transfer-Encoding: chunked\r\n\r\n13\r\n" + _BODY + b"\r\n",
    "an endless chunk extension": _OK + b"Transfer-Encoding: chunked\r\n\r\n0;",
}


def _begun(name: str, flood: list[bytes] | Iterator[bytes]) -> Iterator[bytes]:
    yield _BEGINS.get(name, b"")
    yield from flood


class _Again:
    """A flood that can be sent any number of times."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __iter__(self) -> Iterator[bytes]:
        return _begun(self._name, FLOODS[self._name])


async def test_floods_from_an_upstream(launch: StartProcess) -> None:
    """Headers, trailers and interim answers without an end are a 5xx in time, and memory stays flat."""
    async with _flooding() as upstream:
        process = await launch(
            "request_budget = '4s'\n[[rule]]\nmatch = '**'\nconventions = []\n"
            f'[[upstream]]\nname = "registry"\nurl = "http://127.0.0.1:{upstream.port}"\n'
            "retries = 0\nbreaker = 0\ntimeouts = { header = '2s', total = '2s' }\n"
        )
        upstream.answer = [_CLEAN]
        assert (await process.get("/v2/kimoqi/warm/manifests/1")).status == 200
        before = process.resident
        for number, name in enumerate(FLOODS):
            upstream.answer = _Again(name)  # type: ignore[assignment]
            answer = await process.get(f"/v2/kimoqi/r{number}/manifests/1")
            assert answer.status in (502, 503, 504), (name, answer)
            upstream.answer = [_CLEAN]
            assert (await process.get(f"/v2/kimoqi/clean{number}/manifests/1")).status == 200, name
            assert process.resident - before < _MOST, name
    assert "internal error" not in process.log
