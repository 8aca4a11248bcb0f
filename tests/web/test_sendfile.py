"""Files sent by the kernel, on both kinds of event loop: all bytes, in order, and nothing left open."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from conftest import until
from patience import HANGING
from proxy.memory import MemoryRegistry
from proxy.oci.byterange import Part, select
from proxy.oci.content import Blob, FileSlice
from proxy.oci.reference import Digest, Repository
from proxy.telemetry import Metrics
from proxy.web import sendfile
from proxy.web.distribution import Distribution
from proxy.web.request import always
from proxy.web.server import listen

DATA = random.Random(1).randbytes(8_000_000)  # noqa: S311 # no secret
DIGEST = Digest.of(DATA)
PATH = f"/v2/team/app/blobs/{DIGEST}"

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


class Filed(MemoryRegistry):
    """A registry whose blob is in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.lent = 0

    @asynccontextmanager
    async def blob(self, repository: Repository, digest: Digest, part: Part) -> AsyncIterator[Blob]:
        """Open it. Its chunks are a mistake to use."""
        wanted = select(part, len(DATA))
        first, length = (wanted.first, wanted.length) if wanted else (0, len(DATA))
        descriptor = os.open(self.path, os.O_RDONLY)
        self.lent += 1
        try:
            slice_ = FileSlice(descriptor, first, length)
            yield Blob(digest=digest, size=len(DATA), part=wanted, chunks=_unused(), file=slice_)
        finally:
            self.lent -= 1
            os.close(descriptor)


async def _unused() -> AsyncIterator[bytes]:
    for chunk in (b"the kernel should have sent it",):
        yield chunk


@pytest.fixture
def filed(tmp_path: Path) -> Filed:
    """The blob, in a file."""
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    return Filed(path)


def descriptors() -> int:
    """Count what this process has open, but for what uvloop keeps in reserve."""
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # it was the listing's own
            found += str(path.readlink()) != "/dev/null"
    return found


def run(loop: Callable[[], asyncio.AbstractEventLoop], filed: Filed, client: Callable[[str, int], Any]) -> None:
    """Let *client* talk to a server on a loop of the kind; afterwards no descriptor is open that wasn't before."""

    async def both() -> None:
        before = descriptors()
        async with listen(Distribution(always(filed), Metrics()).handle, ("127.0.0.1", 0), drain=0.1) as address:
            await client(*address)
            await until(lambda: not filed.lent)
        await until(lambda: descriptors() <= before)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_limited(both()))


async def _limited(work: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(HANGING):
        await work


async def ask(writer: asyncio.StreamWriter, **headers: str) -> None:
    """Send a GET of the blob."""
    lines = [f"GET {PATH} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await writer.drain()


async def answer(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Read an answer that has a length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    (length,) = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Content-Length")]
    return head.split("\r\n")[0], await reader.readexactly(int(length))


@pytest.mark.parametrize("loop", LOOPS)
def test_one_connection_many_files(filed: Filed, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Whole, parts, and requests that were sent before the answer came: each gets its bytes, on one connection."""

    async def client(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        await ask(writer)
        assert await answer(reader) == ("HTTP/1.1 200 OK", DATA)
        for _ in range(3):
            await ask(writer, Range="bytes=1000000-6999999")
            await ask(writer, Range="bytes=-1")
        for _ in range(3):
            assert await answer(reader) == ("HTTP/1.1 206 Partial Content", DATA[1_000_000:7_000_000])
            assert await answer(reader) == ("HTTP/1.1 206 Partial Content", DATA[-1:])
        writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await answer(reader) == ("HTTP/1.1 200 OK", b"{}")
        writer.close()
        await writer.wait_closed()

    run(loop, filed, client)


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_is_held_back_behind_a_file(
    filed: Filed, loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a file is sent the kernel waits for whole segments; what comes behind it leaves at once again."""
    seen: list[tuple[bool, int]] = []
    cork = sendfile._cork

    def watched(connection: socket.socket, *, on: bool) -> None:
        cork(connection, on=on)
        seen.append((on, connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)))

    monkeypatch.setattr(sendfile, "_cork", watched)

    async def client(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for _ in range(2):
            await ask(writer)
            assert await answer(reader) == ("HTTP/1.1 200 OK", DATA)
        writer.close()
        await writer.wait_closed()

    run(loop, filed, client)

    assert seen == [(True, 1), (False, 0)] * 2


@pytest.mark.parametrize("loop", LOOPS)
def test_a_slow_client(filed: Filed, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """One that reads a little at a time gets all of it, while others are served."""

    async def slow(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 16)
        await ask(writer)
        await reader.readuntil(b"\r\n\r\n")
        got = bytearray()
        while len(got) < len(DATA):
            got += await reader.read(200_000)
            await asyncio.sleep(0.001)
        assert bytes(got) == DATA
        writer.close()

    async def quick(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for _ in range(3):
            await ask(writer)
            assert (await answer(reader))[1] == DATA
        writer.close()

    async def client(host: str, port: int) -> None:
        await asyncio.gather(slow(host, port), quick(host, port), slow(host, port))

    run(loop, filed, client)


@pytest.mark.parametrize("abruptly", [True, False])
@pytest.mark.parametrize("loop", LOOPS)
def test_clients_that_leave(filed: Filed, loop: Callable[[], asyncio.AbstractEventLoop], abruptly: bool) -> None:
    """Who leaves in the middle is no error, and leaves nothing open."""

    async def leave(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 16)
        await ask(writer)
        await reader.readexactly(300_000)
        if abruptly:
            writer.transport.abort()
        else:
            writer.close()

    async def client(host: str, port: int) -> None:
        await asyncio.gather(*(leave(host, port) for _ in range(20)))
        await until(lambda: not filed.lent)

    with capture_logs() as logs:
        run(loop, filed, client)

    assert [log for log in logs if log["log_level"] != "info"] == []


@pytest.mark.parametrize("loop", LOOPS)
def test_a_file_that_was_cut_ends_no_answer(filed: Filed, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """When the file has become shorter, the connection breaks: nobody takes the part for the whole."""
    os.truncate(filed.path, 5_000_000)

    async def client(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        await ask(writer)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await answer(reader)
        writer.close()

    with capture_logs() as logs:
        run(loop, filed, client)

    assert [log["event"] for log in logs if log["log_level"] != "info"] == ["blob broken off"]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_service_that_stops_waits_for_nobody(filed: Filed, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A client that reads nothing is cut when the time for draining is over."""

    async def client(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 16)
        await ask(writer)
        await reader.readexactly(300_000)
        stalled.append(writer)

    async def both() -> None:
        async with listen(Distribution(always(filed), Metrics()).handle, ("127.0.0.1", 0), drain=0.1) as address:
            await client(*address)
            assert filed.lent == 1
        assert filed.lent == 0
        writer = stalled.pop()
        writer.transport.abort()

    stalled: list[asyncio.StreamWriter] = []
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_limited(both()))


def test_what_the_kernel_cannot_send_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through TLS, without a socket, or on a system without the call, chunks are the way."""

    class Transport(asyncio.BaseTransport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return self._extra.get(name, default)  # type: ignore[attr-defined]

    assert sendfile.can_send(Transport({"socket": object()}))
    assert not sendfile.can_send(Transport({"socket": object(), "sslcontext": ssl.create_default_context()}))
    assert not sendfile.can_send(Transport({}))
    monkeypatch.delattr(os, "sendfile")
    assert not sendfile.can_send(Transport({"socket": object()}))
