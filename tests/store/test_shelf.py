"""Where blobs are kept: room is made for new ones, and a disk that fails costs nobody a byte."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from conftest import until
from proxy.oci.byterange import ByteRange, Whole
from proxy.store import shelf as shelves
from proxy.store.shelf import Shelf
from store.spooled import DATA, Registry, World, fails, holder


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


async def test_a_folder_that_was_removed_is_made_again(world: World) -> None:
    """Somebody may delete the whole cache while it is used."""
    shutil.rmtree(world.root)
    registry = Registry()

    assert await world.read(registry) == DATA
    await world.settle()

    assert world.files() == [registry.digest.hex]


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
