"""Logs: JSON where nobody reads along."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from conftest import until
from proxy.telemetry import Access, AccessEvents, Metrics, configure_logging

ACCESS = Access(method="GET", path="/v2/", status=200, bytes=2, ms=0.0, cache="none", agent='a "client"')


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave logging as it was."""
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)
    structlog.contextvars.clear_contextvars()


def test_events_are_one_json_object_a_line() -> None:
    """Away from a terminal every event is a line of JSON with its time and level."""
    stream = io.StringIO()
    configure_logging(stream)

    structlog.get_logger("test").info("merged", image="kimoqi/alpine:1.0")

    event = orjson.loads(stream.getvalue())
    assert (event["event"], event["level"], event["image"]) == ("merged", "info", "kimoqi/alpine:1.0")
    assert event["timestamp"].endswith("Z")


def test_the_level_counts() -> None:
    """Events below the level are not written."""
    stream = io.StringIO()
    configure_logging(stream, level=logging.WARNING)

    structlog.get_logger("test").info("merged")

    assert stream.getvalue() == ""


def test_two_sets_of_metrics_are_apart() -> None:
    """Counters belong to a service, not to the process."""
    one, two = Metrics(), Metrics()
    one.merges.inc()

    assert b"manifuse_merges_total 1.0" in one.render()
    assert b"manifuse_merges_total 0.0" in two.render()


async def test_lines_of_repeated_requests_wait_for_each_other() -> None:
    """They are written many at a time, soon, and what is logged after them comes after them."""
    stream = io.StringIO()
    accesses = configure_logging(stream)
    again = accesses.again(ACCESS)
    assert again is not None
    again("::1")
    again(None)
    waiting = stream.getvalue()
    structlog.get_logger("test").info("merged")
    again("::1")
    before = len(stream.getvalue().splitlines())
    await until(lambda: len(stream.getvalue().splitlines()) > before)
    events = [orjson.loads(line) for line in stream.getvalue().splitlines()]

    assert waiting == ""
    assert before == 3
    assert [event["event"] for event in events] == ["request", "request", "merged", "request"]
    assert [event.get("client") for event in events] == ["::1", None, None, "::1"]


async def test_a_repeated_request_is_logged_as_any() -> None:
    """The same keys in the same order, with the worker's number, and the same values."""
    stream = io.StringIO()
    structlog.contextvars.bind_contextvars(worker=1)
    accesses = configure_logging(stream)
    accesses.log(ACCESS, "::1")
    again = accesses.again(ACCESS)
    assert again is not None
    again("::1")
    accesses.settle()
    one, other = [orjson.loads(line) for line in stream.getvalue().splitlines()]

    assert list(one) == list(other)
    assert one["worker"] == 1
    assert one | {"timestamp": ""} == other | {"timestamp": ""}
    assert len(one["timestamp"]) == len(other["timestamp"])


async def test_waiting_lines_are_bounded() -> None:
    """A thousand lines are written at once."""
    stream = io.StringIO()
    again = configure_logging(stream).again(ACCESS)
    assert again is not None
    for _ in range(1500):
        again("::1")
    await asyncio.sleep(0)

    assert len(stream.getvalue().splitlines()) == 1000


def test_requests_that_are_not_logged_cost_nothing() -> None:
    """Above `info` there is nothing to call for each request."""
    assert configure_logging(io.StringIO(), level=logging.WARNING).again(ACCESS) is None
    assert AccessEvents().again(ACCESS) is None


def test_on_a_terminal_requests_are_events() -> None:
    """There each is shown as it comes, and nothing waits."""
    stream = Terminal()
    accesses = configure_logging(stream)
    again = accesses.again(ACCESS)
    assert again is not None
    again("::1")
    accesses.settle()

    assert "request" in stream.getvalue()


class Terminal(io.StringIO):
    """A stream that somebody reads along."""

    def isatty(self) -> bool:
        """Say so."""
        return True


async def test_tallies_are_settled() -> None:
    """What was tallied is in the counter whenever somebody looks, beside what was counted."""
    metrics = Metrics()
    labels = ("manifest", "GET", "200", "hit")
    for _ in range(3):
        metrics.tally(*labels).add()
    metrics.requests.labels(*labels).inc()

    for _ in range(2):
        assert (
            b'manifuse_requests_total{cache="hit",method="GET",route="manifest",status="200"} 4.0' in metrics.render()
        )
