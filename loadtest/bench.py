"""How much is measured, and how: contestants take turns, everything is repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from loadtest import cpu
from loadtest.machine import Cores
from loadtest.peers import Yard


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        seconds: Of each run of a load.
        repeats: Of each contest.
        thorough: Whether contestants beside those of the targets take part, and manifuse with its default log.
        gigabytes: Of blobs in each run.
        known: Tags on disk, from few to many.
        tags: Tags on disk where memory and start are measured.
        cold: Cold tags in each run.
        clients: That ask for one cold tag.
        readers: That are slow.
        nodes: Of a pull storm, and *apps* that each pulls.
    """

    seconds: float
    repeats: int
    thorough: bool
    gigabytes: float = 2.0
    known: tuple[int, ...] = (100, 10_000, 1_000_000)
    tags: int = 100_000
    cold: int = 50
    clients: int = 1000
    readers: int = 200
    nodes: int = 20
    apps: int = 20
    storms: int = 3


FULL = Plan(seconds=2, repeats=5, thorough=True)
QUICK = Plan(seconds=1, repeats=3, thorough=False)
TINY = Plan(
    seconds=1,
    repeats=1,
    thorough=True,
    gigabytes=0.1,
    known=(100, 1000, 10_000),
    tags=1000,
    cold=5,
    clients=50,
    readers=20,
    nodes=6,
    apps=3,
    storms=1,
)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how much."""

    yard: Yard
    plan: Plan

    @property
    def cores(self) -> Cores:
        """Which cores take part."""
        return self.yard.cores


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a load on one contestant: what it scored, and how busy it was, CPU seconds a second."""

    score: float
    busy: float


Contestants = Mapping[str, Callable[[], Run]]


def alternate(contestants: Contestants, repeats: int) -> dict[str, list[Run]]:
    """Let each have a run, *repeats* times, another one first each time. What comes before is not counted."""
    names = list(contestants)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            runs[name].append(contestants[name]())
    return runs


def watched(pid: int, load: Callable[[], float]) -> Run:
    """Run *load* and see how busy *pid* is meanwhile."""
    before, began = cpu.seconds(pid), time.perf_counter()
    score = load()
    return Run(score, (cpu.seconds(pid) - before) / (time.perf_counter() - began))


def ratios(ours: list[Run], theirs: list[Run]) -> tuple[float, ...]:
    """Return our score by theirs, repetition by repetition."""
    return tuple(mine.score / other.score for mine, other in zip(ours, theirs, strict=True))


def scores(runs: list[Run]) -> list[float]:
    """Return the scores alone."""
    return [run.score for run in runs]


def busy(runs: list[Run]) -> float:
    """Return how busy a contestant was, median."""
    return median(run.busy for run in runs)
