"""What operators see: counters in Prometheus' format, and structured logs."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


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

    def render(self) -> bytes:
        """Write all of them as `METRICS_TYPE`."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody, folder)  # type: ignore[no-untyped-call]  # the library's omission
        return generate_latest(everybody)


def configure_logging(stream: TextIO = sys.stderr, *, level: int = logging.INFO) -> None:
    """Send events to *stream*: in colours on a terminal, else one JSON object a line. Call once, at the start."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer()
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
        logger_factory=structlog.WriteLoggerFactory(stream),  # a line in one piece: workers share the stream
        cache_logger_on_first_use=False,
    )
