"""The front page of the admin port: what is served, from where, and how that goes, in columns for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from prometheus_client.samples import Sample

from proxy.telemetry import visible

_UPSTREAMS: Final = (
    "UPSTREAM",
    "URL",
    "STATE",
    "REQUESTS",
    "REFUSED",
    "LIMITED",
    "5XX",
    "NO ANSWER",
    "TAKES",
    "LEFT OF LIMIT",
)
_RULES: Final = ("REPOSITORIES", "MADE FROM")
_CLIENTS: Final = ("CLIENTS", "REQUESTS", "HIT", "STALE", "REVALIDATED", "MISS", "4XX", "5XX")
_MERGES: Final = (
    ("indexes synthesized", "manifuse_merges_total"),
    ("  while something was missing", "manifuse_partial_merges_total"),
    ("answers held from an older one", "manifuse_held_total"),
    ("configs that contradict the rule", "manifuse_platform_mismatches_total"),
    ("sources left out for an earlier one", "manifuse_platform_clashes_total"),
)


@dataclass(frozen=True, slots=True)
class Origin:
    """An upstream by its name, and its address without anything secret."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Overview:
    """What a configuration says is served.

    Attributes:
        loaded: When the configuration was, in seconds since the epoch.
        rules: The glob over repositories and what they are made of, in the order in which they are tried.
    """

    version: str
    loaded: float
    upstreams: tuple[Origin, ...]
    rules: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Counts:
    """What was counted, by name and labels."""

    samples: Sequence[Sample]

    def of(self, name: str, **labels: str) -> Iterator[Sample]:
        """Yield what is counted under *name* with at least these *labels*."""
        for sample in self.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample

    def total(self, name: str, **labels: str) -> int:
        """Add it up."""
        return int(sum(sample.value for sample in self.of(name, **labels)))

    def statuses(self, name: str, *beginnings: str, **labels: str) -> int:
        """Add up what has a status that begins with one of *beginnings*."""
        return int(sum(s.value for s in self.of(name, **labels) if s.labels["status"].startswith(beginnings)))


def page(overview: Overview, samples: Sequence[Sample], *, ready: bool) -> str:
    """Write the page.

    Args:
        samples: Everything that was counted, by all workers.
        ready: Whether clients are answered.
    """
    counts = _Counts(samples)
    loaded = datetime.fromtimestamp(overview.loaded, UTC).isoformat(timespec="seconds")
    state = "ready" if ready else "not ready"
    parts = (
        [f"manifuse {overview.version}: {state}; configuration of {loaded}"],
        _columns([_UPSTREAMS, *(_upstream(each, counts) for each in overview.upstreams)]),
        _columns([_RULES, *overview.rules]),
        _columns([_CLIENTS, *_clients(counts)]),
        _columns([("MERGES", ""), *((what, str(counts.total(name))) for what, name in _MERGES)]),
        ["Of one image: /explain/<repository>:<tag>. Everything that is counted: /metrics."],
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _upstream(origin: Origin, counts: _Counts) -> tuple[str, ...]:
    name, requests = origin.name, "manifuse_upstream_requests_total"
    total = counts.total(requests, upstream=name)
    left_alone = counts.total("manifuse_upstream_breaker_open", upstream=name)
    return (
        name,
        origin.url,
        "left alone" if left_alone else "in use" if total else "not asked yet",
        str(total),
        str(counts.statuses(requests, "401", "403", upstream=name)),
        str(counts.statuses(requests, "429", upstream=name)),
        str(counts.statuses(requests, "5", upstream=name)),
        str(counts.statuses(requests, "error", upstream=name)),
        _mean(counts, name),
        _left(counts, name),
    )


def _mean(counts: _Counts, upstream: str) -> str:
    """Return the time that the upstream's response headers took, on average."""
    answers = counts.total("manifuse_upstream_seconds_count", upstream=upstream)
    seconds = sum(sample.value for sample in counts.of("manifuse_upstream_seconds_sum", upstream=upstream))
    return f"{1000 * seconds / answers:.0f} ms" if answers else "-"


def _left(counts: _Counts, upstream: str) -> str:
    """Return what is left of a rate limit, where the upstream has one and says so."""
    limit = counts.total("manifuse_upstream_ratelimit_limit", upstream=upstream)
    remaining = counts.total("manifuse_upstream_ratelimit_remaining", upstream=upstream)
    return f"{remaining} of {limit}" if limit else "-"


def _clients(counts: _Counts) -> Iterator[tuple[str, ...]]:
    name = "manifuse_requests_total"
    for route in sorted({sample.labels["route"] for sample in counts.of(name)}):
        caches = (counts.total(name, route=route, cache=cache) for cache in ("hit", "stale", "revalidated", "miss"))
        statuses = (counts.statuses(name, first, route=route) for first in ("4", "5"))
        yield (route, *map(str, (counts.total(name, route=route), *caches, *statuses)))


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Write cells below each other, two spaces between the widest and the next; numbers stand to the right."""
    shown = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(_cell, row, widths)).rstrip() for row in shown]


def _cell(text: str, width: int) -> str:
    return text.rjust(width) if text.isdigit() else text.ljust(width)
