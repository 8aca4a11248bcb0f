"""A connection with hot answers: what aiohttp is fed, what waits for what, and when it ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from conftest import Clock, until
from images import push_pair
from proxy.oci.lease import Lease
from proxy.telemetry import Metrics
from proxy.web import hot
from proxy.web.distribution import Distribution
from proxy.web.request import always
from proxy.web.server import listen
from proxy.web.table import Tables
from web.heads import head, response
from web.hotserver import Counted, Server, serving, undated


async def test_answers_come_in_the_order_of_requests(server: Server) -> None:
    """A known head behind one that is in flight waits for it, in the same packet or later."""
    connection = await server.connect()
    known = await connection.ask(head())
    server.registry.gate.clear()
    connection.writer.write(head("Accept: a/b"))
    await until(lambda: server.registry.reads == 2)
    connection.writer.write(head() + head(method="HEAD"))
    await asyncio.sleep(0.01)
    server.registry.gate.set()
    slow = await connection.answer()
    answers = [await connection.answer(), await connection.answer(is_head=True)]

    assert undated(slow) == undated(known)
    assert undated(answers[0]) == undated(known)
    assert answers[1].endswith(b"\r\n\r\n")
    assert server.registry.reads == 4


async def test_after_the_full_path_answers_are_hot_again(server: Server) -> None:
    """A connection that aiohttp has answered on is looked up again: after pipelined heads, and after a split one."""
    connection = await server.connect()
    await connection.ask(head() + head())
    await connection.answer()
    data = head("Accept: a/b")
    for piece in (data[:7], data[7:-2], data[-2:]):
        connection.writer.write(piece)
        await asyncio.sleep(0.01)
    await connection.answer()
    reads = server.registry.reads

    await connection.ask(data)
    assert server.registry.reads == reads == 3


@pytest.mark.parametrize(
    "first",
    [
        head("Content-Length: 3") + b"abc",
        head("Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Upgrade: h2c", "Connection: Upgrade"),
        head("Expect: 100-continue"),
        head(method="POST"),
    ],
    ids=["body", "chunked", "upgrade", "expect", "method"],
)
async def test_what_is_not_plain_heads_is_left_to_aiohttp(server: Server, first: bytes) -> None:
    """Where it can't be known what is in flight, everything takes the full path, in order."""
    await (await server.connect()).ask(head())
    connection = await server.connect()
    connection.writer.write(first)
    answers = [await connection.answer()]
    if b"100 Continue" in answers[0]:
        answers = [await connection.answer()]
    reads = server.registry.reads

    await connection.ask(head())

    assert server.registry.reads == reads + 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_the_connection_is_closed_where_it_is_asked_for(server: Server, version: str) -> None:
    """`Connection: close` and HTTP/1.0 end the connection after the answer, the first time and hot."""
    data = head("Connection: close") if version == "1.1" else head().replace(b"HTTP/1.1", b"HTTP/1.0")

    answers = [await server.once(data) for _ in range(3)]

    assert len({undated(answer) for answer in answers}) == 1
    assert server.registry.reads == (1 if version == "1.1" else 3)


async def test_a_client_that_stops_sending_gets_its_answer(server: Server) -> None:
    """One that closes its side right after a known head is answered first."""
    await (await server.connect()).ask(head())
    connection = await server.connect()
    connection.writer.write(head())
    connection.writer.write_eof()

    assert b" 200 OK\r\n" in await connection.rest()


async def test_a_client_that_does_not_read_is_not_written_to(clock: Clock) -> None:
    """What waits to be sent is bounded: behind it aiohttp takes over, and stops reading."""
    async with serving(clock) as server:
        connection = await server.connect()
        await connection.ask(head())
        transport: Any = connection.writer.transport
        connection.reader._limit = 1  # type: ignore[attr-defined]  # it stops reading
        sent = 0
        try:
            async with asyncio.timeout(1):
                while sent < 64 << 20:
                    connection.writer.write(head())
                    sent += len(head())
                    await connection.writer.drain()
        except TimeoutError:
            pass
        transport.abort()

        assert sent < 64 << 20


async def test_stopping_closes_idle_connections_and_finishes_the_others(clock: Clock) -> None:
    """On stop, a connection that was only answered hot is closed at once; a request in flight gets its answer."""
    async with serving(clock) as server:
        idle, fresh, busy = await server.connect(), await server.connect(), await server.connect()
        await idle.ask(head())
        await fresh.ask(head())
        server.registry.gate.clear()
        busy.writer.write(head("Accept: a/b"))
        await until(lambda: server.registry.reads == 2)
        stopping = asyncio.create_task(server.stack.aclose())
        closed = [await idle.rest(), await fresh.rest()]
        busy.writer.write(head())  # too late: the connection closes after what is in flight
        server.registry.gate.set()
        answer = await busy.rest()
        await stopping

        assert closed == [b"", b""]
        assert answer.count(b" 200 OK\r\n") == 1


async def test_idle_connections_are_closed(clock: Clock) -> None:
    """After 15 looks in a row that found nothing new; hot answers and requests in flight are something new."""
    registry = Counted(clock)
    push_pair(registry)
    tables = Tables(1 << 20, clock, patience=60.0)
    made: list[hot.Fronts] = []

    def made_by(fronts: hot.Fronts) -> None:
        made.append(fronts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hot.Fronts, "watch", made_by)  # the test is the timer
        async with listen(
            Distribution(always(registry), Metrics()).handle, ("127.0.0.1", 0), drain=1, tables=tables
        ) as address:
            server = Server(registry, Metrics(), address, AsyncExitStack(), tables)
            silent, hot_one, busy, waiting = [await server.connect() for _ in range(4)]
            await hot_one.ask(head())
            registry.gate.clear()
            busy.writer.write(head("Accept: a/b"))
            await until(lambda: len(made[0].open) == 4 and registry.reads == 2)
            waiting.writer.write(head("Accept: a/b"))
            await until(lambda: bool(tables._table.asking._questions[head("Accept: a/b")].waiting))
            for _ in range(16):
                made[0].sweep()
                await hot_one.ask(head())
            gone = await silent.rest()
            registry.gate.set()
            await busy.answer()
            await busy.ask(head())
            await waiting.answer()

            assert gone == b""
            assert len(made[0].open) == 3
    for connection in server.connections:
        connection.writer.close()


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: Any) -> None:
        """Keep *data*."""
        self.written.append(data)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closing

    def close(self) -> None:
        """Close it."""
        self.closing = True


class Mute(asyncio.Protocol):
    """A handler that is fed and never answers."""

    def __init__(self) -> None:
        self.fed: list[bytes] = []
        self.paused = False

    def data_received(self, data: bytes) -> None:
        """Keep *data*."""
        self.fed.append(data)

    def pause_writing(self) -> None:
        """Note it."""
        self.paused = True

    def resume_writing(self) -> None:
        """Note it."""
        self.paused = False


@pytest.fixture
def front(clock: Clock) -> tuple[hot.Front, Wire, Mute]:
    """A connection on which `head()` is known, its transport, and the handler behind it."""
    tables, handler, wire = Tables(1 << 20, clock), Mute(), Wire()
    lease = Lease()
    lease.until = clock.now + 60
    tables.of(wire).keep(head(), response(lease))
    one = hot.Fronts(tables, lambda _: handler)()  # type: ignore[arg-type,return-value]
    one.connection_made(wire)
    return one, wire, handler


def test_after_a_last_answer_nothing_is_answered(front: tuple[hot.Front, Wire, Mute]) -> None:
    """Between aiohttp's answer that closes the connection and the closing itself, a known head isn't answered."""
    one, wire, handler = front
    one.data_received(head("Connection: close"))
    last = web.Response()
    last.force_close()
    one.answered(last)
    one.data_received(head())

    assert handler.fed == [head("Connection: close"), head()]
    assert wire.written == []


async def test_a_slow_reader_is_left_to_aiohttp(front: tuple[hot.Front, Wire, Mute]) -> None:
    """While what was written waits to be sent, aiohttp is told so and decides; afterwards answers are hot again."""
    one, wire, handler = front
    one.data_received(head())
    one.pause_writing()
    one.data_received(head())
    one.answered(response(Lease()))
    one.data_received(head())
    fed = len(handler.fed)
    one.answered(response(Lease()))
    paused = handler.paused
    one.resume_writing()
    one.data_received(head())

    assert (paused, handler.paused) == (True, False)
    assert fed == len(handler.fed) == 2
    assert len(wire.written) == 2


def test_a_piece_of_a_head_is_never_known(front: tuple[hot.Front, Wire, Mute]) -> None:
    """What comes behind a head in flight doesn't pass for the head that is answered."""
    one, wire, handler = front
    for behind in (head()[:9], head("Content-Length: 1") + b"x"):
        one = hot.Fronts(one._fronts.tables, one._fronts.build)()
        one.connection_made(wire)
        one.data_received(head("Accept: a/b"))
        one.data_received(behind)
        kept = response(Lease())
        assert kept.lease is not None
        kept.lease.until = 1e12
        one.answered(kept)
        table = one._fronts.tables.of(wire)
        assert table.find(behind) is None
    assert handler.fed[1] == head()[:9]


def test_a_known_head_within_another_is_none(front: tuple[hot.Front, Wire, Mute]) -> None:
    """Behind the beginning of a head what looks like a known one is the rest of that head."""
    one, wire, handler = front
    beginning = head("Accept: a/b")[:-4] + b"\r\nX: "
    one.data_received(beginning)
    one.data_received(head())

    assert handler.fed == [beginning, head()]
    assert wire.written == []


async def test_two_heads_at_once_are_no_known_one(server: Server) -> None:
    """However often they come together there are two answers, and what came to one isn't kept for both."""
    connection = await server.connect()
    for _ in range(3):
        connection.writer.write(head() + head(method="HEAD"))
        answers = [await connection.answer(), await connection.answer(is_head=True)]
        assert undated(answers[1]) == undated(answers[0]).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert server.registry.reads == 6


def test_what_comes_after_closing_is_ignored(front: tuple[hot.Front, Wire, Mute]) -> None:
    """No handler is made for it."""
    one, wire, handler = front
    one.close()
    one.data_received(head())
    one.eof_received()

    assert wire.closing
    assert (wire.written, handler.fed) == ([], [])
