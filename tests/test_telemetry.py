"""Logs: JSON where nobody reads along."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import pty
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TextIO

import orjson
import pytest
import structlog

from conftest import until
from patience import HANGING
from proxy.telemetry import Access, AccessEvents, Metrics, Outlet, configure_logging

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


class Terminal(io.StringIO):
    """A stream that somebody reads along."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize("level", ["info", "error"])
def test_what_is_logged_gives_a_terminal_no_orders(level: str) -> None:
    """User names and what registries say are shown, and write no line of their own."""
    stream = Terminal()
    configure_logging(stream)

    getattr(structlog.get_logger("test"), level)("request", user="eve\x1b[2J", upstream=["\x1b[2J"])

    assert stream.getvalue().count("\n") == 1
    assert "\x1b[2J" not in stream.getvalue()
    assert r"eve\x1b[2J" in stream.getvalue()


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


class Full(io.StringIO):
    """A stream to a disk that is full until there is `room`, or to somebody who has gone."""

    room = False
    terminal = False

    def write(self, text: str) -> int:
        """Write *text*, where there is room."""
        if not self.room:
            raise OSError(errno.ENOSPC, "no space left")
        return super().write(text)

    def flush(self) -> None:
        """The same."""
        if not self.room:
            raise OSError(errno.ENOSPC, "no space left")

    def isatty(self) -> bool:
        """Whether somebody reads along."""
        return self.terminal


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_log_that_cant_be_written_costs_no_answer(*, terminal: bool) -> None:
    """Lines are lost then, those of hot answers as well, and whoever logs doesn't notice; later ones are written."""
    stream = Full()
    stream.terminal = terminal
    accesses = configure_logging(stream)
    again = accesses.again(ACCESS)
    assert again is not None
    structlog.get_logger("test").warning("held")
    for _ in range(1001):
        again("::1")
    accesses.settle()
    stream.room = True
    structlog.get_logger("test").warning("no answer")

    assert "no answer" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 1


class Pipe:
    """A pipe, full of what somebody else has written, whose reader reads when the test says so."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self._reading = os.fdopen(reading, "rb", buffering=0)
        os.set_blocking(reading, False)
        self.stream: TextIO = os.fdopen(writing, "w", buffering=1)
        os.set_blocking(writing, False)
        self._all = b""
        self._other = 0
        with suppress(BlockingIOError):
            while True:
                self._other += os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)

    def read(self) -> bytes:
        """Return what is in it."""
        pieces = []
        while piece := self._reading.read(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)

    def logged(self) -> bytes:
        """Read what is in it, and return all that was logged so far."""
        self._all += self.read()
        return self._all[self._other :]

    def close(self) -> None:
        """Close both ends."""
        self.read()
        self.stream.close()
        self._reading.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Make one."""
    made = Pipe()
    yield made
    made.close()


async def _in_time(work: Callable[[], object], pipe: Pipe) -> bool:
    """Do *work* in a thread; say whether it ended although nobody reads, and let it end."""
    working = asyncio.create_task(asyncio.to_thread(work))
    done, _ = await asyncio.wait([working], timeout=2)
    while not working.done():
        pipe.read()
        await asyncio.sleep(0.01)
    return bool(done)


async def test_nobody_waits_for_whoever_reads_the_log(pipe: Pipe) -> None:
    """A reader that stops holds up nothing, and gets later what was written meanwhile, each line whole."""
    configure_logging(pipe.stream)
    log = structlog.get_logger("test")

    def write() -> None:
        for number in range(10):
            log.info("merged", number=number, long="y" * 3000 * number)

    in_time = await _in_time(write, pipe)
    log.info("more")  # from the loop, which looks again by itself from then on
    await until(lambda: b'"more"' in pipe.logged())
    events = [orjson.loads(line) for line in pipe.logged().splitlines()]

    assert in_time
    assert [event.get("number") for event in events] == [*range(10), None]


async def test_what_waits_for_a_reader_is_bounded(pipe: Pipe) -> None:
    """Lines that are too many are lost, each as a whole, and how many is told when somebody reads again."""
    accesses = configure_logging(pipe.stream)
    log = structlog.get_logger("test")
    again = accesses.again(ACCESS)
    assert again is not None
    for _ in range(10_000):
        again("::1")
    for _ in range(100):
        log.info("merged", long="y" * 5000)
    await until(lambda: b"lines of the log lost" in pipe.logged())
    events = [orjson.loads(line) for line in pipe.logged().splitlines()]

    lost = events[-1]
    assert (lost["event"], lost["level"]) == ("lines of the log lost", "warning")
    assert lost["count"] > 0
    assert len(events) - 1 + lost["count"] == 10_100
    assert len(pipe.logged()) < 1.5 * (1 << 20)


async def test_nobody_waits_for_a_terminal() -> None:
    """One that has room for a part of a line gets that, and the rest when it has shown it."""
    screen, descriptor = pty.openpty()
    os.set_blocking(screen, False)
    shown = b""

    def look() -> bytes:
        nonlocal shown
        with suppress(BlockingIOError):
            while piece := os.read(screen, 1 << 16):
                shown += piece
        return shown

    with os.fdopen(descriptor, "w") as stream:
        outlet = Outlet(stream)
        lines = "".join(f"{number:0149}\n" for number in range(1000))
        writing = asyncio.create_task(asyncio.to_thread(outlet.write, lines))
        done, _ = await asyncio.wait([writing], timeout=HANGING)
        while not writing.done():
            look()
            await asyncio.sleep(0.01)
        outlet.write("")  # from the loop, which looks again by itself from then on
        await until(lambda: len(look().splitlines()) == 1000 and shown.endswith(b"\n"))
    os.close(screen)

    assert done
    assert [int(line) for line in shown.splitlines()] == [*range(1000)]


def test_what_is_logged_while_something_is_written_comes_next() -> None:
    """Whatever a collection of garbage ends may log, in the middle of anything."""
    written = []

    class Collecting(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            if len(written) == 1:
                outlet.write("second\n")
            return len(text)

    outlet = Outlet(Collecting())
    working = threading.Thread(target=outlet.write, args=["first\n"], daemon=True)
    working.start()
    working.join(HANGING)

    assert written == ["first\n", "second\n"]


async def test_a_late_reader_is_waited_for_at_the_end(pipe: Pipe) -> None:
    """The last lines of a process aren't lost because whoever reads was slow just then; a moment is enough, though."""
    outlet = Outlet(pipe.stream)
    outlet.write("stopped\n")
    in_vain = await _in_time(lambda: outlet.close(0.1), pipe)
    closing = asyncio.create_task(asyncio.to_thread(outlet.close, 10.0))
    await asyncio.sleep(0)
    await until(lambda: pipe.logged() == b"stopped\n")
    await closing

    assert in_vain


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
