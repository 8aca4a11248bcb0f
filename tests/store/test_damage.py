"""Kept blobs that are no longer what they were: who notices, and what is served instead."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from conftest import until
from patience import HANGING
from proxy.oci.byterange import Nothing, Whole
from proxy.oci.errors import NoAnswer, Unreachable
from proxy.oci.reference import Digest
from proxy.store.shelf import Shelf
from proxy.store.spool import Spool
from store.spooled import DATA, Registry, World, checked, fails, holder, kept_file


async def test_a_folder_in_a_blobs_place_is_no_blob(world: World) -> None:
    """It is streamed then, instead of being cut off."""
    registry = Registry()
    (world.root / "blobs" / "sha256" / registry.digest.hex).mkdir(parents=True)

    assert [await world.read(registry) for _ in range(2)] == [registry.data] * 2


async def test_a_file_that_was_cut_ends_no_blob(world: World) -> None:
    """Who reads a kept blob that has become shorter is broken off."""
    registry = Registry()
    await world.read(registry)
    await world.settle()

    async with world.spool.open(holder(registry), Whole()) as blob:
        os.truncate(world.root / "blobs" / "sha256" / registry.digest.hex, 500)
        with pytest.raises(NoAnswer):
            [chunk async for chunk in blob.chunks]


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
