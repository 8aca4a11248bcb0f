"""Forgetting what nobody has used for long, and nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from conftest import Clock
from proxy.oci.reference import Digest
from proxy.store.behind import Behind
from proxy.store.disk import DiskContent, DiskMetadata, Folder
from proxy.store.history import Pruner, Schedule, Uses, noting
from proxy.store.memory import LruMemory, MemoryContent, MemoryMetadata
from proxy.store.tiered import TieredContent, TieredMetadata
from proxy.telemetry import Metrics
from store.conformance import DATA, DIGEST, HERE, URLS, V1, a_location, an_entry, what_was_learned

DAY = 86_400.0
HISTORY = 30 * DAY


class Pause:
    """A sleep that takes no time, and is interrupted when there were enough of them."""

    def __init__(self, enough: int = 1000) -> None:
        self.asked: list[float] = []
        self._enough = enough

    async def __call__(self, seconds: float) -> None:
        """Note that somebody wanted to sleep."""
        self.asked.append(seconds)
        if len(self.asked) == self._enough:
            raise InterruptedError


class Passing(Pause):
    """A sleep that time passes in."""

    def __init__(self, enough: int) -> None:
        super().__init__(enough)
        self.ticks = Clock()

    async def __call__(self, seconds: float) -> None:
        """Let so much of it pass."""
        await super().__call__(seconds)
        if seconds >= 1:
            self.ticks.advance(seconds)


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> Folder:
    """A cache folder."""
    folder = Folder(tmp_path / "cache", clock)
    folder.prepare()
    return folder


@pytest.fixture
def metrics() -> Metrics:
    """Counters."""
    return Metrics()


@pytest.fixture
def pruner(folder: Folder, clock: Clock, metrics: Metrics) -> Pruner:
    """What deletes."""
    return Pruner(folder, HISTORY, metrics, clock=clock, sleep=Pause())


@pytest.fixture
async def behind() -> AsyncIterator[Behind]:
    """The writes that nobody waits for."""
    behind = Behind()
    yield behind
    await behind.close()


@pytest.fixture
def content(folder: Folder, clock: Clock, behind: Behind) -> TieredContent:
    """Memory in front of disk, as it is run."""
    return TieredContent(MemoryContent(LruMemory(1 << 20)), DiskContent(folder), Uses(DAY, clock), behind)


@pytest.fixture
def metadata(folder: Folder, clock: Clock, behind: Behind) -> TieredMetadata:
    """Memory in front of disk, as it is run."""
    return TieredMetadata(MemoryMetadata(LruMemory(1 << 20)), DiskMetadata(folder, URLS), Uses(DAY, clock), behind)


def files(folder: Folder) -> list[Path]:
    """Return the paths of all files in *folder*."""
    return sorted(path for path in folder.root.rglob("*") if path.is_file())


def pruned(metrics: Metrics) -> dict[str, float]:
    """Return how many files of each kind were counted."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {s.labels["kind"]: s.value for f in families for s in f.samples if s.name == "manifuse_pruned_files_total"}


async def keep_one_of_each(content: TieredContent, metadata: TieredMetadata, behind: Behind) -> None:
    """Keep something of every kind, and wait until the disk has it."""
    await content.put(DIGEST, DATA)
    await metadata.keep_entry(HERE, V1, an_entry())
    await metadata.keep_location(HERE, DIGEST, a_location())
    await metadata.keep_learned(HERE, what_was_learned())
    await behind.close()


async def test_what_nobody_used_is_deleted(
    folder: Folder,
    content: TieredContent,
    metadata: TieredMetadata,
    behind: Behind,
    pruner: Pruner,
    clock: Clock,
    metrics: Metrics,
) -> None:
    """Files without a use for long are gone, with the folders they were in; counted by kind, told in one line."""
    await keep_one_of_each(content, metadata, behind)
    clock.advance(HISTORY + DAY + 1)
    with capture_logs() as logs:
        assert await pruner.prune() == 4

    assert sorted(path.name for path in folder.root.iterdir()) == ["locks", "tmp"]
    assert files(folder) == []
    assert pruned(metrics) == {"content": 1, "locations": 1, "tags": 1, "learned": 1}
    assert [(log["event"], log["files"]["content"]) for log in logs] == [("pruned", 1)]


async def test_nothing_younger_is_deleted(
    folder: Folder,
    content: TieredContent,
    metadata: TieredMetadata,
    behind: Behind,
    pruner: Pruner,
    clock: Clock,
) -> None:
    """Up to the last second, and for as long as a use may be noted late, everything stays and nothing is said."""
    await keep_one_of_each(content, metadata, behind)
    clock.advance(HISTORY + DAY)
    with capture_logs() as logs:
        assert await pruner.prune() == 0

    assert len(files(folder)) == 4
    assert logs == []


async def test_what_memory_answers_is_in_use(
    folder: Folder,
    content: TieredContent,
    metadata: TieredMetadata,
    behind: Behind,
    pruner: Pruner,
    clock: Clock,
) -> None:
    """Files of what is answered from memory for months, without being read, stay."""
    await keep_one_of_each(content, metadata, behind)
    for _ in range(70):
        clock.advance(DAY)
        assert await content.get(DIGEST) == DATA
        assert await metadata.entry(HERE, V1) == an_entry()
        assert await metadata.location(HERE, DIGEST) == a_location()
        assert await metadata.learned(HERE) == what_was_learned()
        assert await pruner.prune() == 0

    assert len(files(folder)) == 4


async def test_what_the_disk_answers_is_in_use(folder: Folder, pruner: Pruner, clock: Clock) -> None:
    """A file that a process without memory of it reads is used from then on."""
    disk = DiskContent(folder)
    await disk.put(DIGEST, DATA)
    for _ in range(3):
        clock.advance(HISTORY)
        assert await TieredContent(MemoryContent(LruMemory(0)), disk, Uses(DAY, clock), Behind()).get(DIGEST) == DATA
        assert await pruner.prune() == 0


async def test_a_use_is_noted_once_a_day(folder: Folder, content: TieredContent, clock: Clock) -> None:
    """However often something is used, its file is dated once a day."""
    await content.put(DIGEST, DATA)
    first = clock()
    await content.get(DIGEST)
    clock.advance(DAY - 1)
    await content.get(DIGEST)
    (path,) = files(folder)
    assert path.stat().st_mtime == first
    clock.advance(1)
    await content.get(DIGEST)

    assert path.stat().st_mtime == first + DAY


async def test_what_the_disk_lost_is_written_again(
    folder: Folder, content: TieredContent, metadata: TieredMetadata, behind: Behind, clock: Clock
) -> None:
    """What is still in memory is back on disk at its next use: it is being advertised."""
    await keep_one_of_each(content, metadata, behind)
    for path in files(folder):
        path.unlink()
    clock.advance(DAY)

    await content.get(DIGEST)
    await metadata.location(HERE, DIGEST)

    assert await DiskContent(folder).get(DIGEST) == DATA
    assert await DiskMetadata(folder, URLS).location(HERE, DIGEST) == a_location()


async def test_a_file_that_can_not_be_dated_is_no_trouble(
    folder: Folder, content: TieredContent, clock: Clock, tmp_path: Path
) -> None:
    """Where the disk refuses, the answer is given and one warning says so."""
    await content.put(DIGEST, DATA)
    folder.root.rename(tmp_path / "gone")
    folder.root.touch()  # a file where the folder was
    clock.advance(DAY)
    with capture_logs() as logs:
        assert await content.get(DIGEST) == DATA
        assert await content.get(DIGEST) == DATA

    assert [log["doing"] for log in logs] == ["touch"]


async def test_a_use_while_pruning_wins(folder: Folder, pruner: Pruner, clock: Clock) -> None:
    """Content that is used at the very moment is either kept or written again."""
    content = TieredContent(MemoryContent(LruMemory(1 << 20)), DiskContent(folder), Uses(0.0, clock), Behind())
    bodies = [str(n).encode() for n in range(300)]
    for body in bodies:
        await content.put(Digest.of(body), body)
    clock.advance(2 * HISTORY)
    await pruner.prune()
    for body in bodies:
        assert await content.get(Digest.of(body)) == body

    assert await pruner.prune() == 0
    assert len(files(folder)) == 300


class Busy(Folder):
    """A folder whose content is used at the very moment that it is about to be deleted."""

    def scratch(self) -> Path:
        """Use everything, then return a path."""
        for path in files(self):
            os.utime(path, (self._clock(),) * 2)
        return super().scratch()


async def test_a_use_in_the_last_moment_puts_a_file_back(folder: Folder, clock: Clock, metrics: Metrics) -> None:
    """What is used after it was found old, and before it is gone, stays where it was."""
    await DiskContent(folder).put(DIGEST, DATA)
    clock.advance(2 * HISTORY)

    assert await Pruner(Busy(folder.root, clock), HISTORY, metrics, clock=clock, sleep=Pause()).prune() == 0
    assert await DiskContent(folder).get(DIGEST) == DATA
    assert len(files(folder)) == 1


async def test_what_can_not_be_deleted_stays(folder: Folder, pruner: Pruner, clock: Clock) -> None:
    """Where the disk refuses, nothing raises and one warning says so."""
    for data in (DATA, b"other"):
        await DiskContent(folder).put(Digest.of(data), data)
    clock.advance(2 * HISTORY)
    (folder.root / "tmp").rmdir()
    (folder.root / "tmp").touch()  # a file where the folder was
    with capture_logs() as logs:
        assert await pruner.prune() == 0

    assert [log["doing"] for log in logs] == ["prune"]
    assert len(files(folder)) == 3


async def test_many_files_are_deleted_in_slices(folder: Folder, clock: Clock, metrics: Metrics) -> None:
    """Between a few hundred files and the next, others get their turn."""
    pause = Pause()
    disk = DiskContent(folder)
    for n in range(700):
        await disk.put(Digest.of(b"%d" % n), b"%d" % n)
    clock.advance(2 * HISTORY)

    assert await Pruner(folder, HISTORY, metrics, clock=clock, sleep=pause).prune() == 700
    assert len(pause.asked) == 3


async def test_pruning_tolerates_what_is_no_cache(folder: Folder, pruner: Pruner, clock: Clock, tmp_path: Path) -> None:
    """Links are not followed, files of others under tmp stay, and a folder that isn't there is no error."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (folder.root / "tags").mkdir()
    (folder.root / "tags/link").symlink_to(tmp_path)
    scratch = folder.scratch()
    scratch.write_text("being written")
    for path in (outside, scratch):
        os.utime(path, (0, 0))
    await pruner.prune()

    assert (outside.read_text(), scratch.read_text()) == ("precious", "being written")


async def test_an_unusable_folder_is_not_pruned(tmp_path: Path, clock: Clock, metrics: Metrics) -> None:
    """Where there is no folder nothing happens, and nothing raises."""
    (tmp_path / "file").touch()

    assert await Pruner(Folder(tmp_path / "file/cache"), HISTORY, metrics, clock=clock, sleep=Pause()).prune() == 0


async def test_it_prunes_some_minutes_after_the_start_and_every_hour(
    folder: Folder, content: TieredContent, clock: Clock, metrics: Metrics
) -> None:
    """The first run waits until the service has settled; the next ones come by the hour."""
    await content.put(DIGEST, DATA)
    clock.advance(2 * HISTORY)
    pause = Passing(enough=4)
    with pytest.raises(InterruptedError):
        await Pruner(folder, HISTORY, metrics, Schedule(pause.ticks), clock=clock, sleep=pause).run()

    assert pause.asked == [300.0, 0.01, 3600.0, 3600.0]
    assert files(folder) == []


async def test_one_that_is_begun_anew_again_and_again_prunes(
    folder: Folder, content: TieredContent, clock: Clock, metrics: Metrics
) -> None:
    """Each reload has a pruner of its own; when it is due goes by the process, and is noted when it was done."""
    await content.put(DIGEST, DATA)
    clock.advance(2 * HISTORY)
    ticks = Clock()
    schedule = Schedule(ticks)
    asked = []
    for _ in range(5):
        pause = Pause(enough=1)
        with pytest.raises(InterruptedError):
            await Pruner(folder, HISTORY, metrics, schedule, clock=clock, sleep=pause).run()
        asked += pause.asked
        ticks.advance(100)

    assert asked == [300.0, 200.0, 100.0, 0.01, 3600.0]
    assert files(folder) == []


async def test_two_pruners_prune_once(folder: Folder, clock: Clock, metrics: Metrics) -> None:
    """An old generation lives on while somebody downloads by it: what the new one has done isn't done again."""
    ticks = Clock()
    schedule = Schedule(ticks)
    pruned = []

    class Noting(Pruner):
        async def prune(self) -> int:
            pruned.append(ticks())
            return 0

    pause = Pause(enough=2)

    async def slept(seconds: float) -> None:
        await pause(seconds)
        ticks.advance(seconds)
        schedule.done()  # by the other one

    with pytest.raises(InterruptedError):
        await Noting(folder, HISTORY, metrics, schedule, clock=clock, sleep=slept).run()

    assert pruned == []
    assert pause.asked == [300.0, 3600.0]


async def test_writing_survives_a_folder_that_is_removed(folder: Folder, clock: Clock, metrics: Metrics) -> None:
    """Who writes while emptied folders are removed finds them made again."""
    disk = DiskContent(folder)
    pruner = Pruner(folder, HISTORY, metrics, clock=clock, sleep=Pause())
    with capture_logs() as logs:
        for _ in range(3):
            await disk.put(DIGEST, DATA)
            clock.advance(2 * HISTORY)
            assert await pruner.prune() == 1

    assert {log["event"] for log in logs} == {"pruned"}


def test_uses_are_bounded() -> None:
    """The oldest note is forgotten when there are too many, and is due again."""
    uses = Uses(DAY, lambda: 0.0, most=2)
    for key in "abc":
        uses.note(key)

    assert len(uses) == 2
    assert [uses.due(key) for key in "abc"] == [True, False, False]


def test_a_clock_that_went_backwards_makes_uses_due(clock: Clock) -> None:
    """What was noted in what is now the future is noted again."""
    uses = Uses(DAY, clock)
    uses.note("a")
    clock.advance(-1)

    assert uses.due("a")


@pytest.mark.parametrize(("history", "seconds"), [(HISTORY, DAY), (10 * DAY, DAY), (36_000.0, 3600.0)])
def test_a_short_history_is_noted_more_often(history: float, seconds: float) -> None:
    """A use is noted once a day, or ten times within a history of less than ten days."""
    assert noting(history) == seconds
