"""What a client's request costs the upstream, as equalities."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import Clock, StartProxy, settled, until
from images import ARM, VIRTUAL, X86, entry, push, push_index, push_pair
from patience import HANGING
from proxy.merge import learning
from proxy.merge.plan import Plan, plan_tag
from proxy.merge.rule import Rule, find
from proxy.store import disk
from proxy.store.behind import Behind
from proxy.virtual import plans, standing
from scripted import Origin, waits_for

TAG = "/v2/kimoqi/alpine/manifests/1.0"
BASE = "HEAD kimoqi/alpine/manifests/1.0"
HEADS = ["HEAD kimoqi/alpine-arm/manifests/1.0", "HEAD kimoqi/alpine-x86/manifests/1.0", BASE]
GETS = ["GET kimoqi/alpine-arm/manifests/1.0", "GET kimoqi/alpine-x86/manifests/1.0"]


def split(origin: Origin) -> tuple[list[str], int]:
    """Return the manifest requests so far and how many blobs were asked for; forget both."""
    asked = origin.asked
    origin.requests.clear()
    return [a for a in asked if "/blobs/" not in a], sum("/blobs/" in a for a in asked)


async def test_a_cold_tag_costs_two_manifests_and_two_configs(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """A cold tag of two plain sources: 2 manifest GETs, 2 config GETs, and one HEAD of the name itself."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG)

    assert answer.status == 200
    assert split(origin) == ([*GETS, BASE], 2)


async def test_within_its_ttl_a_tag_costs_nothing(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """A fresh tag is answered without a question, GET and HEAD both."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    split(origin)
    clock.advance(59)

    answers = [await proxy.get(TAG), await proxy.head(TAG)]

    assert [answer.headers["X-Manifuse-Cache"] for answer in answers] == ["hit", "hit"]
    assert split(origin) == ([], 0)


async def test_after_its_ttl_an_unchanged_tag_costs_one_head_per_source(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """An expired tag whose sources didn't change: one HEAD each, and nothing is fetched."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    first = await proxy.get(TAG)
    split(origin)
    clock.advance(61)

    second = await proxy.get(TAG)

    assert second.headers["X-Manifuse-Cache"] == "revalidated"
    assert second.body == first.body
    assert split(origin) == (HEADS, 0)


async def test_an_expired_tag_costs_no_get_where_an_index_is_at_the_name(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """An index at the name is served in place of the sources: nothing changed, so nothing is fetched either."""
    x86, arm = push_pair(origin.registry)
    pushed = push_index(origin.registry, VIRTUAL, "1.0", [entry(x86, "linux/amd64"), entry(arm, "linux/arm64")])
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    split(origin)
    clock.advance(61)

    answer = await proxy.get(TAG)

    assert answer.headers["Docker-Content-Digest"] == pushed.digest
    assert split(origin) == (HEADS, 0)


async def test_an_expired_tag_costs_no_get_where_a_source_is_missing(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """A source that wasn't there is looked for with HEAD like all others."""
    push(origin.registry, X86, "1.0", "linux/amd64")
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    split(origin)
    clock.advance(61)

    answer = await proxy.get(TAG)

    assert answer.headers["X-Manifuse-Cache"] == "revalidated"
    assert split(origin) == (HEADS, 0)


async def test_a_changed_source_alone_is_fetched_again(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """When one source was pushed anew, it alone costs a manifest and a config."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    split(origin)
    clock.advance(61)
    changed = push(origin.registry, ARM, "1.0", "linux/arm64", text="rebuilt")

    answer = await proxy.get(TAG)

    assert changed.digest.encode() in answer.body
    assert split(origin) == ([f"GET kimoqi/alpine-arm/manifests/{changed.digest}", *HEADS], 1)


async def test_two_hundred_clients_cost_what_one_does(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """200 clients that ask for one cold tag at once cost the upstream what one client costs."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    gate = asyncio.Event()
    origin.fail("GET /v2/kimoqi/alpine-x86/manifests", waits_for(gate))
    clients = [asyncio.create_task(proxy.get(TAG)) for _ in range(200)]
    await until(lambda: len(origin.requests) == 4)  # one config already: the other source has answered
    async with asyncio.timeout(HANGING):
        while b"\nmanifuse_connections 200.0\n" not in (await proxy.page("/metrics")).body:
            pass
    await asyncio.sleep(0.05)
    gate.set()

    answers = await asyncio.gather(*clients)

    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert split(origin) == ([*GETS, BASE], 2)
    assert b"\nmanifuse_coalesced_total 199.0\n" in (await proxy.page("/metrics")).body


async def test_guessing_is_paid_once(origin: Origin, start: StartProxy) -> None:
    """With no rule the first tag of a repository costs a HEAD for each candidate, the second what a rule costs."""
    push_pair(origin.registry, "1.0")
    push_pair(origin.registry, "2.0")
    proxy = await start(origin)
    await proxy.get(TAG)
    first, configs = split(origin)

    await proxy.get("/v2/kimoqi/alpine/manifests/2.0")

    assert configs == 2
    assert sum(asked.startswith("HEAD") for asked in first) == 2 * 6 + 1
    assert sum(asked.startswith("GET") for asked in first) == 2
    assert split(origin) == (
        [
            "GET kimoqi/alpine-arm/manifests/2.0",
            "GET kimoqi/alpine-x86/manifests/2.0",
            "HEAD kimoqi/alpine/manifests/2.0",
        ],
        2,
    )


async def test_words_that_came_true_are_fetched_beside_guesses(origin: Origin, start: StartProxy) -> None:
    """What may still be pushed beside them, an `x86` for 386 or an `arm` for arm/v7, is looked for at the same time."""
    for tag in ("1.0", "2.0"):
        for word in ("amd64", "arm64"):
            push(origin.registry, f"{VIRTUAL}-{word}", tag, f"linux/{word}")
    proxy = await start(origin)
    await proxy.get(TAG)
    split(origin)

    await proxy.get("/v2/kimoqi/alpine/manifests/2.0")

    assert split(origin) == (
        [
            "GET kimoqi/alpine-amd64/manifests/2.0",
            "GET kimoqi/alpine-arm64/manifests/2.0",
            "HEAD kimoqi/alpine-arm/manifests/2.0",
            "HEAD kimoqi/alpine-x86/manifests/2.0",
            "HEAD kimoqi/alpine/manifests/2.0",
        ],
        2,
    )


async def test_nobody_is_asked_twice_where_a_word_is_missing(origin: Origin, start: StartProxy) -> None:
    """What is asked for by all words besides is what wasn't asked for yet."""
    push_pair(origin.registry, "1.0")
    push(origin.registry, X86, "2.0", "linux/amd64")
    proxy = await start(origin)
    await proxy.get(TAG)
    split(origin)

    await proxy.get(f"/v2/{VIRTUAL}/manifests/2.0")

    assert split(origin) == (
        [
            "GET kimoqi/alpine-arm/manifests/2.0",
            "GET kimoqi/alpine-x86/manifests/2.0",
            "HEAD kimoqi/alpine-aarch64/manifests/2.0",
            "HEAD kimoqi/alpine-arm64/manifests/2.0",
            "HEAD kimoqi/alpine/manifests/2.0",
        ],
        1,
    )


async def test_an_architecture_that_is_no_longer_pushed_is_missed_once(origin: Origin, start: StartProxy) -> None:
    """The first tag without it costs a second round; from then on its words are guesses like any other."""
    push_pair(origin.registry, "1.0")
    for tag in ("2.0", "3.0"):
        push(origin.registry, X86, tag, "linux/amd64")
    proxy = await start(origin)
    for tag in ("1.0", "2.0"):
        await proxy.get(f"/v2/{VIRTUAL}/manifests/{tag}")
    split(origin)

    await proxy.get(f"/v2/{VIRTUAL}/manifests/3.0")

    assert split(origin) == (
        [
            "GET kimoqi/alpine-x86/manifests/3.0",
            "HEAD kimoqi/alpine-aarch64/manifests/3.0",
            "HEAD kimoqi/alpine-arm/manifests/3.0",
            "HEAD kimoqi/alpine-arm64/manifests/3.0",
            "HEAD kimoqi/alpine/manifests/3.0",
        ],
        1,
    )


async def test_a_tag_is_planned_once(origin: Origin, start: StartProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """All candidates together are thought of again only where what was learned of other tags finds nothing."""
    push_pair(origin.registry, "1.0")
    push_pair(origin.registry, "2.0")
    push(origin.registry, VIRTUAL, "3.0-amd64", "linux/amd64")
    proxy = await start(origin)
    planned: list[str] = []

    def counted(*asked: Any) -> Plan:
        planned.append(asked[3])
        return plan_tag(*asked)

    for module in (plans, learning):
        monkeypatch.setattr(module, "plan_tag", counted)
    for tag in ("1.0", "2.0", "3.0"):
        assert (await proxy.get(f"/v2/{VIRTUAL}/manifests/{tag}")).status == 200

    assert planned == ["1.0", "2.0", "3.0", "3.0"]


async def test_the_rule_of_a_tag_is_looked_for_once(
    origin: Origin, start: StartProxy, rule: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be hundreds of rules: who asks again, in other words, has no names matched."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    matched: list[str] = []

    def counted(*asked: Any) -> Rule:
        matched.append(asked[2])
        return find(*asked)

    monkeypatch.setattr(standing, "find", counted)
    for agent in ("one", "two", "three"):
        assert (await proxy.get(TAG, User_Agent=agent)).status == 200

    assert matched == [VIRTUAL]


async def test_a_missing_architecture_goes_on_being_looked_for(origin: Origin, start: StartProxy) -> None:
    """What was learned never hides an architecture that comes later: its names go on being asked."""
    push(origin.registry, X86, "1.0", "linux/amd64")
    push_pair(origin.registry, "2.0")
    proxy = await start(origin)
    await proxy.get(TAG)

    answer = await proxy.get("/v2/kimoqi/alpine/manifests/2.0")

    assert b'"arm64"' in answer.body
    assert b'"amd64"' in answer.body


async def test_a_name_that_no_rule_touches_costs_one_get(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Beside the rules a tag costs one GET, as without the proxy."""
    pushed = push(origin.registry, "other/tool", "1.0")
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get("/v2/other/tool/manifests/1.0")

    assert answer.headers["Docker-Content-Digest"] == pushed.digest
    assert split(origin) == (["GET other/tool/manifests/1.0"], 0)


async def test_a_tag_that_does_not_exist_is_asked_for_once(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """A 404 is remembered for `negative_ttl`, and not longer."""
    proxy = await start(origin, rule=[rule])

    statuses = [(await proxy.get(TAG)).status for _ in range(3)]
    asked, _ = split(origin)
    push_pair(origin.registry)
    clock.advance(11)

    assert statuses == [404, 404, 404]
    assert len(asked) == 3
    assert (await proxy.get(TAG)).status == 200


async def test_children_come_from_memory(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """The manifests and configs that a merge has read are served without asking for them again."""
    x86, arm = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    split(origin)

    children = [await proxy.get(f"/v2/kimoqi/alpine/manifests/{child.digest}") for child in (x86, arm)]

    assert [child.status for child in children] == [200, 200]
    assert split(origin) == ([], 0)


async def test_a_cold_tag_waits_for_one_file(
    origin: Origin, start: StartProxy, rule: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what nobody else has is on disk before the answer: the index, in its location. None is written twice.

    All the others are synced together.
    """
    push_pair(origin.registry)
    groups: list[list[Path]] = []
    write, answered = disk._write_files, asyncio.Event()

    def noted(files: Sequence[disk._File], abandoned: threading.Event) -> dict[disk._File, OSError | None]:
        groups.append([file.target.relative_to(tmp_path / "cache") for file in files])
        return write(files, abandoned)

    async def rested(_: Behind) -> None:
        await answered.wait()

    monkeypatch.setattr(disk, "_write_files", noted)
    monkeypatch.setattr(Behind, "_quiet", rested)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    before = [path.parts[0] for group in groups for path in group]
    answered.set()
    await settled(tmp_path)

    assert before == ["locations"]
    assert [len(group) for group in groups] == [1, 8]
    assert len({path for group in groups for path in group}) == 9
    assert groups[1][-1].parts[0] == "tags"
