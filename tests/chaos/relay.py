"""A relay in front of a real registry that passes requests on, or does with the answers as it is told."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final

from ports import free_port

_MAX_HEAD: Final = 64 * 1024
_LINE: Final = b"\r\n"
_END: Final = b"\r\n\r\n"
_HOP: Final = (b"connection:", b"keep-alive:")


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer as it is written: the head with its empty line, and the body."""

    head: bytes
    body: bytes = b""

    @property
    def first_line(self) -> list[str]:
        """The words of the first line."""
        return self.head.split(_LINE, 1)[0].decode("latin-1").split(" ", 2)

    def without(self, *names: bytes) -> Message:
        """Leave header fields out; names are in small letters and with their colon."""
        lines = self.head.removesuffix(_END).split(_LINE)
        kept = [line for line in lines if not line.lower().startswith(names)]
        return replace(self, head=_LINE.join(kept) + _END)

    def with_field(self, line: bytes) -> Message:
        """Add a header field."""
        return replace(self, head=self.head.removesuffix(_LINE) + line + _END)


@dataclass
class Exchange:
    """One request that came, how to ask the registry for its answer, and how to send bytes back."""

    number: int
    request: Message
    registry: tuple[str, int]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    over: bool = False

    @property
    def method(self) -> str:
        """The request's method."""
        return self.request.first_line[0]

    @property
    def path(self) -> str:
        """The request's path."""
        return self.request.first_line[1]

    async def ask(self) -> Message:
        """Return the registry's own answer."""
        reader, writer = await asyncio.open_connection(*self.registry)
        try:
            writer.write(self.request.without(*_HOP).with_field(b"Connection: close").head)
            head = await reader.readuntil(_END)
            return Message(head, await reader.read(-1)).without(*_HOP)
        finally:
            writer.close()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    def end(self) -> None:
        """Take no other request on this connection, and close it."""
        self.over = True

    async def left(self) -> None:
        """Wait until who asked has left."""
        self.end()
        with suppress(OSError):
            await self.reader.read()

    async def reset(self) -> None:
        """Break the connection with a TCP reset, once what was sent has had time to arrive."""
        self.end()
        await asyncio.sleep(0.05)
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Answer = Callable[[Exchange], Awaitable[None]]
"""Answers one exchange, well or badly; the connection takes another one unless this one ends it."""


async def faithfully(exchange: Exchange) -> None:
    """Send the registry's answer as it is."""
    answer = await exchange.ask()
    await exchange.send(answer.head + answer.body)


def limited(fault: Answer, words: str) -> Answer:
    """Let *fault* answer where the path has *words* in it, the registry elsewhere."""

    async def answer(exchange: Exchange) -> None:
        await (fault if words in exchange.path else faithfully)(exchange)

    return answer


@dataclass
class Relay:
    """Listens in front of a registry."""

    registry: tuple[str, int]
    port: int = field(default_factory=free_port)
    answer: Answer = faithfully
    count: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Listen, on the same port every time."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_MAX_HEAD)

    async def close(self) -> None:
        """Refuse connections, and break those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def heal(self) -> None:
        """Listen, and be faithful from the next request on."""
        self.answer = faithfully
        await self.open()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._exchanges(reader, writer)
        finally:
            self._tasks.discard(task)
            self._open.discard(writer)
            writer.close()

    async def _exchanges(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request after the other."""
        over = False
        while not over:
            head = await reader.readuntil(_END)
            self.count += 1
            exchange = Exchange(self.count, Message(head), self.registry, reader, writer)
            await self.answer(exchange)
            over = exchange.over


@asynccontextmanager
async def relay(registry: str) -> AsyncIterator[Relay]:
    """Run a relay in front of the registry at this address while the block lasts."""
    host, port = registry.split(":")
    one = Relay((host, int(port)))
    await one.open()
    try:
        yield one
    finally:
        await one.close()
