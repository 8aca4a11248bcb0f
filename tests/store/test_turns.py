"""One question at a time among processes."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from patience import HANGING
from proxy.store.disk import Folder
from proxy.store.turns import FileTurns


def turns(folder: Path) -> FileTurns:
    """Return turns as another process sees them: locks belong to an open file."""
    prepared = Folder(folder)
    prepared.prepare()
    return FileTurns(prepared)


async def test_one_has_its_turn_and_the_others_wait(tmp_path: Path) -> None:
    """Nobody is inside together with another, and who had to wait knows it."""
    inside, most, waited = 0, 0, list[bool]()

    async def ask() -> None:
        nonlocal inside, most
        async with turns(tmp_path).turn("team/app:1.0") as had_to_wait:
            waited.append(had_to_wait)
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(ask() for _ in range(5)))

    assert most == 1
    assert sorted(waited) == [False, True, True, True, True]


async def test_other_keys_are_free(tmp_path: Path) -> None:
    """Two tags are asked for at the same time."""
    async with turns(tmp_path).turn("team/app:1.0"), turns(tmp_path).turn("team/app:2.0") as waited:
        assert not waited


async def test_what_takes_long_holds_up_nothing_else(tmp_path: Path) -> None:
    """A tag whose registry doesn't answer costs no other tag its time, however many of them are asked for."""
    sick, others = turns(tmp_path), turns(tmp_path)
    async with sick.turn("team/app:1.0"), asyncio.timeout(HANGING):
        for number in range(5000):
            async with others.turn(f"team/app:1.0.{number}") as waited:
                assert not waited


async def test_a_turn_ends_with_an_error(tmp_path: Path) -> None:
    """Whoever fails leaves the turn to the next."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), turns(tmp_path).turn("key"):
            await asyncio.sleep(10)
    async with turns(tmp_path).turn("key") as waited:
        assert not waited


async def test_a_folder_that_cant_be_used_makes_nobody_wait(tmp_path: Path) -> None:
    """A full or read-only disk costs an upstream request, never an answer."""
    (tmp_path / "file").touch()
    one, other = (FileTurns(Folder(tmp_path / "file" / "cache")) for _ in range(2))
    async with one.turn("key"), other.turn("key") as waited:
        assert not waited


async def test_a_folder_that_was_cleared_away_is_made_again(tmp_path: Path) -> None:
    """As operators do with caches, also while they are used: from the next question on all is as before."""
    one, other = turns(tmp_path / "cache"), turns(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    waiting = asyncio.Event()

    async def wait() -> bool:
        waiting.set()
        async with other.turn("key") as waited:
            return waited

    async with one.turn("key"):
        second = asyncio.create_task(wait())
        await waiting.wait()
        await asyncio.sleep(0)

    assert await second


async def test_a_file_system_without_locks_makes_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As network volumes may be: each process asks for itself then."""

    def unlocked(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    one, other = turns(tmp_path), turns(tmp_path)
    for call in ("flock", "fcntl"):
        monkeypatch.setattr(fcntl, call, unlocked)
    async with one.turn("key"), other.turn("key") as waited:
        assert not waited
