"""How long what was advertised is kept: for a time since its last use.

On disk the last use of a file is its time of modification. What memory answers for weeks is dated anew now and
then (`Uses`), and what nobody has used for too long is deleted in the background (`Pruner`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

import structlog

from proxy.store.disk import Folder
from proxy.telemetry import Metrics

_DAY: Final = 86_400.0
_MOST: Final = 20_000  # uses remembered; one that was forgotten costs dating a file again
_FIRST: Final = 300.0  # seconds after the start: nobody wants a walk over the disk while the pulls come back
_INTERVAL: Final = 3600.0  # seconds between the end of a run and the next
_SLICE: Final = 256  # files looked at in one go
_PAUSE: Final = 0.01  # seconds between slices, for those who read and write meanwhile
_KINDS: Final = ("content", "locations", "tags", "learned")

_log: Final = structlog.get_logger("store")


class Uses:
    """When the use of each thing was last noted on disk, so that it isn't noted at every use."""

    def __init__(self, every: float = _DAY, clock: Callable[[], float] = time.time, most: int = _MOST) -> None:
        """Let a use be due *every* so many seconds, and remember *most* of them."""
        self._every = every
        self._clock = clock
        self._most = most
        self._noted: dict[Hashable, float] = {}

    def __len__(self) -> int:
        """Count what is remembered."""
        return len(self._noted)

    def due(self, key: Hashable) -> bool:
        """Whether a use of *key* has to be noted. It has, too, where the clock went backwards."""
        noted = self._noted.get(key)
        return noted is None or not 0 <= self._clock() - noted < self._every

    def note(self, key: Hashable) -> None:
        """Remember that it was."""
        self._noted.pop(key, None)
        if len(self._noted) >= self._most:
            del self._noted[next(iter(self._noted))]
        self._noted[key] = self._clock()


def noting(history: float) -> float:
    """Return how many seconds may pass between two notes of a use: a day, less where little is kept."""
    return min(_DAY, history / 10)


class Schedule:
    """When a cache folder is pruned next. It is the process's: a pruner is begun anew with each configuration."""

    def __init__(self, ticks: Callable[[], float] = time.monotonic) -> None:
        """Begin now; *ticks* has seconds that never go backwards."""
        self._ticks = ticks
        self._next = ticks() + _FIRST

    @property
    def left(self) -> float:
        """How many seconds there are until then; none or less where it is due."""
        return self._next - self._ticks()

    def done(self) -> None:
        """Note that it was pruned."""
        self._next = self._ticks() + _INTERVAL


class Pruner:
    """Deletes the files of a cache folder that weren't used for long, a few at a time and off the event loop."""

    def __init__(
        self,
        folder: Folder,
        history: float,
        metrics: Metrics,
        schedule: Schedule | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take what is needed.

        Args:
            history: Seconds since its last use that a file is kept; a use may be noted `noting` late.
            schedule: When to do it.
            clock: Seconds since the epoch.
        """
        self._folder = folder
        self._history = history
        self._metrics = metrics
        self._schedule = schedule or Schedule()
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Prune again and again, until cancelled."""
        while True:
            while (left := self._schedule.left) > 0:
                await self._sleep(left)
            await self.prune()
            self._schedule.done()

    async def prune(self) -> int:
        """Delete what wasn't used for long, and return how many files that was. Raises nothing."""
        sweep = _sweep(self._folder, self._clock() - self._history - noting(self._history))
        pruned: Counter[str] = Counter()
        while seen := await asyncio.to_thread(lambda: list(islice(sweep, _SLICE))):
            for kind in filter(None, seen):
                pruned[kind] += 1
                self._metrics.pruned.labels(kind).inc()
            await self._sleep(_PAUSE)
        if pruned:
            _log.info("pruned", dir=str(self._folder.root), unused_days=self._history / _DAY, files=dict(pruned))
        return pruned.total()


def _sweep(folder: Folder, before: float) -> Iterator[str]:
    """Delete what wasn't used since *before*. Yields for each file its kind, or nothing where it stays."""
    for kind in _KINDS:
        for path in _files(folder.root / kind):
            yield kind if _delete(folder, path, before) else ""


def _files(directory: Path) -> Iterator[Path]:
    """Yield the files below *directory*, and remove it afterwards if it is empty."""
    with suppress(OSError):  # somebody else removed it
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path))
                else:
                    yield Path(entry.path)
        directory.rmdir()


def _delete(folder: Folder, path: Path, before: float) -> bool:
    """Delete the file at *path* unless it was used since *before*.

    It is moved aside and looked at again: a use that came in between puts it back, one that comes later finds it
    gone and writes it anew. So no lock is needed, not even between processes.
    """
    try:
        if path.stat().st_mtime >= before:
            return False
        aside = folder.scratch()
        path.replace(aside)
        used = aside.stat().st_mtime >= before
        if used:
            with suppress(FileExistsError):  # written anew already
                path.hardlink_to(aside)
        aside.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        folder.warn("prune", error)
        return False
    return not used
