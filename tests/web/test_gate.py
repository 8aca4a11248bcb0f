"""Holding the limits of a port; tests/security/test_s13_http.py does so with real clients."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from structlog.testing import capture_logs

from conftest import Clock
from proxy.oci.errors import TooLarge
from proxy.telemetry import Metrics
from proxy.web.gate import Gate
from proxy.web.limits import BodyTooSlow, Limits, TooMany


def test_a_connection_is_counted_until_it_ends() -> None:
    """For its client, where it has one, and for all; one that wasn't let in isn't counted."""
    gate = Gate(Limits(connections=3, connections_per_client=2))
    found = [gate.enter(client) for client in ("a", "a", "a", "b", "c", None)]
    assert found == [None, None, "connections_per_client", None, "connections", "connections"]
    gate.leave("a")
    assert gate.enter("c") is None
    for client in ("a", "b", "c"):
        gate.leave(client)
    assert (gate.connections, gate._connections_of) == (0, {})


def test_a_request_is_counted_until_it_ends() -> None:
    """However it ends."""
    gate = Gate(Limits(requests=2, requests_per_client=1))
    with gate.answering("a"):
        with pytest.raises(TooMany) as mine, gate.answering("a"):
            pass
        with gate.answering(None), pytest.raises(TooMany) as everybodys, gate.answering("b"):
            pass
    with pytest.raises(KeyError), gate.answering("a"):
        raise KeyError
    with gate.answering("a"), gate.answering("b"):
        pass
    assert gate._requests_of == {}
    assert [(each.value.status, each.value.retry_after) for each in (mine, everybodys)] == [(429, "1"), (503, "1")]


def test_a_stream_is_counted_until_it_ends() -> None:
    """For its client alone; whom nobody knows, and whom no limit is for, has as many as there are."""
    gate = Gate(Limits(streams_per_client=1))
    with gate.streaming("a"):
        with pytest.raises(TooMany) as refused, gate.streaming("a"):
            pass
        with gate.streaming("b"), gate.streaming(None), gate.streaming(None):
            pass
    with pytest.raises(KeyError), gate.streaming("a"):
        raise KeyError
    with Gate(Limits()).streaming("a"), gate.streaming("a"):
        pass
    assert gate._streams_of == {}
    assert (refused.value.status, refused.value.retry_after) == (429, "1")


def test_a_rate_says_when_to_come_back(clock: Clock) -> None:
    """In whole seconds, rounded up."""
    gate = Gate(Limits(rate=0.4, burst=1), clock=clock)
    with gate.answering("a"):
        pass
    with pytest.raises(TooMany) as refused, gate.answering("a"):
        pass
    assert (refused.value.status, refused.value.retry_after) == (429, "3")


def test_clients_are_told_apart_where_it_matters() -> None:
    """A reverse proxy's connections are nobody's in particular."""
    proxies = [ip_network("10.0.0.0/8")]
    gate = Gate(Limits(rate=1.0), trusted=proxies)
    assert gate.client("192.0.2.1") == "192.0.2.1"
    assert gate.client("10.1.2.3") is None
    assert gate.client(None) is None
    assert Gate(Limits(), trusted=proxies).client("192.0.2.1") is None


def test_the_log_is_no_flood(clock: Clock) -> None:
    """One line for each reason in a minute, with how many there were; metrics count each."""
    metrics = Metrics()
    gate = Gate(Limits(), metrics, clock=clock)
    with capture_logs() as logs:
        for reason in ("rate", "rate", "requests", "rate"):
            gate.refused(reason)
        clock.advance(61)
        gate.refused("rate")
    assert [(log["reason"], log["count"]) for log in logs] == [("rate", 1), ("requests", 1), ("rate", 3)]
    assert b'manifuse_rejected_total{reason="rate"} 4.0' in metrics.render()


def test_metrics_know_the_connections() -> None:
    """As of the moment that they are asked for."""
    metrics = Metrics()
    gate = Gate(Limits(), metrics)
    gate.enter(None)
    assert b"manifuse_connections 1.0" in metrics.render()
    gate.leave(None)
    assert b"manifuse_connections 0.0" in metrics.render()


def _content() -> StreamReader:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    return StreamReader(protocol, 1 << 16, loop=loop)


async def _fed(content: StreamReader, *chunks: bytes, pause: float = 0.0) -> None:
    for chunk in chunks:
        content.feed_data(chunk)
        await asyncio.sleep(pause)
    content.feed_eof()


def test_manifests_share_what_memory_there_is_for_them() -> None:
    """Of one client half; what was taken is free again, however it ended."""
    gate = Gate(Limits(manifests_max=100, requests_per_client=1))
    with gate.holding("a") as first, gate.holding("a") as second, gate.holding("b") as third:
        first(30)
        second(20)
        with pytest.raises(TooMany):
            second(1)
        third(50)
        with pytest.raises(TooMany), gate.holding("c") as fourth:
            fourth(1)
    with gate.holding("a") as again, gate.holding(None) as nobody:
        again(50)
        nobody(50)


async def test_a_body_has_time_while_it_moves_on() -> None:
    """16 KiB are worth the whole time again; time that we take ourselves doesn't count."""
    gate = Gate(Limits(body_timeout=1))
    content = _content()
    feeding = asyncio.create_task(_fed(content, *[bytes(20_000)] * 5, pause=0.3))
    seen = b""
    async for chunk in gate.body(content):
        seen += chunk
        await asyncio.sleep(0.1)
    await feeding
    assert len(seen) == 100_000


async def test_a_body_that_drips_is_given_up() -> None:
    """A byte now and then is no progress."""
    gate = Gate(Limits(body_timeout=0.1))
    content = _content()
    feeding = asyncio.create_task(_fed(content, *[b"a"] * 1000, pause=0.01))
    with pytest.raises(BodyTooSlow):
        async for _ in gate.body(content):
            pass
    feeding.cancel()


async def test_a_body_is_limited() -> None:
    """As soon as it is longer, or says so."""
    gate = Gate(Limits(upload_max=10))
    content = _content()
    content.feed_data(bytes(11))
    with pytest.raises(TooLarge):
        async for _ in gate.body(content):
            pass
    with pytest.raises(TooLarge):
        gate.check_body(11)
    gate.check_body(10)
    gate.check_body(None)
