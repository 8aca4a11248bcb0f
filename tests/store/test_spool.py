"""Blobs kept on their way: one transfer, any number of followers, and what becomes of them when something fails."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from conftest import Clock, until
from patience import HANGING
from proxy.memory import MemoryRegistry
from proxy.oci.byterange import ByteRange, Nothing, Part, SuffixRange, Whole, select
from proxy.oci.content import Blob
from proxy.oci.errors import BadAnswer, BlobUnknown, NoAnswer, RangeInvalid, Refused, RegistryError, Unreachable
from proxy.oci.reference import Digest, Repository
from proxy.store import shelf as shelves
from proxy.store.base import Holder
from proxy.store.disk import Folder
from proxy.store.shelf import Shelf
from proxy.store.spool import Spool
from proxy.telemetry import Metrics

REPOSITORY = Repository("team/app")
DATA = random.Random(0).randbytes(3_000_000)  # noqa: S311 # no secret
LIMIT = 20_000_000


class Registry(MemoryRegistry):
    """A registry that sends blobs chunk by chunk, each when it may, and fails when it should."""

    def __init__(self, data: bytes = DATA, *, chunk: int = 100_000, announced: bool = True) -> None:
        super().__init__()
        self.data = data
        self.digest = Digest.of(data)
        self.opened: list[Part] = []
        self.allowed = 1 << 40
        self.refusal: RegistryError | None = None
        self.breaks_at = 1 << 40
        self._chunk = chunk
        self._announced = announced

    @asynccontextmanager
    async def blob(self, repository: Repository, digest: Digest, part: Part) -> AsyncIterator[Blob]:
        """Open the blob."""
        self.opened.append(part)
        if self.refusal is not None:
            await until(lambda: self.allowed > 0)
            raise self.refusal
        wanted = select(part, len(self.data))
        piece = self.data[wanted.first : wanted.last + 1] if wanted else self.data
        chunks = self._chunks(b"" if isinstance(part, Nothing) else piece)
        yield Blob(digest=digest, size=len(self.data) if self._announced else None, part=wanted, chunks=chunks)

    @property
    def transfers(self) -> int:
        """How often bytes were asked for."""
        return sum(not isinstance(part, Nothing) for part in self.opened)

    async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), self._chunk):
            await until(lambda start=start: start < self.allowed)  # type: ignore[misc]
            if start >= self.breaks_at:
                raise Unreachable("broken off")
            yield data[start : start + self._chunk]
            await asyncio.sleep(0)


@dataclass
class World:
    """A spool in a folder."""

    root: Path
    limit: int = LIMIT
    clock: Clock = field(default_factory=Clock)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        """Make the folder."""
        self.folder = Folder(self.root, self.clock)
        self.folder.prepare()
        self.spool = self.another()

    def another(self) -> Spool:
        """Return a spool on the same folder, as another process has one."""
        return Spool(Shelf(self.folder, self.limit, self.metrics, self.clock), self.metrics, self.clock)

    async def read(self, registry: Registry, part: Part = Whole(), spool: Spool | None = None) -> bytes:  # noqa: B008
        """Read a blob as a client would that can't be sent files."""
        async with (spool or self.spool).open(holder(registry), part) as blob:
            return b"".join([chunk async for chunk in blob.chunks])

    @property
    def waiting(self) -> int:
        """How many wait for more of a transfer, or for its beginning."""
        return sum(len(fill._change._waiters) for fill in self.spool._fills.values())

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        await until(lambda: not self.spool._tasks)

    def files(self, kind: str = "blobs") -> list[str]:
        """Name the files in a folder."""
        return sorted(path.name for path in (self.root / kind).rglob("*") if path.is_file())

    def count(self, name: str, **labels: str) -> float:
        """Return a counter."""
        counter = getattr(self.metrics, name)
        return float((counter.labels(**labels) if labels else counter)._value.get())


def holder(registry: Registry) -> Holder:
    """Return where the registry's blob is."""
    return Holder(registry, REPOSITORY, registry.digest)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A spool in an empty folder. Nothing is left of it but what is kept, and no descriptor."""
    before = open_files()
    one = World(tmp_path / "cache")
    yield one
    await one.settle()
    await one.spool.close()
    assert one.files("tmp") == []
    await until(lambda: open_files() <= before)


def open_files() -> set[str]:
    """Return what this process has open in a cache folder."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # it was the listing's own
            found.add(f"{path.name} {path.readlink()}")
    return {each for each in found if "/cache/" in each}


async def test_a_blob_is_fetched_once(world: World) -> None:
    """What was fetched for one client is kept for the next, under its digest."""
    registry = Registry()

    answers = []
    for _ in range(3):
        answers.append(await world.read(registry))
        await world.settle()

    assert answers == [DATA] * 3
    assert registry.opened == [Whole()]
    assert world.files() == [registry.digest.hex]
    assert [world.count("blob_cache", result=result) for result in ("miss", "hit")] == [1, 2]
    assert world.metrics.blob_cache_bytes._value.get() == len(DATA)


async def test_what_is_kept_comes_from_the_file(world: World) -> None:
    """A hit has the place in the file, for the kernel to send."""
    registry = Registry()
    await world.read(registry)
    await world.settle()

    async with world.spool.open(holder(registry), ByteRange(1000, 1999)) as blob:
        assert blob.file is not None
        assert os.pread(blob.file.descriptor, blob.file.length, blob.file.offset) == DATA[1000:2000]
        assert str(blob.part) == "bytes 1000-1999/3000000"


async def test_many_follow_one_transfer(world: World) -> None:
    """All that come while it is fetched get their bytes from one transfer."""
    registry = Registry()

    answers = await asyncio.gather(*(world.read(registry) for _ in range(50)))

    assert answers == [DATA] * 50
    assert registry.opened == [Whole()]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.just(Whole()),
                st.builds(SuffixRange, st.integers(1, 4_000_000)),
                st.builds(ByteRange, st.integers(0, 2_999_999)),
                st.tuples(st.integers(0, 2_999_999), st.integers(0, 3_000_000)).map(
                    lambda pair: ByteRange(pair[0], pair[0] + pair[1])
                ),
            ),
            st.integers(0, 3),
            st.none() | st.integers(0, 2_000_000),
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([7_000, 100_000, 1_500_000]),
    st.booleans(),
)
def test_any_mix_of_paces_ranges_and_departures(
    tmp_path_factory: pytest.TempPathFactory, clients: list[tuple[Part, int, int | None]], chunk: int, announced: bool
) -> None:
    """Everybody gets exactly the bytes that were asked for, whoever is slow or leaves, from one transfer."""

    async def client(world: World, registry: Registry, part: Part, pauses: int, leaves_at: int | None) -> None:
        wanted = select(part, len(DATA))
        expected = DATA[wanted.first : wanted.last + 1] if wanted else DATA
        got = bytearray()
        async with world.spool.open(holder(registry), part) as blob:
            async for piece in blob.chunks:
                got += piece
                for _ in range(pauses):
                    await asyncio.sleep(0.001)
                if leaves_at is not None and len(got) > leaves_at:
                    break
        assert bytes(got) == expected[: len(got)]
        assert len(got) == len(expected) or leaves_at is not None

    async def run() -> None:
        registry = Registry(chunk=chunk, announced=announced)
        world = World(tmp_path_factory.mktemp("mix") / "cache")
        await asyncio.gather(*(client(world, registry, *each) for each in clients))
        await world.settle()
        assert registry.opened == [Whole()]
        assert world.files() == [registry.digest.hex]
        assert (world.root / "blobs" / "sha256" / registry.digest.hex).read_bytes() == DATA

    asyncio.run(run())


async def test_bytes_are_passed_on_as_they_come(world: World) -> None:
    """A client doesn't wait for a block to be full, or for the end."""
    registry = Registry()
    registry.allowed = 1

    async with world.spool.open(holder(registry), Whole()) as blob:
        first = await anext(blob.chunks)
        registry.allowed = 1 << 40
        rest = [chunk async for chunk in blob.chunks]

    assert first == DATA[:100_000]
    assert b"".join([first, *rest]) == DATA


async def test_a_range_far_behind_is_opened_at_once(world: World) -> None:
    """The headers of a range are known long before its bytes are there."""
    registry = Registry()
    registry.allowed = 1

    async with world.spool.open(holder(registry), SuffixRange(10)) as blob:
        assert str(blob.part) == "bytes 2999990-2999999/3000000"
        registry.allowed = 1 << 40
        assert b"".join([chunk async for chunk in blob.chunks]) == DATA[-10:]


async def test_without_a_size_a_range_is_opened_when_its_bytes_are_there(world: World) -> None:
    """Where the upstream doesn't say how long it is, the end has to be seen first, or the range's."""
    registry = Registry(announced=False)
    registry.allowed = 200_001

    async with world.spool.open(holder(registry), ByteRange(1000, 250_000)) as blob:
        assert str(blob.part) == "bytes 1000-250000/*"
        assert b"".join([chunk async for chunk in blob.chunks]) == DATA[1000:250_001]
    waiting = asyncio.create_task(world.read(registry, SuffixRange(5)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    registry.allowed = 1 << 40

    assert await waiting == DATA[-5:]


async def test_who_leaves_stops_nothing(world: World) -> None:
    """When all clients have left, the transfer still ends, and what it brought is kept."""
    registry = Registry()
    registry.allowed = 1
    async with world.spool.open(holder(registry), Whole()) as blob:
        await anext(blob.chunks)
    registry.allowed = 1 << 40
    await world.settle()

    assert await world.read(registry) == DATA
    assert registry.opened == [Whole()]


async def test_what_cant_be_deleted_keeps_the_rest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As what somebody else has put there, or an earlier start by another user: room is made of what can be."""
    world.limit = 3_500
    world.spool = world.another()
    theirs, ours, new = (Registry(bytes([n]) * 1_500) for n in range(3))
    (world.root / "blobs" / "sha256" / "lost+found").mkdir(parents=True)
    for registry in (theirs, ours):
        await world.read(registry)
        await world.settle()
        world.clock.advance(61)
    unlink = Path.unlink

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        if path.name == theirs.digest.hex:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlinked)
    assert await world.read(new) == new.data
    await world.settle()

    assert set(world.files()) == {theirs.digest.hex, new.digest.hex}


async def test_a_folder_in_a_blobs_place_is_no_blob(world: World) -> None:
    """It is streamed then, instead of being cut off."""
    registry = Registry()
    (world.root / "blobs" / "sha256" / registry.digest.hex).mkdir(parents=True)

    assert [await world.read(registry) for _ in range(2)] == [registry.data] * 2


@pytest.mark.parametrize("announced", [True, False])
async def test_a_broken_transfer_breaks_everybody_off(world: World, announced: bool) -> None:
    """When it fails, nobody's bytes end cleanly, nothing is kept, and the next one asks anew."""
    registry = Registry(announced=announced)
    registry.breaks_at, registry.allowed = 2_000_000, 1
    reading = [asyncio.create_task(world.read(registry)) for _ in range(5)]
    await until(lambda: world.waiting == 5)
    registry.allowed = 1 << 40

    answers = await asyncio.gather(*reading, return_exceptions=True)
    await world.settle()

    assert [type(answer) for answer in answers] == [Unreachable] * 5
    assert world.files() == []
    registry.breaks_at = 1 << 40
    assert await world.read(registry) == DATA
    assert registry.transfers == 2


async def test_a_transfer_of_another_size_is_broken(world: World) -> None:
    """A registry that sends less than it announced has sent another blob."""

    class Liar(Registry):
        async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
            yield data[:-1]

    with pytest.raises(BadAnswer):
        await world.read(Liar())

    await world.settle()
    assert world.files() == []


@pytest.mark.parametrize("refusal", [BlobUnknown("no"), Refused("no"), Unreachable("no")])
async def test_what_is_not_there_is_told_to_all(world: World, refusal: RegistryError) -> None:
    """What is said before the first byte is the answer to everybody who waits, and nothing is left of it."""
    registry = Registry()
    registry.refusal, registry.allowed = refusal, 0
    reading = [asyncio.create_task(world.read(registry)) for _ in range(5)]
    await until(lambda: world.waiting == 5)
    registry.allowed = 1

    answers = await asyncio.gather(*reading, return_exceptions=True)

    assert answers == [refusal] * 5
    assert registry.opened == [Whole()]


async def test_another_source_is_asked_where_the_first_refuses(world: World) -> None:
    """A client of another source doesn't suffer for the one whose transfer it found under way."""
    refusing, granting = Registry(), Registry()
    refusing.refusal, refusing.allowed = Refused("no"), 0
    refused = asyncio.create_task(world.read(refusing))
    await until(lambda: refusing.transfers == 1)
    granted = asyncio.create_task(world.read(granting))
    await until(lambda: world.waiting == 2)
    refusing.allowed = 1

    assert await granted == DATA
    with pytest.raises(Refused):
        await refused
    assert (refusing.transfers, granting.transfers) == (1, 1)


async def test_head_asks_for_no_transfer(world: World) -> None:
    """HEAD of what isn't kept is passed on; of what is kept, or on its way, nobody is asked."""
    registry = Registry()

    async def size() -> int | None:
        async with world.spool.open(holder(registry), Nothing()) as blob:
            return blob.size

    assert await size() == len(DATA)
    assert registry.opened == [Nothing()]
    registry.allowed = 1
    async with world.spool.open(holder(registry), Whole()) as blob:
        await anext(blob.chunks)
        assert await size() == len(DATA)
    registry.allowed = 1 << 40
    await world.settle()
    assert await size() == len(DATA)
    assert registry.opened == [Nothing(), Whole()]


@pytest.mark.parametrize("part", [ByteRange(len(DATA)), SuffixRange(0), ByteRange(5, 4)])
async def test_a_range_without_bytes_is_refused(world: World, part: Part) -> None:
    """Whether it is kept already or not; and of a new one only when all of it was seen and right."""
    registry = Registry()
    for _ in range(2):
        with pytest.raises(RangeInvalid) as raised:
            await world.read(registry, part)
        assert raised.value.size == len(DATA)
        await world.settle()
    broken = Registry(DATA[1:])
    broken.breaks_at = 1_000_000

    with pytest.raises(NoAnswer):
        await world.read(broken, part)


async def test_an_empty_blob(world: World) -> None:
    """A blob of no bytes is kept, too."""
    registry = Registry(b"")

    for part in (Whole(), Whole(), SuffixRange(5)):
        assert await world.read(registry, part) == b""
        await world.settle()

    assert registry.opened == [Whole()]


async def test_least_recently_used_leaves_first(world: World) -> None:
    """When there is too much, what nobody has asked for longest is deleted: the last use counts, not the first."""
    world.limit = 3_500
    world.spool = world.another()
    old, used, new = (Registry(bytes([n]) * 1_500) for n in range(3))
    for registry in (old, used, old, new):
        await world.read(registry)
        await world.settle()
        world.clock.advance(61)

    assert set(world.files()) == {old.digest.hex, new.digest.hex}
    assert world.count("blobs_evicted") == 1


async def test_what_is_read_is_never_deleted(world: World) -> None:
    """Room is made of what nobody reads, whichever process reads; where that isn't enough, nothing is kept."""
    world.limit = 3_500
    world.spool = world.another()
    first, second, third = (Registry(bytes([n]) * 1_500) for n in range(3))
    for registry in (first, second):
        await world.read(registry)
        await world.settle()
        world.clock.advance(61)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(world.another().open(holder(first), Whole()))
        assert await world.read(third) == third.data
        await world.settle()
        assert set(world.files()) == {first.digest.hex, third.digest.hex}
        await stack.enter_async_context(world.spool.open(holder(third), Whole()))
        assert await world.read(second) == second.data
        await world.settle()

    assert set(world.files()) == {first.digest.hex, third.digest.hex}
    assert world.count("blobs_streamed", reason="room") == 1


@pytest.mark.parametrize("announced", [True, False])
async def test_what_is_larger_than_all_is_streamed(world: World, announced: bool) -> None:
    """A blob that can never be kept is streamed, as soon as that is known; the next time at once."""
    world.limit = 2_000_000
    world.spool = world.another()
    registry = Registry(announced=announced)

    assert await world.read(registry) == DATA
    assert registry.opened == [Whole(), Whole()]
    assert await world.read(registry, ByteRange(5, 9)) == DATA[5:10]
    assert registry.opened == [Whole(), Whole(), ByteRange(5, 9)]
    assert world.files() == []
    assert world.count("blobs_streamed", reason="size") == 2


def fails(call: Callable[..., object], after: int, code: int = errno.ENOSPC) -> Callable[..., object]:
    """Let *call* fail from the call behind the first *after* ones."""
    left = [after]

    def failing(*arguments: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code))
        return call(*arguments)

    return failing


@pytest.mark.parametrize(
    ("function", "after", "transfers"),
    [("writev", 0, 6), ("writev", 1, 6), ("fsync", 0, 1)],
)
async def test_a_disk_that_fails_costs_nobody_a_byte(
    world: World, monkeypatch: pytest.MonkeyPatch, function: str, after: int, transfers: int
) -> None:
    """Who follows a transfer that can't be kept any more goes on with one of their own; one warning says so."""
    registry = Registry()
    registry.allowed = 1_500_000
    monkeypatch.setattr(os, function, fails(getattr(os, function), after))
    with capture_logs() as logs:
        reading = [asyncio.create_task(world.read(registry)) for _ in range(4)]
        reading.append(asyncio.create_task(world.read(registry, ByteRange(2_000_000))))
        await until(lambda: world.waiting == 5 or registry.transfers == transfers)
        registry.allowed = 1 << 40
        answers = await asyncio.gather(*reading)
        await world.settle()

    assert answers == [DATA] * 4 + [DATA[2_000_000:]]
    assert world.files() == []
    assert registry.transfers <= transfers
    assert [log["event"] for log in logs] == ["blob cache unusable, streaming"]


async def test_a_disk_that_cannot_be_read_costs_nobody_a_byte(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes late, and needs what is written already, goes on without it; so does everybody else."""
    registry = Registry()
    registry.allowed = 1_500_000
    monkeypatch.setattr(os, "pread", fails(os.pread, 0, errno.EIO))
    first = asyncio.create_task(world.read(registry))
    await until(lambda: any(fill._written for fill in world.spool._fills.values()))
    late = asyncio.create_task(world.read(registry))
    await until(lambda: registry.transfers >= 2)
    registry.allowed = 1 << 40

    assert [await first, await late] == [DATA, DATA]
    await world.settle()
    assert world.files() == []


async def test_a_disk_that_failed_is_left_alone_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """New blobs are streamed without trying, what is kept is served, and later it is tried again."""
    kept, other, third = Registry(b"kept"), Registry(), Registry(b"third")
    await world.read(kept)
    await world.settle()
    with monkeypatch.context() as broken:
        broken.setattr(os, "writev", fails(os.writev, 0))
        await world.read(other)
        await world.settle()

    assert await world.read(third, ByteRange(1, 2)) == b"hi"
    assert await world.read(kept) == b"kept"
    assert third.opened == [ByteRange(1, 2)]
    assert kept.opened == [Whole()]
    world.clock.advance(31)
    await world.read(third)
    await world.settle()
    assert set(world.files()) == {kept.digest.hex, third.digest.hex}


async def test_a_disk_that_is_too_full_is_seen_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is made on the disk, too; where it can't be, the blob is streamed, and what is kept stays."""
    first, second = Registry(b"1" * 100_000), Registry(b"2" * 200_000)
    await world.read(first)
    await world.settle()
    monkeypatch.setattr(shelves, "_free", lambda folder: 99_999)
    assert await world.read(second) == second.data
    await world.settle()
    assert world.files() == [first.digest.hex]
    monkeypatch.setattr(shelves, "_free", lambda folder: 100_000)
    await world.read(second)
    await world.settle()

    assert world.files() == [second.digest.hex]


async def test_two_processes_fetch_the_same_blob(world: World) -> None:
    """Each follows a transfer of its own, both are right, and one file is kept."""
    registry = Registry()
    registry.allowed = 1
    other = world.another()
    reading = [asyncio.create_task(world.read(registry, spool=spool)) for spool in (world.spool, other) * 5]
    await until(lambda: registry.transfers == 2)
    registry.allowed = 1 << 40

    answers = await asyncio.gather(*reading)
    await until(lambda: not other._tasks)
    await world.settle()

    assert answers == [DATA] * 10
    assert registry.transfers == 2
    assert world.files() == [registry.digest.hex]


async def test_stopping_in_the_middle(world: World) -> None:
    """A spool that is closed gives up what is under way: its clients are broken off, its files are gone."""
    registry = Registry()
    registry.allowed = 1_500_000
    reading = asyncio.create_task(world.read(registry))
    await until(lambda: len(world.files("tmp")) == 1)

    await world.spool.close()

    with pytest.raises(Unreachable):
        await reading
    assert world.files() == world.files("tmp") == []


async def test_a_file_that_was_cut_ends_no_blob(world: World) -> None:
    """Who reads a kept blob that has become shorter is broken off."""
    registry = Registry()
    await world.read(registry)
    await world.settle()

    async with world.spool.open(holder(registry), Whole()) as blob:
        os.truncate(world.root / "blobs" / "sha256" / registry.digest.hex, 500)
        with pytest.raises(NoAnswer):
            [chunk async for chunk in blob.chunks]


async def test_a_folder_that_was_removed_is_made_again(world: World) -> None:
    """Somebody may delete the whole cache while it is used."""
    shutil.rmtree(world.root)
    registry = Registry()

    assert await world.read(registry) == DATA
    await world.settle()

    assert world.files() == [registry.digest.hex]


async def test_a_folder_that_is_removed_meanwhile_is_its_owners_again(world: World) -> None:
    """Somebody deletes the whole cache while a blob is on its way; what comes next isn't for every user to read."""
    registry = Registry()
    registry.allowed = 1_500_000
    reading = asyncio.create_task(world.read(registry))
    await until(lambda: len(world.files("tmp")) == 1)
    shutil.rmtree(world.root)
    registry.allowed = 1 << 40

    assert await reading == DATA
    await world.settle()

    assert not world.root.stat().st_mode & 0o077


def kept_file(world: World, registry: Registry) -> Path:
    """Return where the registry's blob is kept."""
    return world.root / "blobs" / "sha256" / registry.digest.hex


async def checked(spool: Spool) -> None:
    """Wait until nothing kept is to be looked at any more."""
    await until(lambda: spool._checks.is_idle)


async def test_a_damaged_blob_heals(world: World) -> None:
    """It is served once at most by a process that hasn't kept it itself, and noticed then: the next one is right."""
    registry = Registry()
    await world.read(registry)
    await world.settle()
    kept_file(world, registry).write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    restarted = world.another()

    with capture_logs() as logs:
        assert await world.read(registry, spool=restarted) != DATA
        await checked(restarted)
    assert [(log["event"], log["digest"]) for log in logs] == [("corrupt file discarded", registry.digest)]
    assert world.files() == []
    assert await world.read(registry, spool=restarted) == DATA
    await until(lambda: not restarted._tasks)

    assert registry.transfers == 2
    assert kept_file(world, registry).read_bytes() == DATA


async def test_a_blob_that_cant_be_read_heals(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sector that is gone is damage, too."""
    registry = Registry()
    await world.read(registry)
    await world.settle()
    restarted = world.another()
    with monkeypatch.context() as broken:
        broken.setattr(os, "pread", fails(os.pread, 0, errno.EIO))
        with pytest.raises(Unreachable):
            await world.read(registry, spool=restarted)
        await checked(restarted)

    assert await world.read(registry, spool=restarted) == DATA
    await until(lambda: not restarted._tasks)


async def test_a_blob_of_another_size_is_not_served(world: World) -> None:
    """Where its size was seen, a file that has another one isn't the blob, and no client has to find that out."""
    registry = Registry()
    await world.read(registry)
    await world.settle()
    os.truncate(kept_file(world, registry), 1_000)

    with capture_logs() as logs:
        assert await world.read(registry) == DATA
        await world.settle()

    assert [log["event"] for log in logs] == ["corrupt file discarded"]
    assert kept_file(world, registry).read_bytes() == DATA


async def test_a_kept_blob_is_looked_at_once_a_day(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what has just been written, not at each use, and one at a time."""
    looked: list[Digest] = []
    at_once = [0, 0]
    check = Shelf.check

    async def checking(shelf: Shelf, digest: Digest) -> None:
        looked.append(digest)
        at_once[0] += 1
        at_once[1] = max(at_once)
        await check(shelf, digest)
        at_once[0] -= 1

    monkeypatch.setattr(Shelf, "check", checking)
    registries = [Registry(bytes([n]) * 100_000) for n in range(5)]
    restarted = world.another()

    async def use(spool: Spool) -> None:
        await asyncio.gather(*(world.read(registry, spool=spool) for registry in registries * 3))
        await world.settle()
        await checked(spool)

    await use(world.spool)
    await use(world.spool)
    assert looked == []
    await use(restarted)
    world.clock.advance(120)
    await use(restarted)
    assert sorted(looked) == sorted(registry.digest for registry in registries)
    world.clock.advance(86_401)
    await use(restarted)

    assert sorted(looked) == sorted(registry.digest for registry in registries * 2)
    assert at_once == [0, 1]


async def test_what_was_written_anew_meanwhile_is_not_discarded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have noticed first, and have fetched it again."""
    registry = Registry()
    await world.read(registry)
    await world.settle()
    path = kept_file(world, registry)
    path.write_bytes(b"damaged")
    pread = os.pread

    def slow(descriptor: int, length: int, position: int) -> bytes:
        new = world.root / "new"
        if not new.exists():
            new.write_bytes(DATA)
            path.unlink()
            path.hardlink_to(new)
        return pread(descriptor, length, position)

    restarted = world.another()
    monkeypatch.setattr(os, "pread", slow)
    async with restarted.open(holder(registry), Nothing()):
        await checked(restarted)

    assert path.read_bytes() == DATA


async def test_stopping_while_a_blob_is_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the rest of it."""
    registry = Registry()
    await world.read(registry)
    await world.settle()
    restarted = world.another()
    reads, stopped = [], threading.Event()
    pread = os.pread

    def noted(descriptor: int, length: int, position: int) -> bytes:
        reads.append(position)
        stopped.wait(HANGING)
        return pread(descriptor, length, position)

    monkeypatch.setattr(os, "pread", noted)
    async with restarted.open(holder(registry), Nothing()):
        await until(lambda: reads != [])
        await restarted.close()
    stopped.set()

    assert restarted._checks.is_idle
    assert reads == [0]


async def test_a_damaged_blob_that_cant_be_deleted_is_not_served(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that has become read-only: it is streamed, and one warning says why."""
    registry = Registry()
    await world.read(registry)
    await world.settle()
    kept_file(world, registry).write_bytes(b"damaged")
    restarted = world.another()
    unlink = Path.unlink

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        if path == kept_file(world, registry):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlinked)
    with capture_logs() as logs:
        await world.read(registry, spool=restarted)
        await checked(restarted)
        assert [await world.read(registry, spool=restarted) for _ in range(2)] == [DATA, DATA]
        await until(lambda: not restarted._tasks)

    assert [log["event"] for log in logs] == ["cache folder unusable, going on without"]


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the kept blobs were listed: as many entries."""
    made: list[int] = []
    files = Shelf._files

    def listed(shelf: Shelf) -> Iterator[tuple[float, int, str]]:
        made.append(1)
        return files(shelf)

    monkeypatch.setattr(Shelf, "_files", listed)
    return made


async def test_what_is_kept_is_not_listed_for_each_new_blob(world: World, listings: list[int]) -> None:
    """A hundred thousand files take a while; as long as there is room, what is known of them will do."""
    for n in range(10):
        await world.read(Registry(bytes([n]) * 1_000))
        await world.settle()

    assert len(listings) == 1
    assert world.metrics.blob_cache_bytes._value.get() == 10_000


async def test_a_full_shelf_is_listed_once_for_many_new_blobs(world: World, listings: list[int]) -> None:
    """Where room has to be made, it is made for some more."""
    world.limit = 200_000
    world.spool = world.another()
    for n in range(250):
        await world.read(Registry(n.to_bytes(2) * 500))
        await world.settle()
        assert sum(path.stat().st_size for path in (world.root / "blobs").rglob("*") if path.is_file()) <= world.limit
        world.clock.advance(0.01)

    assert len(listings) <= 1 + 50 / 3 + 1
    assert len(world.files()) > 190


async def test_what_others_keep_counts_a_moment_later(world: World) -> None:
    """Several processes share a folder: what another one has put there is seen when it is listed again."""
    world.limit = 10_000
    world.spool, other = world.another(), world.another()
    await world.read(Registry(b"a" * 1_000))
    await world.settle()
    for n in range(8):
        await world.read(Registry(bytes([n]) * 1_000), spool=other)
        await until(lambda: not other._tasks)
    world.clock.advance(11)
    for n in range(100, 105):
        await world.read(Registry(bytes([n]) * 1_000))
        await world.settle()

    assert len(world.files()) <= 10


async def test_what_another_process_puts_in_a_damaged_ones_place_is_served(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file may have the number that the damaged one had: file systems give them out again."""
    registry = Registry()
    await world.read(registry)
    await world.settle()
    path = kept_file(world, registry)
    path.write_bytes(b"damaged")
    number = path.stat().st_ino
    restarted, other = world.another(), world.another()
    await world.read(registry, spool=restarted)
    await checked(restarted)
    await world.read(registry, spool=other)
    await until(lambda: not other._tasks)
    fstat = os.fstat

    def numbered(descriptor: int) -> os.stat_result:
        status = list(fstat(descriptor))
        status[1] = number
        return os.stat_result(status)

    monkeypatch.setattr(os, "fstat", numbered)
    with capture_logs() as logs:
        assert await world.read(registry, spool=restarted) == DATA
        await checked(restarted)

    assert (registry.transfers, logs) == (2, [])
