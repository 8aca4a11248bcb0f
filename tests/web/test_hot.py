"""Hot answers: what they save, when they end, and how a connection goes on with them."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any

import orjson
import pytest
import structlog
from aiohttp import web

from conftest import Clock, until
from images import push_pair
from patience import HANGING
from proxy.memory import MemoryRegistry
from proxy.oci.content import CacheResult, Delivery, Manifest, Resolved
from proxy.oci.lease import Lease
from proxy.oci.mediatype import Accept
from proxy.oci.reference import Reference, Repository
from proxy.telemetry import Accesses, Metrics, configure_logging
from proxy.web import hot
from proxy.web.distribution import Distribution
from proxy.web.request import always
from proxy.web.server import listen
from proxy.web.table import Tables
from web.heads import PATH, head, response

ACCEPTS = ["Accept: a/b", "Accept: c/d", "Accept: */*"]


class Counted(MemoryRegistry):
    """A registry that gives a lease with every manifest and counts how often it is asked."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.clock = clock
        self.lease = self.leased()

    def leased(self) -> Lease:
        """Give a new lease, of 30 seconds from now."""
        self.lease = Lease()
        self.lease.since = self.clock.now
        self.lease.until = self.clock.now + 30
        return self.lease

    def _delivery(self) -> Delivery:
        self.reads += 1
        return Delivery(CacheResult.HIT, self.lease.age(self.clock.now), (), self.lease)

    async def manifest(self, repository: Repository, reference: Reference, accept: Accept) -> Manifest:
        """Return a manifest with a lease."""
        delivery = self._delivery()
        await self.gate.wait()
        return replace(await super().manifest(repository, reference, accept), delivery=delivery)

    async def resolve(self, repository: Repository, reference: Reference, accept: Accept) -> Resolved:
        """Return a descriptor with a lease."""
        found = await self.manifest(repository, reference, accept)
        return Resolved(found.descriptor, found.delivery)


@dataclass
class Server:
    """A server of that registry, with hot answers."""

    registry: Counted
    metrics: Metrics
    address: tuple[str, int]
    stack: AsyncExitStack
    tables: Tables
    connections: list[Connection] = field(default_factory=list)

    async def connect(self) -> Connection:
        """Open a connection."""
        connection = Connection(*await asyncio.open_connection(*self.address))
        self.connections.append(connection)
        return connection

    async def once(self, data: bytes) -> bytes:
        """Send *data* on a connection of its own and return all that comes."""
        connection = await self.connect()
        connection.writer.write(data)
        return await connection.rest()

    async def counted(self) -> int:
        """Return how many requests the metrics know."""
        lines = self.metrics.render().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("manifuse_requests_total{"))

    async def waiting(self, data: bytes, count: int) -> list[Connection]:
        """Let one connection ask and *count* others wait for its answer; return all of them."""
        self.registry.gate.clear()
        before = self.registry.reads
        connections = [await self.connect() for _ in range(count + 1)]
        connections[0].writer.write(data)
        await until(lambda: self.registry.reads == before + 1)
        for connection in connections[1:]:
            connection.writer.write(data)
        asking = self.tables._table.asking
        await until(lambda: len(asking._questions[data].waiting) == count)
        return connections


@dataclass
class Connection:
    """A client's side of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, data: bytes) -> bytes:
        """Send *data* and return the one answer that comes."""
        self.writer.write(data)
        return await self.answer(is_head=data.startswith(b"HEAD"))

    async def answer(self, *, is_head: bool = False) -> bytes:
        """Return the next answer."""
        async with asyncio.timeout(HANGING):
            header = await self.reader.readuntil(b"\r\n\r\n")
            length = 0 if is_head else int(header.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return header + await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """Return all that comes until the server closes."""
        async with asyncio.timeout(HANGING):
            return await self.reader.read()


@asynccontextmanager
async def serving(
    clock: Clock, trusted: Any = (), accesses: Accesses | None = None, memory: int = 1 << 20, patience: float = 60.0
) -> AsyncIterator[Server]:
    """Let a server with hot answers listen."""
    registry, metrics = Counted(clock), Metrics()
    push_pair(registry)
    distribution = Distribution(always(registry), metrics, trusted, accesses=accesses)
    async with AsyncExitStack() as stack:
        tables = Tables(memory, clock, trusted, patience=patience, coalesced=metrics.coalesced.inc)
        address = await stack.enter_async_context(listen(distribution.handle, ("127.0.0.1", 0), drain=5, tables=tables))
        server = Server(registry, metrics, address, stack, tables)
        yield server
    for connection in server.connections:
        connection.writer.close()


@pytest.fixture
async def server(clock: Clock) -> AsyncIterator[Server]:
    """A server with hot answers."""
    async with serving(clock) as one:
        yield one


def undated(answer: bytes) -> bytes:
    """Leave the date out, which may change between two answers."""
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith(b"Date: "))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_second_request_is_not_read(server: Server, method: str) -> None:
    """The same bytes again, on the same connection or another, get the same answer, and nobody is asked."""
    connection, other = await server.connect(), await server.connect()
    first = await connection.ask(head(method=method))

    answers = [await connection.ask(head(method=method)), await other.ask(head(method=method))]

    assert [undated(answer) for answer in answers] == [undated(first)] * 2
    assert server.registry.reads == 1


async def test_dates_and_ages_go_on(server: Server, clock: Clock) -> None:
    """A hot answer says its age as of now, in whole seconds, and the date."""
    connection = await server.connect()
    ages = []
    for seconds in (0, 0.4, 0.7, 1, 20):
        clock.advance(seconds)
        answer = (await connection.ask(head())).partition(b"\r\n\r\n")[0]
        fields = dict(line.split(": ", 1) for line in answer.decode().split("\r\n")[1:])
        ages.append(fields["Age"])
        assert time.time() - time.mktime(time.strptime(fields["Date"], "%a, %d %b %Y %H:%M:%S GMT")) < 86_400

    assert ages == ["0", "0", "1", "2", "22"]
    assert server.registry.reads == 1


async def test_the_order_of_lines_does_not_matter(server: Server) -> None:
    """A head whose lines come in another order, as dockerd's Accept lines do, is known, too."""
    orders = [ACCEPTS, ACCEPTS[::-1], [ACCEPTS[1], "User-Agent: docker", ACCEPTS[0]]]
    answers = [await server.once(head(*order, "Connection: close")) for order in (*orders[:2], *orders[:2])]

    assert len({undated(answer) for answer in answers}) == 1
    assert b"\r\nConnection: close\r\n" in answers[-1]
    assert server.registry.reads == 1
    await server.once(head(*orders[2], "Connection: close"))
    assert server.registry.reads == 2


@pytest.mark.parametrize(
    "lines",
    [
        ["host: registry.example"],
        ["Host: registry.example"],
        ["X-Forwarded-Host: a"],
        ["Accept:  a/b"],
        ["accept: a/b"],
        ["Accept: a/b "],
        ["Accept: a/b", "Accept: a/b"],
        ["Accept: a/b", "Content-Length: 0"],
        ["Accept: a/b", "Connection: close"],
    ],
)
async def test_another_head_is_another_request(server: Server, lines: list[str]) -> None:
    """Whatever differs in more than the order of lines takes the full path."""
    await (await server.connect()).ask(head("Accept: a/b"))

    await (await server.connect()).ask(head(*lines))

    assert server.registry.reads == (1 if lines[0].lower().startswith("host") else 2)


async def test_two_hosts_are_never_one(server: Server) -> None:
    """A second Host is refused, however well the rest is known: its lines are no others than a known head's."""
    await server.once(head("Accept: a/b", "Accept: a/b", "Connection: close"))

    answer = await server.once(head("Host: registry.example", "Accept: a/b", "Connection: close"))

    assert answer.startswith(b"HTTP/1.0 400 ")


async def test_a_line_that_comes_twice_keeps_its_place(server: Server) -> None:
    """Of a header that isn't known to be a set the first value may count, so the order does."""
    one, two = ["X-Forwarded-Host: a", "X-Forwarded-Host: b"], ["X-Forwarded-Host: b", "X-Forwarded-Host: a"]
    for lines in (one, two, one, two):
        await (await server.connect()).ask(head(*lines))

    assert server.registry.reads == 2


async def test_the_request_line_comes_first(server: Server) -> None:
    """The same lines with the first one elsewhere are no request."""
    await server.once(head("Connection: close"))
    lines = head("Connection: close")[:-4].split(b"\r\n")

    answer = await server.once(b"\r\n".join([lines[1], lines[0], lines[2], b"", b""]))

    assert answer.startswith(b"HTTP/1.0 400 ")


async def test_a_lease_ends_by_itself(server: Server, clock: Clock) -> None:
    """From the moment on that the lease ends the full path answers; so it does when the clock went backwards."""
    connection = await server.connect()
    await connection.ask(head())
    clock.advance(29.9)
    await connection.ask(head())
    reads = [server.registry.reads]
    clock.advance(0.1)
    for _ in range(2):
        await connection.ask(head())
        reads.append(server.registry.reads)
    server.registry.leased()
    await connection.ask(head())
    clock.advance(-1)
    await connection.ask(head())

    assert reads == [1, 2, 3]
    assert server.registry.reads == 5


async def test_a_lease_is_ended(server: Server) -> None:
    """An answer whose lease was ended is never given again, also if that happens before it is kept."""
    connection = await server.connect()
    await connection.ask(head())
    server.registry.lease.live = False
    await connection.ask(head())
    await connection.ask(head())
    server.registry.leased()
    await connection.ask(head())
    await connection.ask(head())

    assert server.registry.reads == 4


async def test_what_has_no_lease_is_asked_for(server: Server) -> None:
    """Errors, other pages, and manifests that come without a lease take the full path every time."""
    connection = await server.connect()
    for path in ("/v2/", "/v2/kimoqi/alpine-arm/tags/list", "/v2/kimoqi/alpine-arm/manifests/none"):
        assert undated(await connection.ask(head(path=path))) == undated(await connection.ask(head(path=path)))
    assert await server.counted() == 6


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


async def test_every_request_is_counted_and_logged(clock: Clock) -> None:
    """Metrics and access log know each request once, with the same labels and fields, hot or not."""
    stream = io.StringIO()
    kept = structlog.get_config()
    accesses = configure_logging(stream)
    try:
        async with serving(clock, accesses=accesses) as server:
            connection = await server.connect()
            for _ in range(20):
                await connection.ask(head('User-Agent: "docker\\" é'))
                await connection.ask(head(method="HEAD"))
            await connection.ask(head(path="/v2/"))
            assert await server.counted() == 41
            assert server.registry.reads == 2
        accesses.settle()
    finally:
        structlog.configure(**kept)
    events = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    gets = [event for event in events if event["method"] == "GET" and event["path"] == PATH]

    assert len(events) == 41
    assert {tuple(event) for event in events} == {tuple(events[0])}
    assert len({orjson.dumps({**event, "ms": 0, "timestamp": ""}) for event in gets}) == 1
    assert [event["timestamp"] for event in events] == sorted(event["timestamp"] for event in events)


async def test_the_log_says_which_registry_was_meant(clock: Clock) -> None:
    """A mirror's client shows nobody why it got a 404: `?ns=` is in the log, hot or not; nothing else of a query is."""
    stream = io.StringIO()
    kept = structlog.get_config()
    accesses = configure_logging(stream)
    try:
        async with serving(clock, accesses=accesses) as server:
            connection = await server.connect()
            for query in ("a=b&ns=registry.example%3A5000&c=d", "ns=one&ns=two", "a=ns=b", "ns"):
                await connection.ask(head(path=f"{PATH}?{query}"))
                await connection.ask(head(path=f"{PATH}?{query}"))
            assert await server.counted() == 8
        accesses.settle()
    finally:
        structlog.configure(**kept)

    paths = [orjson.loads(line)["path"] for line in stream.getvalue().splitlines()]
    assert paths[::2] == paths[1::2]
    assert paths[::2] == [f"{PATH}?ns=registry.example%3A5000", f"{PATH}?ns=one&ns=two", PATH, PATH]


async def test_nothing_is_formatted_that_is_not_logged(clock: Clock) -> None:
    """Above `info` requests aren't logged, hot ones neither."""
    stream = io.StringIO()
    kept = structlog.get_config()
    accesses = configure_logging(stream, level=logging.WARNING)
    try:
        async with serving(clock, accesses=accesses) as server:
            connection = await server.connect()
            await connection.ask(head())
            await connection.ask(head())
            assert await server.counted() == 2
    finally:
        structlog.configure(**kept)

    assert stream.getvalue() == ""


async def test_a_trusted_peers_head_is_another(clock: Clock) -> None:
    """What a trusted proxy's head means is never answered to anybody else, nor the other way round."""
    loopback = [ip_network("127.0.0.1/32")]
    tables = Tables(1 << 20, clock, loopback)
    near, far = Peer("127.0.0.1"), Peer("192.0.2.1")

    assert tables.of(near) is tables.of(Peer("127.0.0.1"))  # type: ignore[arg-type]
    assert tables.of(far) is not tables.of(near)  # type: ignore[arg-type]
    async with serving(clock, trusted=loopback) as server:
        connection = await server.connect()
        for _ in range(2):
            await connection.ask(head("X-Forwarded-Host: elsewhere"))
        assert server.registry.reads == 1


@dataclass
class Peer:
    """A transport, as far as it says who is there."""

    address: str

    def get_extra_info(self, _: str) -> tuple[str, int]:
        """Return the address."""
        return self.address, 1


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


async def test_who_sends_the_same_meanwhile_waits_for_the_answer(server: Server) -> None:
    """While one head goes the whole way, others like it wait, and get what it gets; nobody is asked again."""
    connections = await server.waiting(head(), 20)
    server.registry.gate.set()
    answers = [await connection.answer() for connection in connections]
    again = [await connection.ask(head()) for connection in connections]

    assert len({undated(answer) for answer in [*answers, *again]}) == 1
    assert server.registry.reads == 1
    assert await server.counted() == 42
    assert b"\nmanifuse_coalesced_total 20.0\n" in server.metrics.render()


async def test_who_waited_asks_itself_where_the_answer_may_not_be_given_again(server: Server) -> None:
    """What was changed meanwhile is asked for anew by everybody who waited."""
    connections = await server.waiting(head(), 3)
    server.registry.lease.live = False
    server.registry.leased()
    server.registry.gate.set()
    answers = [await connection.answer() for connection in connections]

    assert {answer.partition(b" ")[2][:3] for answer in answers} == {b"200"}
    assert server.registry.reads == 4


async def test_who_sends_more_while_waiting_is_answered_in_order(server: Server) -> None:
    """Two heads on one connection are answered one after the other."""
    connections = await server.waiting(head(), 1)
    connections[1].writer.write(head(method="HEAD"))
    await until(lambda: server.registry.reads == 2)
    server.registry.gate.set()
    answers = [await connections[1].answer(), await connections[1].answer(is_head=True)]

    assert undated(answers[1]) == undated(answers[0]).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


async def test_who_waits_for_one_that_leaves_asks_itself(server: Server) -> None:
    """The one whose answer is waited for may leave; so may one who waits."""
    asked, leaving, staying = await server.waiting(head(), 2)
    leaving.writer.close()
    asked.writer.close()
    await until(lambda: server.registry.reads == 2)
    server.registry.gate.set()

    assert (await staying.answer()).startswith(b"HTTP/1.1 200 ")


async def test_nobody_waits_for_long(clock: Clock) -> None:
    """When its patience ends a head goes the whole way, however long the other still takes."""
    async with serving(clock, patience=0.02) as server:
        connections = [await server.connect() for _ in range(3)]
        server.registry.gate.clear()
        for connection in connections:
            connection.writer.write(head())
        await until(lambda: server.registry.reads == 3)
        server.registry.gate.set()

        assert [(await connection.answer())[:12] for connection in connections] == [b"HTTP/1.1 200"] * 3


async def test_who_waits_when_the_server_stops_is_answered(clock: Clock) -> None:
    """Requests in flight are finished, those that wait for another's answer, too."""
    async with serving(clock) as server:
        connections = await server.waiting(head(), 3)
        stopping = asyncio.create_task(server.stack.aclose())
        await until(lambda: server.registry.reads == 4)
        server.registry.gate.set()
        answers = [await connection.rest() for connection in connections]
        await stopping

    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 4


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    """Leave logging as it was."""
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)
