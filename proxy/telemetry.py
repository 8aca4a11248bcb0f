"""What operators see: counters in Prometheus' format, and structured logs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final, Protocol, TextIO, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_WAIT: Final = 0.1  # seconds that a line of the access log, or what is to be counted, may wait for others
_MAX_WAITING: Final = 1000  # lines; more at once would be felt
_MAX_WRITE: Final = 4096  # bytes that reach a pipe in one piece, which other workers write to, too (PIPE_BUF)

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


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
        self.requests = Counter(
            "manifuse_requests",
            "Requests by clients",
            ["route", "method", "status", "cache"],
            registry=registry,
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

    def settle(self) -> None:
        """Let the counters have what was tallied: other workers show it, too."""
        for tally in self._tallies.values():
            tally.settle()

    def render(self) -> bytes:
        """Write all of them as `METRICS_TYPE`."""
        self.settle()
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody, folder)  # type: ignore[no-untyped-call]  # the library's omission
        return generate_latest(everybody)


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


class Lines:
    """A stream of JSON events, those of requests that are answered in microseconds written many at a time.

    Whatever else is written comes after them: lines stand in the order in which they happened.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: list[tuple[float, str | None, str]] = []

    def write(self, text: str) -> int:
        """Write *text* now."""
        self.settle()
        return self._stream.write(text)

    def flush(self) -> None:
        """Let nothing wait."""
        self.settle()
        self._stream.flush()

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
                self._write(piece)
                piece = ""
            piece += line
        self._write(piece)

    def _write(self, piece: str) -> None:
        self._stream.write(piece)
        self._stream.flush()


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
    terminal, lines = stream.isatty(), Lines(stream)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream if terminal else cast("TextIO", lines)),
        cache_logger_on_first_use=False,
    )
    return AccessEvents() if terminal else AccessLines(lines)
