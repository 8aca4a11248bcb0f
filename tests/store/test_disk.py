"""Remembering on disk."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from conftest import Clock
from proxy.oci.reference import Digest, Repository, Tag
from proxy.store.base import Virtual
from proxy.store.disk import DiskContent, DiskMetadata, Folder
from store.conformance import (
    DATA,
    DIGEST,
    HERE,
    SHA512,
    URLS,
    V1,
    ContentConformance,
    MetadataConformance,
    a_location,
    an_entry,
    what_was_learned,
)

LONGEST = Repository("/".join(["a" * 127, "b" * 127]))


@pytest.fixture
def unusable(tmp_path: Path) -> Folder:
    """A cache folder that can be neither made nor read, by root either: it would be below a file."""
    (tmp_path / "file").touch()
    return Folder(tmp_path / "file" / "cache")


@pytest.fixture
def content(folder: Folder) -> DiskContent:
    """Content on disk."""
    return DiskContent(folder)


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    """What only some clients may read isn't for every user of the machine; a folder that is there keeps its rights."""
    before = os.umask(0o022)
    try:
        Folder(tmp_path / "new" / "cache").prepare()
        shared = tmp_path / "shared"
        shared.mkdir(mode=0o755)
        Folder(shared).prepare()
    finally:
        os.umask(before)

    assert (tmp_path / "new" / "cache").stat().st_mode & 0o777 == 0o700
    assert shared.stat().st_mode & 0o777 == 0o755


@pytest.fixture
def metadata(folder: Folder) -> DiskMetadata:
    """Metadata on disk."""
    return DiskMetadata(folder, URLS)


def files(folder: Folder) -> list[str]:
    """Return the paths of all files in *folder*."""
    return sorted(str(path.relative_to(folder.root)) for path in folder.root.rglob("*") if path.is_file())


def blob(folder: Folder, digest: Digest = DIGEST) -> Path:
    """Return where the content of *digest* is."""
    return folder.root / "content/blobs" / digest.algorithm / digest.hex


@contextmanager
def full_disk() -> Iterator[None]:
    """Let the system refuse to write more than ten bytes into any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestContent(ContentConformance):
    """Disk is a content store."""


class TestMetadata(MetadataConformance):
    """Disk is a metadata store."""


async def test_content_is_laid_out_as_an_image_layout(folder: Folder, content: DiskContent) -> None:
    """Content lies where an OCI image layout has its blobs, one file for each digest, byte for byte."""
    await content.put(DIGEST, DATA)
    await content.put(SHA512, b"")

    assert files(folder) == [f"content/blobs/sha256/{DIGEST.hex}", f"content/blobs/sha512/{SHA512.hex}"]
    assert blob(folder).read_bytes() == DATA


async def test_a_restart_forgets_nothing(folder: Folder, content: DiskContent, metadata: DiskMetadata) -> None:
    """What was kept is there for the next process."""
    await content.put(DIGEST, DATA)
    await metadata.keep_entry(HERE, V1, an_entry())
    await metadata.keep_location(HERE, DIGEST, a_location())
    await metadata.keep_learned(HERE, what_was_learned())
    again = Folder(folder.root)
    again.prepare()
    kept = DiskMetadata(again, URLS)

    assert await DiskContent(again).get(DIGEST) == DATA
    assert await kept.entry(HERE, V1) == an_entry()
    assert await kept.location(HERE, DIGEST) == a_location()
    assert await kept.learned(HERE) == what_was_learned()


async def test_a_location_brings_the_index_that_it_is_of(metadata: DiskMetadata) -> None:
    """An index of our own comes back with its location, unless it isn't what the digest says."""
    own = replace(a_location(""), body=DATA)
    await metadata.keep_location(HERE, DIGEST, own)
    await metadata.keep_location(HERE, Digest.of(b"other"), own)

    assert await metadata.location(HERE, DIGEST) == own
    assert await metadata.location(HERE, Digest.of(b"other")) is None


@pytest.mark.parametrize("found", [DATA[:-1], b"", b"?" + DATA[1:], DATA + b"\n", b"<html>"])
async def test_a_corrupt_file_is_discarded(folder: Folder, content: DiskContent, found: bytes) -> None:
    """A file that doesn't hash to its name counts as absent, is removed, and may be put again."""
    await content.put(DIGEST, DATA)
    blob(folder).write_bytes(found)
    with capture_logs() as logs:
        absent = await content.get(DIGEST)

    assert absent is None
    assert not blob(folder).exists()
    assert [log["event"] for log in logs] == ["corrupt file discarded"]
    await content.put(DIGEST, DATA)
    assert await content.get(DIGEST) == DATA


@pytest.mark.parametrize("found", [b"", b"{", b"[]", b"null", b'{"descriptor": {}}', b"\xff\xfe"])
async def test_an_unreadable_record_is_absent(folder: Folder, metadata: DiskMetadata, found: bytes) -> None:
    """A record that isn't one counts as not kept, and the next one replaces it."""
    await metadata.keep_entry(HERE, V1, an_entry())
    (path,) = files(folder)
    (folder.root / path).write_bytes(found)

    assert await metadata.entry(HERE, V1) is None
    await metadata.keep_entry(HERE, V1, an_entry("two"))
    assert await metadata.entry(HERE, V1) == an_entry("two")


async def test_half_written_files_are_nobody_s_answer(folder: Folder, content: DiskContent) -> None:
    """What a killed process left is never read, and gone after the next start."""
    killed = f"tmp/{os.getpid()}-0123"  # a process of another start, whose number may be anybody's now
    (folder.root / f"{killed}-0").write_bytes(DATA[:5])
    (folder.root / f"{killed}-1").write_bytes(DATA)

    assert await content.get(DIGEST) is None
    folder.sweep()
    assert files(folder) == []


def test_only_what_nobody_writes_is_cleared_away(folder: Folder) -> None:
    """A file being written stays, ours or a living process'; a killed one's goes, though we have its number now."""
    ours = folder.scratch()
    theirs = folder.root / f"tmp/{os.getppid()}-0123-4567"
    for path in (ours, theirs, folder.root / f"tmp/{os.getpid()}-0123-4567"):
        path.touch()
    folder.sweep()

    assert sorted((folder.root / "tmp").iterdir()) == sorted([ours, theirs])


def test_what_is_being_filled_elsewhere_is_not_cleared_away(folder: Folder) -> None:
    """Two containers that share a folder have the same process ids, and see nothing of each other's processes."""
    filled = folder.root / f"tmp/{os.getpid()}-0123-4567"
    with filled.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        folder.sweep()
        was_there = filled.exists()
    folder.sweep()

    assert was_there
    assert not filled.exists()


def test_a_process_that_was_given_the_number_of_a_killed_one_keeps_nothing(folder: Folder) -> None:
    """A scratch file is written for minutes at most, so one that is older than an hour isn't written any more."""
    old, new = (folder.root / f"tmp/{os.getppid()}-0123-{number}" for number in range(2))
    for path, age in ((old, 3601.0), (new, 3000.0)):
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    folder.sweep()

    assert list((folder.root / "tmp").iterdir()) == [new]


def test_what_can_t_be_cleared_away_keeps_nothing_else(folder: Folder) -> None:
    """Whatever somebody has put there."""
    for number in range(3):
        (folder.root / f"tmp/{number}").mkdir()
        (folder.root / f"tmp/{os.getpid()}-0123-{number}").touch()
    folder.sweep()

    assert all(path.is_dir() for path in (folder.root / "tmp").iterdir())


async def test_a_kill_in_the_middle_leaves_the_old_one(folder: Folder, metadata: DiskMetadata) -> None:
    """A process that dies before the rename leaves the entry as it was."""
    await metadata.keep_entry(HERE, V1, an_entry("old"))
    (folder.root / "tmp/89ab").write_bytes(b'{"descriptor":')
    folder.prepare()

    assert await metadata.entry(HERE, V1) == an_entry("old")


def test_preparing_twice_is_preparing_once(folder: Folder) -> None:
    """Several workers may prepare the same folder."""
    folder.prepare()
    Folder(folder.root).prepare()

    assert sorted(path.name for path in folder.root.iterdir()) == ["locks", "tmp"]


def test_a_folder_that_can_not_be_made_is_an_error(unusable: Folder) -> None:
    """Preparing says at the start that there is no disk to use."""
    with pytest.raises(OSError, match="Not a directory"):
        unusable.prepare()


async def test_writing_leaves_no_scratch_behind(folder: Folder, content: DiskContent, metadata: DiskMetadata) -> None:
    """After a write there is the file and nothing else."""
    await content.put(DIGEST, DATA)
    await metadata.keep_learned(HERE, what_was_learned())

    assert not [path for path in files(folder) if path.startswith("tmp/")]
    assert len(files(folder)) == 2


async def test_what_is_written_at_once_is_synced_before_any_of_it_has_its_name(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads a tag's entry after a power cut finds what it names: contents and order are on disk by then."""
    events: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        sync(descriptor)
        events.append("synced")

    def renamed(self: Path, target: Path) -> Path:
        events.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    (folder.root / "a").mkdir(parents=True)
    await asyncio.gather(*(folder.write(f"a/{name}", name.encode()) for name in ("first", "second", "third")))

    assert events == ["synced", "synced", "synced", "first", "second", "third"]
    assert [await folder.read(f"a/{name}") for name in ("first", "second", "third")] == [b"first", b"second", b"third"]


async def test_one_that_can_not_be_written_costs_no_other(folder: Folder) -> None:
    """Of several that are written at once each has its own success."""
    (folder.root / "a/second").mkdir(parents=True)

    await asyncio.gather(*(folder.write(f"a/{name}", name.encode()) for name in ("first", "second", "third")))

    assert [await folder.read(f"a/{name}") for name in ("first", "third")] == [b"first", b"third"]
    assert list((folder.root / "tmp").iterdir()) == []


async def test_a_caller_that_leaves_stops_no_other(folder: Folder) -> None:
    """Its file is written all the same."""
    first, second = (asyncio.create_task(folder.write(f"a/{name}", b"data")) for name in ("first", "second"))
    await asyncio.sleep(0)
    first.cancel()
    await second

    assert await folder.read("a/first") == b"data"


async def test_an_unusable_folder_costs_the_memory_alone(unusable: Folder) -> None:
    """Where nothing can be kept, nothing is found, nothing raises, and one warning says so."""
    content, metadata = DiskContent(unusable), DiskMetadata(unusable, URLS)
    with capture_logs() as logs:
        for _ in range(3):
            await content.put(DIGEST, DATA)
            await metadata.keep_entry(HERE, V1, an_entry())
            await metadata.drop_entry(HERE, V1)
            assert await content.get(DIGEST) is None
            assert await metadata.entry(HERE, V1) is None

    assert [log["event"] for log in logs] == ["cache folder unusable, going on without"]
    assert str(unusable.root) in str(logs)


async def test_a_full_disk_costs_the_memory_alone(folder: Folder, content: DiskContent, metadata: DiskMetadata) -> None:
    """What no longer fits isn't kept, what was kept stays, nothing is left half written."""
    await content.put(DIGEST, DATA)
    await metadata.keep_entry(HERE, V1, an_entry("old"))
    before = files(folder)
    with full_disk(), capture_logs() as logs:
        await content.put(Digest.of(b"x" * 100), b"x" * 100)
        await metadata.keep_entry(HERE, V1, an_entry("new"))

    assert [log["event"] for log in logs] == ["cache folder unusable, going on without"]
    assert files(folder) == before
    assert await content.get(DIGEST) == DATA
    assert await metadata.entry(HERE, V1) == an_entry("old")


async def test_a_disk_that_recovers_is_used_again(tmp_path: Path, clock: Clock) -> None:
    """Once writing works again it is done; when that has lasted a while, the next trouble is warned of anew."""
    content = DiskContent(Folder(tmp_path / "cache", clock))
    with capture_logs() as logs:
        with full_disk():
            await content.put(DIGEST, DATA)
        clock.advance(601)
        await content.put(DIGEST, DATA)
        with full_disk():
            await content.put(Digest.of(b"x" * 100), b"x" * 100)

    assert await content.get(DIGEST) == DATA
    assert len(logs) == 2


async def test_a_disk_that_takes_one_file_and_not_the_next_is_warned_of_once(tmp_path: Path, clock: Clock) -> None:
    """A full disk has room now and then: one write that goes well is not the end of the trouble."""
    content = DiskContent(Folder(tmp_path / "cache", clock))
    with capture_logs() as logs:
        for n in range(100):
            with full_disk():
                await content.put(Digest.of(b"x" * (100 + n)), b"x" * (100 + n))
            clock.advance(61)
            await content.put(DIGEST, DATA)

    assert [log["event"] for log in logs] == ["cache folder unusable, going on without"]


async def test_something_else_in_a_file_s_place_costs_that_file(folder: Folder, content: DiskContent) -> None:
    """A folder where a file should be is no answer, and others are not touched by it."""
    blob(folder).mkdir(parents=True)
    (blob(folder) / "x").touch()
    other = Digest.of(b"other")
    with capture_logs() as logs:
        await content.put(DIGEST, DATA)
        assert await content.get(DIGEST) is None
        await content.put(other, b"other")

    assert await content.get(other) == b"other"
    assert len(logs) == 1


async def test_an_emptied_folder_is_filled_again(folder: Folder, content: DiskContent) -> None:
    """Who empties the cache folder while it is used loses what was in it, no more."""
    await content.put(DIGEST, DATA)
    shutil.rmtree(folder.root)

    assert await content.get(DIGEST) is None
    await content.put(DIGEST, DATA)
    assert await content.get(DIGEST) == DATA
    assert not folder.root.stat().st_mode & 0o077  # its owner's alone, as it was


async def test_records_belong_to_the_url_not_to_the_name(folder: Folder, metadata: DiskMetadata) -> None:
    """A registry that took another's name doesn't get its answers; one that was renamed keeps its own."""
    await metadata.keep_entry(HERE, V1, an_entry())
    taken = DiskMetadata(folder, {"hub": "https://registry.example.com"})
    renamed = DiskMetadata(folder, {"docker": URLS["hub"]})

    assert await taken.entry(HERE, V1) is None
    assert await renamed.entry(Virtual("docker", HERE.repository), V1) == an_entry()


async def test_a_path_of_the_url_is_no_part_of_the_name(folder: Folder) -> None:
    """`/a` at a registry and `a/` in a repository's name are different places."""
    metadata = DiskMetadata(folder, {"root": "https://example.com", "below": "https://example.com/a"})
    await metadata.keep_learned(Virtual("root", Repository("a/b")), what_was_learned())

    assert await metadata.learned(Virtual("below", Repository("b"))) is None


async def test_names_are_no_paths(folder: Folder, metadata: DiskMetadata) -> None:
    """The longest names fit every file system, and those that differ only in case are apart."""
    virtual, tag = Virtual("hub", LONGEST), Tag("T" * 128)
    await metadata.keep_entry(virtual, tag, an_entry())
    await metadata.keep_entry(virtual, Tag("t" * 128), an_entry("lower case"))

    assert await metadata.entry(virtual, tag) == an_entry()
    assert all(len(Path(path).name) == 64 + len(".json") for path in files(folder))


async def test_the_digest_of_a_file_is_its_name(folder: Folder, content: DiskContent) -> None:
    """Any tool can check the content folder: `sha256sum` of a file is what it is called."""
    await content.put(DIGEST, DATA)

    assert hashlib.sha256(blob(folder).read_bytes()).hexdigest() == blob(folder).name


async def test_files_that_nobody_waits_for_any_more(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that writes many files to a slow disk ends behind the present one, and leaves nothing half written."""
    fsync, synced = os.fsync, []

    def slow(descriptor: int) -> None:
        synced.append(descriptor)
        folder.abandon()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    with capture_logs() as logs:
        await asyncio.gather(*(folder.write(f"a/{n}", b"data") for n in range(5)))

    assert len(synced) == 1
    assert files(folder) == []
    assert logs == []
