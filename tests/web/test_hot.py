"""Hot answers: what they save, and when they end."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

import orjson
import pytest
import structlog

from conftest import Clock
from proxy.telemetry import configure_logging
from proxy.web.table import Tables
from web.heads import PATH, head
from web.hotserver import Server, serving, undated

ACCEPTS = ["Accept: a/b", "Accept: c/d", "Accept: */*"]


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    """Leave logging as it was."""
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)


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


async def test_every_request_is_counted_and_logged(clock: Clock) -> None:
    """Metrics and access log know each request once, with the same labels and fields, hot or not."""
    stream = io.StringIO()
    accesses = configure_logging(stream)
    async with serving(clock, accesses=accesses) as server:
        connection = await server.connect()
        for _ in range(20):
            await connection.ask(head('User-Agent: "docker\\" é'))
            await connection.ask(head(method="HEAD"))
        await connection.ask(head(path="/v2/"))
        assert await server.counted() == 41
        assert server.registry.reads == 2
    accesses.settle()
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
    accesses = configure_logging(stream, level=logging.WARNING)
    async with serving(clock, accesses=accesses) as server:
        connection = await server.connect()
        await connection.ask(head())
        await connection.ask(head())
        assert await server.counted() == 2

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
