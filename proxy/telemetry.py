"""What operators see: counters in Prometheus' format, and structured logs."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final, Protocol, TextIO, cast

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_WAIT: Final = 0.1  # seconds that a line of the access log, or what is to be counted, may wait for others
_MAX_WAITING: Final = 1000  # lines; more at once would be felt
_MAX_WRITE: Final = 4096  # bytes that reach a pipe in one piece, which other workers write to, too (PIPE_BUF)
_MAX_KEPT: Final = 1 << 20  # characters for a reader of the log who is late
_LAST_WAIT: Final = 1.0  # seconds that such a reader has at the end

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_log: Final = structlog.get_logger("log")


def visible(text: str) -> str:
    """Write *text*, which may be anybody's, so that a terminal takes none of it for an order or another line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Tally:
    """What is to be added to a counter: adding here costs a tenth. It is settled soon, and by `Metrics.render`."""

    __slots__ = ("count", "counter")

    def __init__(self, counter: Counter) -> None:
        self.count = 0
        self.counter = counter

    def add(self) -> None:
        """Count one."""
        if not self.count:
            asyncio.get_running_loop().call_later(_WAIT, self.settle)
        self.count += 1

    def settle(self) -> None:
        """Let the counter have it."""
        count, self.count = self.count, 0
        self.counter.inc(count)


def count_as(worker: int) -> None:
    """Count in the files of *worker*, a number, and go on where the last process with that number stopped.

    The library names them after processes, and each that dies would leave its own. Call once, before all metrics.
    """
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]  # the library's omission


class Metrics:
    """The service's counters, in a registry of their own. Labels have few values and never hold names or secrets.

    Where several workers share a folder (prometheus_client's multiprocess mode, by `PROMETHEUS_MULTIPROC_DIR`), each
    counts in files there, and any of them shows the sum: also of what a worker counted that isn't there any more.
    """

    def __init__(self) -> None:
        # No second series for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's omission
        registry = CollectorRegistry()
        self._registry = registry
        self._tallies: dict[tuple[str, str, str, str], Tally] = {}
        self._settling: list[Callable[[], None]] = []
        self.requests = Counter(
            "manifuse_requests",
            "Requests by clients",
            ["route", "method", "status", "cache"],
            registry=registry,
        )
        self.rejected = Counter(
            "manifuse_rejected",
            "Connections and requests of clients that were refused, by reason",
            ["reason"],
            registry=registry,
        )
        self.connections = Gauge(
            "manifuse_connections",
            "Connections of clients that are open",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.upstream_requests = Counter(
            "manifuse_upstream_requests",
            "Requests to upstreams; the status is `error` where no answer came",
            ["upstream", "method", "status"],
            registry=registry,
        )
        self.upstream_seconds = Histogram(
            "manifuse_upstream_seconds",
            "Seconds until an upstream's response headers",
            ["upstream"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.upstream_breaker_open = Gauge(
            "manifuse_upstream_breaker_open",
            "1 while an upstream is left alone because it gave no answer many times in a row",
            ["upstream"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.upstream_ratelimit_limit = Gauge(
            "manifuse_upstream_ratelimit_limit",
            "Requests that an upstream grants us, as it said last",
            ["upstream"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.upstream_ratelimit_remaining = Gauge(
            "manifuse_upstream_ratelimit_remaining",
            "Requests that are left of them, as it said last",
            ["upstream"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.merges = Counter("manifuse_merges", "Indexes synthesized", registry=registry)
        self.partial_merges = Counter(
            "manifuse_partial_merges", "Indexes synthesized while something was missing", registry=registry
        )
        self.platform_mismatches = Counter(
            "manifuse_platform_mismatches", "Sources whose config contradicts the rule", registry=registry
        )
        self.platform_clashes = Counter(
            "manifuse_platform_clashes", "Sources left out because an earlier one has their platform", registry=registry
        )
        self.held = Counter(
            "manifuse_held", "Answers from the last good generation, by reason", ["reason"], registry=registry
        )
        self.events = Counter(
            "manifuse_events", "Tags that registries said have changed", ["upstream"], registry=registry
        )
        self.reloads = Counter(
            "manifuse_reloads", "New configurations, taken or refused", ["result"], registry=registry
        )
        self.pruned = Counter(
            "manifuse_pruned_files",
            "Files deleted because nobody used them for `cache.history`",
            ["kind"],
            registry=registry,
        )
        self.blob_cache = Counter(
            "manifuse_blob_cache",
            "Blobs asked for where they are cached: kept already, being fetched already, or fetched for this request",
            ["result"],
            registry=registry,
        )
        self.blobs_streamed = Counter(
            "manifuse_blobs_streamed",
            "Blobs that could not be cached and were streamed instead, by reason",
            ["reason"],
            registry=registry,
        )
        self.blob_cache_bytes = Gauge(
            "manifuse_blob_cache_bytes",
            "Bytes of blobs in the cache folder, when last looked at",
            registry=registry,
            multiprocess_mode="livemax",  # of one folder, which all workers look at
        )
        self.blobs_evicted = Counter(
            "manifuse_blobs_evicted", "Blobs deleted from the cache to make room", registry=registry
        )
        self.coalesced = Counter(
            "manifuse_coalesced", "Callers that waited for a question already being asked", registry=registry
        )

    def tally(self, route: str, method: str, status: str, cache: str) -> Tally:
        """Return what counts in `requests` under these labels, for requests that must cost next to nothing."""
        labels = (route, method, status, cache)
        if labels not in self._tallies:
            self._tallies[labels] = Tally(self.requests.labels(*labels))
        return self._tallies[labels]

    def settling(self, work: Callable[[], None]) -> None:
        """Call *work* before the metrics are shown: it sets what nobody counts as it happens."""
        self._settling.append(work)

    def settle(self) -> None:
        """Let the counters have what was tallied: other workers show it, too."""
        for tally in self._tallies.values():
            tally.settle()
        for work in self._settling:
            work()

    def render(self) -> bytes:
        """Write all of them as `METRICS_TYPE`."""
        return generate_latest(self._everybodys())

    def samples(self) -> list[Sample]:
        """Return all of them: names as Prometheus has them, labels, values."""
        return [sample for family in self._everybodys().collect() for sample in family.samples]

    def _everybodys(self) -> CollectorRegistry:
        """Return what has been counted up to now, also by other workers."""
        self.settle()
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:
            return self._registry
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody, folder)  # type: ignore[no-untyped-call]  # the library's omission
        return everybody


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the log says of a request, whoever sent it and however long it took."""

    method: str
    path: str
    status: int
    bytes: int
    ms: float
    cache: str
    agent: str
    user: str = ""


class Accesses(Protocol):
    """Where requests are logged."""

    def log(self, access: Access, client: str | None) -> None:
        """Log a request of *client*."""
        ...

    def again(self, access: Access) -> Callable[[str | None], None] | None:
        """Return what logs the same for other clients, in next to no time; None where requests aren't logged."""
        ...

    def settle(self) -> None:
        """Write what waits to be written."""
        ...


class AccessEvents:
    """Requests as events like any other."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("access")

    def log(self, access: Access, client: str | None) -> None:
        """Log a request of *client*."""
        self._log.info("request", client=client, **asdict(access))

    def again(self, access: Access) -> Callable[[str | None], None] | None:
        """Return what logs the same for other clients; None where requests aren't logged."""
        if not self._log.is_enabled_for(logging.INFO):
            return None
        return lambda client: self.log(access, client)

    def settle(self) -> None:
        """Write nothing: nothing waits."""


class Outlet:
    """A stream that nobody waits for, though it may be a pipe or a terminal whose reader has stopped.

    What it doesn't take is kept and offered again, so much of it; then lines are lost, and how many is told when it
    takes some again. What it can't take at all, because a disk is full or the reader has gone, is lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pieces: deque[str] = deque()
        self._kept = 0  # characters of them
        self._lost = 0  # lines
        self._look: asyncio.TimerHandle | None = None
        # What threads log stands among the rest, whole. What is logged in the middle of this, as what a collection of
        # garbage ends may do, comes next.
        self._turn = threading.RLock()
        self._poll = _poll(stream)
        self._door = _door(stream)

    def write(self, text: str) -> None:
        """Write *text*, whole lines, as soon as the stream takes it."""
        with self._turn:
            if self._kept + len(text) > _MAX_KEPT and not self._emptied():
                self._lost += text.count("\n")
            else:
                self._pieces += [text[start : start + _MAX_WRITE] for start in range(0, len(text), _MAX_WRITE)]
                self._kept += len(text)
            if self._emptied() and not self._lost:
                return
        if self._look is None:
            with suppress(RuntimeError):  # in a thread there is no loop; whatever is written next takes this along
                self._look = asyncio.get_running_loop().call_later(_WAIT, self._again)

    def close(self, seconds: float = _LAST_WAIT) -> None:
        """Write what is kept; a reader who is late has so many *seconds*."""
        end = time.monotonic() + seconds
        with self._turn:
            while not self._emptied() and (left := end - time.monotonic()) > 0:
                self._takes(left)

    def _again(self) -> None:
        self._look = None
        with self._turn:
            lost, self._lost = (self._lost, 0) if self._emptied() else (0, self._lost)
        if lost:
            _log.warning("lines of the log lost", count=lost)
        else:
            self.write("")

    def _emptied(self) -> bool:
        """Write as much as the stream takes, and say whether that was all."""
        while self._pieces and self._takes(0):
            piece = self._pieces.popleft()
            rest = self._rest(piece)
            self._kept -= len(piece) - len(rest)
            if rest:
                self._pieces.appendleft(rest)
                break
        return not self._pieces

    def _rest(self, piece: str) -> str:
        """Write *piece*, and return what has to be offered again: nothing of what a stream keeps in its own buffer."""
        with suppress(OSError):
            if self._door is None:
                self._stream.write(piece)
                self._stream.flush()
            else:
                return _refused(self._door, piece)
        return ""

    def _takes(self, seconds: float) -> bool:
        """Whether a piece can be written without waiting, if need be after so many *seconds*."""
        return self._poll is None or bool(self._poll.poll(seconds * 1000))


def _poll(stream: TextIO) -> select.poll | None:
    """Return what tells whether *stream* takes something; None where it isn't one of the system's."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return None
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return poll


def _refused(door: int, piece: str) -> str:
    """Write *piece* and return what wasn't taken. Raises `OSError` where it never will be."""
    data = piece.encode(errors="backslashreplace")
    try:
        return data[os.write(door, data) :].decode(errors="replace")
    except BlockingIOError:
        return piece


def _door(stream: TextIO) -> int | None:
    """Return a descriptor of our own at which no write waits, of a pipe or a terminal behind *stream*.

    That it takes something may mean less than a piece to a terminal, and another worker may be faster. The descriptor
    that *stream* has can't be made to refuse instead: whoever started us has it, too.
    """
    try:
        descriptor = stream.fileno()
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode) or os.isatty(descriptor):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except (OSError, ValueError):
        pass  # not one of the system's, or somebody else's
    return None


class Lines:
    """A stream of events, those of requests that are answered in microseconds written many at a time.

    Whatever else is written comes after them: lines stand in the order in which they happened. Where the stream takes
    none they wait or are lost (`Outlet`): a log costs no answer.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._waiting: list[tuple[float, str | None, str]] = []

    def write(self, text: str) -> int:
        """Write *text* now."""
        self.settle()
        self._outlet.write(text)
        return len(text)

    def flush(self) -> None:
        """Let nothing wait."""
        self.settle()

    def add(self, moment: float, client: str | None, rest: str) -> None:
        """Write an event of *client* soon; *rest* is the event but for its client and its time."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(_WAIT, self.settle)
        self._waiting.append((moment, client, rest))
        if len(self._waiting) >= _MAX_WAITING:
            self.settle()

    def settle(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        clients = {client: json.dumps(client) for _, client, _ in waiting}
        second, text, piece = -1, "", ""
        for moment, client, rest in waiting:
            if int(moment) != second:
                second = int(moment)
                text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            line = f'{{"client": {clients[client]}, {rest}"{text}.{int(moment % 1 * 1e6):06d}Z"}}\n'
            if len(piece) + len(line) > _MAX_WRITE:
                self._outlet.write(piece)
                piece = ""
            piece += line
        self._outlet.write(piece)


class AccessLines(AccessEvents):
    """Requests as JSON events."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def again(self, access: Access) -> Callable[[str | None], None] | None:
        """Return what logs the same for other clients; None where requests aren't logged."""
        if not self._log.is_enabled_for(logging.INFO):
            return None
        bound = structlog.contextvars.get_contextvars()
        event = {**asdict(access), "event": "request", **bound, "level": "info", "timestamp": ""}
        rest = json.dumps(event)[1:].removesuffix('""}')
        add, clock = self._lines.add, time.time
        return lambda client: add(clock(), client, rest)

    def settle(self) -> None:
        """Write what waits to be written."""
        self._lines.settle()


def configure_logging(stream: TextIO = sys.stderr, *, level: int = logging.INFO) -> Accesses:
    """Send events to *stream*: in colours on a terminal, else one JSON object a line. Call once, at the start.

    Returns where requests are to be logged.
    """
    outlet = Outlet(stream)
    atexit.register(outlet.close)
    terminal, lines = stream.isatty(), Lines(outlet)
    renderers: tuple[structlog.typing.Processor, ...] = (
        (_in_sight, structlog.dev.ConsoleRenderer()) if terminal else (structlog.processors.JSONRenderer(),)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", lines)),
        cache_logger_on_first_use=False,
    )
    return AccessEvents() if terminal else AccessLines(lines)


def _in_sight(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Let no value give orders to a terminal; a trace has lines of its own."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception" and not value.isprintable():
            event[name] = visible(value)
    return event
