"""Files that change while somebody goes by what they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from conftest import Clock
from proxy.watched import Watched


def number(content: bytes) -> int:
    """Read a number; half of one is none."""
    if not content.endswith(b"."):
        raise ValueError("it has no end")
    return int(content[:-1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that says 1."""
    path = tmp_path / "number"
    path.write_bytes(b"1.")
    return path


def test_a_change_counts_within_a_second(path: Path, clock: Clock) -> None:
    """The file is looked at once a second at most."""
    watched = Watched(path, number, clock)
    path.write_bytes(b"22.")

    clock.advance(0.9)
    assert watched.content == 1
    clock.advance(0.2)
    assert watched.content == 22


def test_a_file_that_has_not_changed_is_not_read(path: Path, clock: Clock) -> None:
    """A look costs one stat."""
    read: list[bytes] = []
    watched = Watched(path, lambda content: read.append(content) or len(read), clock)  # type: ignore[func-returns-value]  # append's None

    for _ in range(5):
        clock.advance(2)
        assert watched.content == 1


def test_another_file_of_the_same_size_and_time_counts(path: Path, clock: Clock) -> None:
    """A file that was put in its place is another, whatever its time says."""
    watched = Watched(path, number, clock)
    found = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(b"2.")
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(path)
    clock.advance(2)

    assert watched.content == 2


def test_a_secret_of_kubernetes_changes_by_its_links(tmp_path: Path, clock: Clock) -> None:
    """The name leads to `..data/password`, and `..data` to a folder with a time in its name; that one is replaced."""
    for version, content in (("..2026_01", b"1."), ("..2026_02", b"2.")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "password").write_bytes(content)
    data, path = tmp_path / "..data", tmp_path / "password"
    data.symlink_to("..2026_01")
    path.symlink_to("..data/password")
    watched = Watched(path, number, clock)
    swapped = tmp_path / "..data_tmp"
    swapped.symlink_to("..2026_02")
    swapped.rename(data)
    clock.advance(2)

    assert watched.content == 2


@pytest.mark.parametrize("broken", [b"3", None], ids=["half written", "gone"])
def test_a_file_that_can_not_be_used_leaves_what_it_said(path: Path, clock: Clock, broken: bytes | None) -> None:
    """It is told of once, without what stands in it, until it is well again."""
    watched = Watched(path, number, clock)
    with capture_logs() as logs:
        for content in (broken, b"4."):
            path.unlink() if content is None else path.write_bytes(content)
            for _ in range(3):
                clock.advance(2)
                said = watched.content
            assert said == (4 if content == b"4." else 1)
        path.write_bytes(b"5")
        clock.advance(2)
        assert watched.content == 4

    assert [each["file"] for each in logs] == [str(path)] * 2
    assert logs[0]["reason"] == ("No such file or directory" if broken is None else "it has no end")


def test_a_file_that_comes_back_as_it_was_is_well_again(path: Path, clock: Clock) -> None:
    """Moved away and back it has the same identity, and counts, and its next absence is told of again."""
    watched = Watched(path, number, clock)
    with capture_logs() as logs:
        for _ in range(2):
            path.rename(path.with_suffix(".away"))
            clock.advance(2)
            assert watched.content == 1
            path.with_suffix(".away").rename(path)
            clock.advance(2)
            assert watched.content == 1

    assert len(logs) == 2


@pytest.mark.parametrize(("content", "error"), [(None, FileNotFoundError), (b"x", ValueError)])
def test_at_the_start_it_has_to_be_there(
    tmp_path: Path, clock: Clock, content: bytes | None, error: type[Exception]
) -> None:
    """What was never known can't go on."""
    path = tmp_path / "number"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(error):
        Watched(path, number, clock)


def test_a_file_that_need_not_be_there_counts_when_it_comes(tmp_path: Path, clock: Clock) -> None:
    """Its absence is nothing to tell of; a broken one is."""
    path = tmp_path / "number"
    watched = Watched(path, number, clock, absent=0)
    with capture_logs() as logs:
        clock.advance(2)
        assert watched.content == 0
        assert logs == []
        for content, said in ((b"x", 0), (b"7.", 7)):
            path.write_bytes(content)
            clock.advance(2)
            assert watched.content == said

    assert len(logs) == 1
