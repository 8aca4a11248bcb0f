"""Logs: JSON where nobody reads along."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from proxy.telemetry import Metrics, configure_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave logging as it was."""
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)


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
