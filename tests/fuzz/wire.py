"""Connections as nobody should make them: real heads, changed, cut, joined and smuggled."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from fuzz.mutation import Mutator
from patience import HANGING

_END: Final = b"\r\n\r\n"
_QUIET: Final = 0.05  # seconds without a byte after which no more answers are waited for
_LONGEST: Final = HANGING  # seconds that a connection may last
_MAX_ANSWER: Final = 1 << 24
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n")
_SEPARATOR: Final = struct.Struct(">I")

_METHODS: Final = (
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PRI",
    b"get",
    b"",
)
_VERSIONS: Final = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.1 ", b"http/1.1", b"")
_LINES: Final = (
    b"Host: registry.example",
    b"Host:",
    b"Content-Length: 5",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length: 0x5",
    b"Content-Length : 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Connection: close",
    b"Connection: keep-alive, Upgrade",
    b"Connection: Transfer-Encoding",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    b"Expect: 100-continue",
    b"Expect: 999",
    b"Range: bytes=0-0",
    b"Range: bytes=-99999999999999999999",
    b'If-Range: "x"',
    b"If-None-Match: *",
    b"Accept: " + b"a/b," * 500,
    b"Authorization: Basic !!!!",
    b"X-Forwarded-Host: evil.example",
    b"X-Forwarded-For: \xff",
    b"Content-Encoding: gzip",
    b"Cookie: " + b"a=b; " * 200,
    b"X: " + b"y" * 9000,
    b": empty",
    b"\xe2\x80\xae: x",
    b"A\0B: c",
    b" folded",
)
_BODIES: Final = (
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"5;ext=\xff\r\nhello\r\n0\r\n\r\n",
    b"-1\r\n\r\n",
    b"0\r\n\r\nGET /v2/smuggled/x/manifests/1.0 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\0" * 100,
    b"\r\n" * 50,
)
_TARGETS: Final = (
    b"/v2/kimoqi/alpine/tags/list?n=2&last=",
    b"/v2/kimoqi/alpine/tags/list?n=-1",
    b"/v2/_catalog?n=1&last=%ff",
    b"/v2/kimoqi/alpine/referrers/sha256:" + b"a" * 64 + b"?artifactType=",
    b"/v2/kimoqi/alpine/blobs/uploads/",
    b"http://registry.example/v2/",
    b"//v2/",
    b"//[]@",
    b"http://[]@",
    b"http://[::1",
    b"http://a:99999/",
    b"*",
    b"/v2/kimoqi/alpine/manifests/1.0?ns=registry&ns=\xff",
    b"/v2/kimoqi/alpine/manifests/1.0#x",
)
WORDS: Final = (
    *_LINES,
    *_TARGETS,
    *(line + b"\r\n" for line in _LINES),
    _END,
    b"%00",
    b"%2e%2e/",
    b"?ns=",
    b"&n=",
    b"&last=",
)


@dataclass(frozen=True, slots=True)
class Stream:
    """What is sent on a connection, in pieces that arrive apart."""

    pieces: tuple[bytes, ...]

    def write(self) -> bytes:
        """Write it as a file of the corpus: each piece behind its length."""
        return b"".join(_SEPARATOR.pack(len(piece)) + piece for piece in self.pieces)

    @classmethod
    def read(cls, data: bytes) -> Stream:
        """Read a file of the corpus."""
        pieces = []
        while data:
            (size,) = _SEPARATOR.unpack_from(data)
            pieces.append(data[_SEPARATOR.size : _SEPARATOR.size + size])
            data = data[_SEPARATOR.size + size :]
        return cls(tuple(pieces))


class Streams:
    """Makes streams of *heads*. The same seed of *random* makes the same ones."""

    def __init__(self, random: Random, heads: Sequence[bytes]) -> None:
        self._random = random
        self._heads = heads
        self._mutator = Mutator(random, WORDS)

    def draw(self) -> Stream:
        """Make one: a few requests, most of them changed, cut anywhere."""
        requests = [self._request() for _ in range(1 + int(self._random.expovariate(1.0)))]
        return Stream(tuple(self._cut(b"".join(requests))))

    def _request(self) -> bytes:
        head = self._random.choice(self._heads)
        match self._random.randrange(6):
            case 0:
                return head
            case 1:
                return self._line(head)
            case 2:
                return self._with_lines(head)
            case 3:
                return self._with_lines(head) + self._random.choice(_BODIES)
            case _:
                return self._mutator.mutate(head, self._heads)

    def _line(self, head: bytes) -> bytes:
        """Change the first line."""
        first, _, rest = head.partition(b"\r\n")
        method, target, version = first.split(b" ")
        choose = self._random.choice
        first = choose(
            [
                b" ".join((choose(_METHODS), target, version)),
                b" ".join((method, choose(_TARGETS), version)),
                b" ".join((method, target, choose(_VERSIONS))),
                b" ".join((method, self._mutator.mutate(target, _TARGETS), version)),
            ]
        )
        return first + b"\r\n" + rest

    def _with_lines(self, head: bytes) -> bytes:
        """Add lines, also such that it has, sometimes very many."""
        first, *lines = head.removesuffix(_END).split(b"\r\n")
        lines += self._random.choices(_LINES, k=self._random.choice([1, 1, 2, 3, 200]))
        self._random.shuffle(lines)
        return b"\r\n".join([first, *lines]) + _END

    def _cut(self, data: bytes) -> list[bytes]:
        """Cut *data* into pieces, and sometimes its end off."""
        if self._random.random() < 0.1:
            data = data[: self._random.randrange(len(data) + 1)]
        if self._random.random() < 0.05:
            return [data[n : n + 1] for n in range(min(len(data), 400))]
        places = sorted(self._random.randrange(len(data) + 1) for _ in range(self._random.choice([0, 0, 0, 1, 1, 3])))
        return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


async def send(address: tuple[str, int], stream: Stream) -> bytes:
    """Send *stream*, then no more; return all that comes until the server closes.

    Raises `TimeoutError` where it doesn't.
    """
    reader, writer = await asyncio.open_connection(*address)
    answer = bytearray()
    try:
        async with asyncio.timeout(_LONGEST):
            await _converse(reader, writer, stream, answer)
    finally:
        writer.transport.abort()
    return bytes(answer)


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream, answer: bytearray
) -> None:
    try:
        for piece in stream.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        while await _more(reader, answer):
            pass
        writer.write_eof()
        while len(answer) < _MAX_ANSWER and (more := await reader.read(1 << 16)):
            answer += more
    except TimeoutError:
        raise
    except OSError:
        pass  # the server closed it, as it may


async def _more(reader: asyncio.StreamReader, answer: bytearray) -> bool:
    """Take what comes; False where nothing does for a moment: what we may want to say is said."""
    try:
        async with asyncio.timeout(_QUIET):
            piece = await reader.read(1 << 16)
    except TimeoutError:
        return False
    answer += piece
    return bool(piece)


def statuses(answer: bytes) -> list[int]:
    """Return the statuses of the answers."""
    return [int(status) for status in _STATUS.findall(answer)]
