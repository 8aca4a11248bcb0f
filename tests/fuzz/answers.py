"""A registry that answers as no registry should: a relay in front of a good one, which changes what that says."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

from fuzz.mutation import Mutator
from fuzz.samples import FIELDS
from fuzz.wire import Stream

_END: Final = b"\r\n\r\n"
_WRITES: Final = (b"POST ", b"PATCH ", b"PUT ", b"DELETE ")
_KINDS: Final = (
    *_WRITES,
    b"/blobs/",
    b"/manifests/sha256:",
    b"/manifests/",
    b"/tags/",
    b"/referrers/",
    b"/_catalog",
    b"/token",
)
_DATE: Final = re.compile(rb"(?i)(\r\ndate: )[^\r\n]*")
_SESSION: Final = re.compile(rb"uploads/[^ ?]+")  # of an upload, which the registry draws
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: ([0-9]+)")
_PATIENCE: Final = re.compile(rb"(?i)retry-after[^\r\n]*[0-9]")
_LINES: Final = (
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Content-Encoding: gzip",
    b"Content-Encoding: \xff",
    b"Content-Type: application/vnd.oci.image.index.v1+json",
    b"Content-Type: text/html",
    b"Content-Type: \xff",
    b"Content-Type:",
    b"Content-Range: bytes 0-5/6",
    b"Content-Range: bytes 5-0/*",
    b"Docker-Content-Digest: sha256:" + b"a" * 64,
    b"Docker-Content-Digest: \xff",
    b"Docker-Content-Digest:",
    b"Location: //[]@",
    b"Location: http://[\xff:]",
    b"Location: /v2/",
    b"Location:",
    b"Location: http://127.0.0.1/v2/kimoqi/alpine-arm/blobs/uploads/x?_state=y",
    b"Location: http://elsewhere.example/v2/kimoqi/alpine-arm/blobs/uploads/x",
    b"Location: //elsewhere.example/x",
    b"Location: /v2/other/blobs/uploads/../../%2e%2e/x?a=%ff#x",
    b"Location: /uploads/\xff?\xff",
    b"Location: ?digest=sha256:" + b"a" * 64,
    b"Range: 0-5",
    b"Range: bytes=5-0",
    b"Range: \xff",
    b"OCI-Subject: sha256:" + b"a" * 64,
    b"OCI-Subject: \xff",
    b"OCI-Tag: \xff",
    b"OCI-Chunk-Min-Length: -1",
    b"OCI-Chunk-Min-Length: \xff",
    b"Docker-Upload-UUID: \xff",
    b'WWW-Authenticate: Bearer realm="//[]@"',
    b'WWW-Authenticate: Bearer realm="http://%00/"',
    b"WWW-Authenticate: Bearer",
    b"WWW-Authenticate: Basic",
    b"WWW-Authenticate: \xff",
    b"Retry-After: \xff",
    b"Retry-After: -1",
    b"Retry-After: Wed, 99 Foo 2026 25:61:61 GMT",
    b"RateLimit-Limit: 0;w=0",
    b"RateLimit-Remaining: 99999999999999999999",
    b'Link: <?n=1&last=%ff>; rel="next"',
    b'Link: <\xff>; rel="next"',
    b"Link: <?last=a>; rel=next",
    b"Set-Cookie: a=\xff",
    b"Connection: upgrade",
    b"X: " + b"y" * 70_000,
    b"A\0B: c",
    b": x",
    b" folded",
)
_FIRST: Final = (
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 201 Created",
    b"HTTP/1.1 202 Accepted",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 205 Reset Content",
    b"HTTP/1.1 206 Partial Content",
    b"HTTP/1.1 301 Moved",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 307 Temporary Redirect",
    b"HTTP/1.1 401 Unauthorized",
    b"HTTP/1.1 403 Forbidden",
    b"HTTP/1.1 404 Not Found",
    b"HTTP/1.1 416 Range Not Satisfiable",
    b"HTTP/1.1 429 Too Many Requests",
    b"HTTP/1.1 503 \xff",
    b"HTTP/1.1 999 x",
    b"HTTP/1.1 200",
    b"HTTP/1.0 200 OK",
    b"HTTP/9.9 200 OK",
    b"SSH-2.0-OpenSSH",
    b"",
)


@dataclass
class Answers:
    """The relay.

    Attributes:
        seed: What is answered follows from it and from what is asked, so that the order of requests doesn't matter.
        changing: Whether answers are changed now.
        said: The changed ones so far, behind what they answered: they go into the corpus when something is found.
        fixed: An answer by what it answers, from the corpus, instead of changed ones.
    """

    registry: tuple[str, int]
    seed: str
    changing: bool = False
    said: list[Stream] = field(default_factory=list)
    fixed: dict[bytes, bytes] = field(default_factory=dict)
    port: int = 0
    tasks: set[asyncio.Task[object]] = field(default_factory=set)
    asked: Counter[bytes] = field(default_factory=Counter)

    def answer_with(self, stream: Stream) -> None:
        """Give one answer of the corpus to all that it answers, and the good ones to the rest."""
        kind, answer = stream.pieces
        self.fixed = {kind: answer}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close."""
        task = asyncio.current_task()
        if task is not None:
            self.tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()
            if task is not None:
                self.tasks.discard(task)

    async def close(self) -> None:
        """End what is being answered."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(_END)
        length = _LENGTH.search(head)
        answer = await self._real(head, await reader.readexactly(int(length[1])) if length else b"")
        half = 0
        if self.changing:
            line = head.partition(b"\r\n")[0]
            random = self._random(line)
            answer = _DATE.sub(rb"\1Thu, 01 Jan 1970 00:00:00 GMT", answer, count=1)
            kind = next((kind for kind in _KINDS if kind in line), b"")
            answer = self.fixed.get(kind, answer) if self.fixed else self._changed(kind, answer, random)
            half = random.randrange(len(answer) + 1)
        for piece in (answer[:half], answer[half:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async def _real(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self.registry)
        try:
            writer.write(head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n" + body)
            return await reader.read(-1)
        finally:
            writer.close()

    def _random(self, line: bytes) -> Random:
        """Return the luck of a request, which is the same in every run."""
        line = _SESSION.sub(b"uploads/", line)
        self.asked[line] += 1
        return Random(f"{self.seed} {line!r} {self.asked[line]}")

    def _changed(self, kind: bytes, answer: bytes, random: Random) -> bytes:
        head, _, body = answer.partition(_END)
        first, *lines = head.split(b"\r\n")
        mutator = Mutator(random, (*FIELDS, *_LINES))
        match random.randrange(8):
            case 0:
                return answer
            case 1 | 2:
                lines += random.choices(_LINES, k=random.choice([1, 1, 2, 5]))
                random.shuffle(lines)
            case 3:
                first = random.choice(_FIRST)
                lines += random.choices(_LINES, k=random.choice([0, 1, 2]))
            case 4 | 5:  # a body that hangs together with its headers, but for the digest
                body = mutator.mutate(body, [body, answer])
                lines = [line for line in lines if not line.lower().startswith((b"content-length", b"docker-content"))]
                lines.append(b"Content-Length: %d" % len(body))
            case 6:
                return self._say(kind, answer[: random.randrange(len(answer) + 1)])
            case _:
                return self._say(kind, mutator.mutate(answer, [answer]))
        return self._say(kind, b"\r\n".join([first, *lines]) + _END + body)

    def _say(self, kind: bytes, answer: bytes) -> bytes:
        if _PATIENCE.search(answer):  # a registry that asks not to be asked isn't, and wouldn't be right again at once
            answer = b""
        self.said.append(Stream((kind, answer)))
        return answer


@asynccontextmanager
async def relaying(registry: tuple[str, int], seed: str) -> AsyncIterator[Answers]:
    """Let a relay in front of *registry* listen on a free port."""
    answers = Answers(registry, seed)
    server = await asyncio.start_server(answers.handle, "127.0.0.1", 0)
    answers.port = server.sockets[0].getsockname()[1]
    async with server:
        yield answers
    await answers.close()
