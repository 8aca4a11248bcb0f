"""Store tests: what the conformance classes assert is explained like any other assertion, and a cache folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import until
from proxy.store.disk import Folder
from store.spooled import World

pytest.register_assert_rewrite("store.conformance")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A cache folder."""
    folder = Folder(tmp_path / "cache")
    folder.prepare()
    return folder


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
