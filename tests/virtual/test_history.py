"""Digests that were given out, through the whole service: for as long as they are used, over restarts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from conftest import Answer, Clock, Proxy, StartProxy, settled, until
from images import ARM, V1, VIRTUAL, X86, push, push_index, push_pair
from proxy.oci.reference import Digest
from proxy.store import history
from proxy.store.disk import Folder
from proxy.store.history import Pruner
from proxy.telemetry import Metrics
from scripted import Origin, status

TAG = "/v2/kimoqi/alpine/manifests/1.0"
DAY = 86_400.0


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where the proxies of a test keep what they keep."""
    return tmp_path / "cache"


def children(index: Answer) -> list[str]:
    """Return the digests that an index names."""
    return [child["digest"] for child in orjson.loads(index.body)["manifests"]]


async def by_digest(proxy: Proxy, digest: str) -> Answer:
    """Pull a manifest by digest."""
    return await proxy.get(f"/v2/kimoqi/alpine/manifests/{digest}")


def files(cache: Path, kind: str = "") -> list[Path]:
    """Return what is kept."""
    return sorted(path for path in (cache / kind).rglob("*") if path.is_file())


async def counted(proxy: Proxy, line: bytes) -> None:
    """Wait until the metrics say *line*; fail when they don't."""

    async def is_there() -> bool:
        return line in (await proxy.page("/metrics")).body

    await until(is_there)


async def nothing(seconds: float) -> None:
    """Sleep no time at all."""


async def prune(cache: Path, clock: Clock) -> int:
    """Prune as the service does, by the clock of the test."""
    await settled(cache)
    return await Pruner(Folder(cache, clock), 30 * DAY, Metrics(), clock=clock, sleep=nothing).prune()


async def moved(proxy: Proxy, origin: Origin, clock: Clock, cache: Path) -> tuple[Answer, Answer]:
    """Pull the tag, push new images, and pull again; return both generations.

    Both are on disk then, as they are before days have passed: what is being written gets no other date by a use.
    """
    push_pair(origin.registry)
    before = await proxy.get(TAG)
    push(origin.registry, X86, platform="linux/amd64", text="new x86")
    push(origin.registry, ARM, platform="linux/arm64", text="new arm")
    clock.advance(61)
    after = await proxy.get(TAG)
    assert before.headers["Docker-Content-Digest"] != after.headers["Docker-Content-Digest"]
    await settled(cache)
    return before, after


async def test_a_pinned_digest_survives_its_tag(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """A deploy pinned by digest is pulled for months after the tag moved, over restarts, with its children."""
    proxy = await start(origin, rule=[rule])
    pinned, _ = await moved(proxy, origin, clock, cache)
    for _ in range(4):
        clock.advance(29 * DAY)
        proxy = await start(origin, rule=[rule])
        found = await by_digest(proxy, pinned.headers["Docker-Content-Digest"])
        assert (found.status, found.body) == (200, pinned.body)
        await prune(cache, clock)

    answers = [await by_digest(await start(origin, rule=[rule]), child) for child in children(pinned)]
    assert [Digest.of(answer.body) for answer in answers] == children(pinned)


async def test_a_pinned_digest_outlives_its_rule(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """What was told before a source left the rule can still be pulled; what wasn't is nowhere any more."""
    push_pair(origin.registry)
    told = await (await start(origin, rule=[rule])).get(TAG)
    untold = push(origin.registry, ARM, "2.0", "linux/arm64")
    rule["sources"].pop()

    after = await start(origin, rule=[rule])

    pinned = [told.headers["Docker-Content-Digest"], *children(told)]
    assert [(await by_digest(after, digest)).status for digest in pinned] == [200, 200, 200]
    assert (await by_digest(after, untold.digest)).status == 404


async def test_children_live_as_long_as_their_index(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """Children that nobody asked for stay, as long as their index is used: even if their registry drops them."""
    proxy = await start(origin, rule=[rule])
    pinned, _ = await moved(proxy, origin, clock, cache)
    for _ in range(50):
        clock.advance(DAY)
        await by_digest(proxy, pinned.headers["Docker-Content-Digest"])
    await prune(cache, clock)
    for repository in (X86, ARM):
        for child in children(pinned):
            origin.fail(f"{repository}/manifests/{child}", status(404))

    again = await start(origin, rule=[rule])
    assert [(await by_digest(again, child)).status for child in children(pinned)] == [200, 200]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("ttl", ["60s", "forever"])
async def test_a_tag_in_use_keeps_its_index_and_children(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path, method: str, ttl: str
) -> None:
    """A hot tag that is only ever answered keeps what it stands for, revalidated or not."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], cache={"tag_ttl": ttl})
    index = await proxy.get(TAG)
    await settled(cache)
    for _ in range(50):
        clock.advance(DAY)
        assert (await proxy.get(TAG, method)).status == 200
    await prune(cache, clock)
    origin.fail(".", status(500))

    again = await start(origin, rule=[rule])
    digests = [index.headers["Docker-Content-Digest"], *children(index)]
    assert [(await by_digest(again, digest)).status for digest in digests] == [200, 200, 200]


async def test_an_index_that_was_told_needs_nothing_but_its_location(
    origin: Origin, start: StartProxy, rule: dict[str, Any], cache: Path
) -> None:
    """Whatever a process hadn't written when it was killed: the digest that a client was told can be pulled."""
    push_pair(origin.registry)
    index = await (await start(origin, rule=[rule])).get(TAG)
    await settled(cache)
    for kind in ("content", "tags"):
        shutil.rmtree(cache / kind)

    again = await start(origin, rule=[rule])
    digests = [index.headers["Docker-Content-Digest"], *children(index)]
    assert [(await by_digest(again, digest)).status for digest in digests] == [200, 200, 200]
    await settled(cache)
    assert (cache / "content/blobs/sha256" / Digest(digests[0]).hex).read_bytes() == index.body


async def test_a_location_that_was_lost_is_written_again(
    origin: Origin, start: StartProxy, rule: dict[str, Any], cache: Path
) -> None:
    """A tag that is asked for keeps its index where it can be pulled, whatever happened to the folder meanwhile."""
    push_pair(origin.registry)
    index = await (await start(origin, rule=[rule])).get(TAG)
    await settled(cache)
    shutil.rmtree(cache / "locations")
    assert (await (await start(origin, rule=[rule])).get(TAG)).body == index.body

    again = await start(origin, rule=[rule])
    assert (await by_digest(again, index.headers["Docker-Content-Digest"])).body == index.body


async def test_a_tag_in_use_survives_an_outage(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """While no registry confirms anything, uses count all the same."""
    push_pair(origin.registry)
    settings: dict[str, Any] = {"rule": [rule], "cache": {"stale_if_error": "90d"}}
    proxy = await start(origin, **settings)
    index = await proxy.get(TAG)
    await settled(cache)
    origin.fail(".", status(500))
    for _ in range(50):
        clock.advance(DAY)
        assert (await proxy.head(TAG)).status == 200
    await prune(cache, clock)

    again = await start(origin, **settings)
    assert (await again.get(TAG)).body == index.body


async def test_what_nobody_used_is_forgotten(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """A generation that nobody asked for during the history is gone, and the one in use is not."""
    proxy = await start(origin, rule=[rule])
    before, after = await moved(proxy, origin, clock, cache)
    clock.advance(30 * DAY)
    await proxy.get(TAG)
    clock.advance(2 * DAY)

    assert await prune(cache, clock) > 0
    again = await start(origin, rule=[rule])
    assert (await by_digest(again, before.headers["Docker-Content-Digest"])).status == 404
    assert (await by_digest(again, after.headers["Docker-Content-Digest"])).body == after.body


async def test_what_was_pruned_comes_back_when_it_is_used(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """A process that still answers from memory what the disk forgot writes it again before it says so."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    index = await proxy.get(TAG)
    await settled(cache)
    clock.advance(40 * DAY)
    await prune(cache, clock)
    assert files(cache) == []

    assert (await by_digest(proxy, index.headers["Docker-Content-Digest"])).status == 200
    again = await start(origin, rule=[rule])
    assert (await by_digest(again, index.headers["Docker-Content-Digest"])).body == index.body


async def lost(proxy: Proxy, cache: Path) -> Answer:
    """Ask for the tag, take the file of its index away, and return what was answered."""
    index = await proxy.get(TAG)
    await settled(cache)
    (cache / "content/blobs" / index.headers["Docker-Content-Digest"].replace(":", "/")).unlink()
    return index


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_index_that_was_lost_is_written_again(
    origin: Origin, start: StartProxy, rule: dict[str, Any], cache: Path, method: str
) -> None:
    """A tag whose index's file is gone is answered all the same: the index follows from its children."""
    push_pair(origin.registry)
    index = await lost(await start(origin, rule=[rule]), cache)
    digest = index.headers["Docker-Content-Digest"]
    with capture_logs() as logs:
        answer = await (await start(origin, rule=[rule])).get(TAG, method)

    assert answer.headers["Docker-Content-Digest"] == digest
    assert [log["event"] for log in logs if log["event"] == "index written again"] == ["index written again"]
    assert (await by_digest(await start(origin, rule=[rule]), digest)).body == index.body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_index_that_can_not_be_written_again_is_made_anew(
    origin: Origin, start: StartProxy, rule: dict[str, Any], cache: Path, method: str
) -> None:
    """Where what is kept of a tag no longer gives the index that was lost, the registries are asked."""
    push_pair(origin.registry)
    index = await lost(await start(origin, rule=[rule]), cache)
    (entry,) = files(cache, "tags")
    entry.write_bytes(entry.read_bytes().replace(b'"variant":"v8"', b'"variant":"v9"'))
    proxy = await start(origin, rule=[rule])
    answer = await proxy.get(TAG, method)

    assert (answer.status, answer.headers["X-Manifuse-Cache"]) == (200, "miss")
    assert (await by_digest(proxy, answer.headers["Docker-Content-Digest"])).body == index.body


async def test_an_index_of_its_author_is_kept_like_any_other(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """What is passed through is in use while its tag is."""
    children = [push(origin.registry, VIRTUAL, platform="linux/amd64", text="amd64")]
    author = push_index(
        origin.registry,
        VIRTUAL,
        V1,
        [
            {
                "mediaType": child.media_type,
                "digest": child.digest,
                "size": child.size,
                "platform": {"os": "linux", "architecture": "amd64"},
            }
            for child in children
        ],
    )
    proxy = await start(origin, rule=[rule], cache={"tag_ttl": "forever"})
    await proxy.head(TAG)
    await settled(cache)
    for _ in range(40):
        assert (await proxy.head(TAG)).headers["Docker-Content-Digest"] == author.digest
        clock.advance(DAY)

    await prune(cache, clock)
    origin.fail(".", status(500))
    answers = [await by_digest(await start(origin, rule=[rule]), each) for each in (author.digest,)]
    assert [answer.status for answer in answers] == [200]


async def test_a_blob_is_no_manifest(origin: Origin, start: StartProxy, rule: dict[str, Any], cache: Path) -> None:
    """An image config that was read for a merge isn't served where manifests are, and no location of it is kept."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    index = await proxy.get(TAG)
    await settled(cache)
    manifest = orjson.loads((await by_digest(proxy, children(index)[0])).body)
    await settled(cache)
    kept = files(cache, "locations")

    assert (await by_digest(proxy, manifest["config"]["digest"])).status == 404
    await settled(cache)
    assert files(cache, "locations") == kept


async def test_the_service_prunes(
    origin: Origin,
    start: StartProxy,
    rule: dict[str, Any],
    clock: Clock,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The running service deletes what is too old by itself, and counts it."""
    old = cache / "content/blobs/sha256" / ("0" * 64)
    old.parent.mkdir(parents=True)
    old.touch()
    os.utime(old, (clock() - 32 * DAY,) * 2)
    monkeypatch.setattr(history, "_FIRST", 0.0)
    proxy = await start(origin, rule=[rule])
    await until(lambda: not old.exists())

    await counted(proxy, b'manifuse_pruned_files_total{kind="content"} 1.0')


async def test_an_index_of_one_source_written_twice_is_written_again(
    origin: Origin, start: StartProxy, clock: Clock, cache: Path
) -> None:
    """A rule may have a line too many; what is kept of it makes the same index again."""
    push_pair(origin.registry)
    twice = {"image": "{repository}-x86:{tag}", "platform": "linux/amd64"}
    rules = [{"match": "kimoqi/*", "sources": [twice, twice, {"image": "{repository}-arm:{tag}"}]}]
    first = await (await start(origin, rule=rules)).get(TAG)
    await settled(cache)
    for folder in ("content", "locations"):
        shutil.rmtree(cache / folder)

    again = await (await start(origin, rule=rules)).get(TAG)

    assert (again.status, again.body) == (200, first.body)


async def test_a_long_name_without_its_sources_is_served(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Where a source's name would be too long, what is at the name itself is all there is: `hold` serves it."""
    name = "kimoqi/" + "a" * 246
    push(origin.registry, name, platform="linux/amd64")
    proxy = await start(origin, rule=[{**rule, "on_partial": "hold"}])

    answer = await proxy.get(f"/v2/{name}/manifests/1.0")

    assert [each["platform"]["architecture"] for each in orjson.loads(answer.body)["manifests"]] == ["amd64"]
    assert "makes no valid image name" in answer.headers["Warning"]


def unreadable(path: Path) -> Path:
    """Put something in place of a file that can't be read, by root either; return where the file is now."""
    aside = path.with_suffix(".aside")
    path.rename(aside)
    path.mkdir()
    return aside


async def test_an_index_that_cant_be_read_is_no_404(
    origin: Origin, start: StartProxy, rule: dict[str, Any], cache: Path
) -> None:
    """While the disk doesn't say whether a digest is ours, nobody says that it isn't there: clients try again."""
    push_pair(origin.registry)
    index = await (await start(origin, rule=[rule])).get(TAG)
    await settled(cache)
    own = [path for path in files(cache, "locations") if not orjson.loads(path.read_bytes())["upstream"]]
    content = cache / "content/blobs/sha256" / Digest(index.headers["Docker-Content-Digest"]).hex
    asides = {path: unreadable(path) for path in (*own, content)}
    proxy = await start(origin, rule=[rule])
    trouble = await by_digest(proxy, index.headers["Docker-Content-Digest"])
    for path, aside in asides.items():
        path.rmdir()
        aside.rename(path)
    again = await by_digest(proxy, index.headers["Docker-Content-Digest"])

    assert (trouble.status, orjson.loads(trouble.body)["errors"][0]["code"]) == (503, "UNAVAILABLE")
    assert (again.status, again.body) == (200, index.body)
    assert (await by_digest(proxy, f"sha256:{0:064}")).status == 404


async def test_what_cant_be_read_is_asked_for(
    origin: Origin, start: StartProxy, rule: dict[str, Any], cache: Path
) -> None:
    """Children come from their sources, and a tag is merged, whatever of them the disk doesn't give."""
    push_pair(origin.registry)
    index = await (await start(origin, rule=[rule])).get(TAG)
    await settled(cache)
    for path in (*files(cache, "locations"), *files(cache, "content"), *files(cache, "tags")):
        unreadable(path)
    proxy = await start(origin, rule=[rule])

    assert [(await by_digest(proxy, child)).status for child in children(index)] == [200, 200]
    assert (await proxy.get(TAG)).body == index.body
