"""Builds that push one architecture after the other, through the whole service."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from conftest import Clock, StartProxy
from images import ARM, V1, X86, push, push_pair
from scripted import Origin, status

TAG = "/v2/kimoqi/alpine/manifests/1.0"


async def test_a_release_is_served_when_it_is_whole(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """Between the two pushes of a build the last release is served, says so, and ends with the second push."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[{**rule, "coherence": "together"}])
    old = await proxy.get(TAG)
    push(origin.registry, X86, "1.0", "linux/amd64", text="new")
    clock.advance(61)
    between = await proxy.get(TAG)
    again = await proxy.get(TAG)
    push(origin.registry, ARM, "1.0", "linux/arm64", text="new")
    clock.advance(61)

    new = await proxy.get(TAG)

    assert between.body == again.body == old.body
    assert between.headers["Warning"] == again.headers["Warning"]
    assert "kimoqi/alpine-arm:1.0 has not changed yet" in between.headers["Warning"]
    assert new.body != old.body
    assert "Warning" not in new.headers


async def test_a_release_that_never_comes_is_not_waited_for(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """After `hold_max` what is there is served, with a warning; what completes it later is served at once."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[{**rule, "coherence": "together", "hold_max": "5m"}])
    old = await proxy.get(TAG)
    push(origin.registry, X86, "1.0", "linux/amd64", text="new")
    bodies = []
    for _ in range(7):
        clock.advance(61)
        bodies.append((await proxy.get(TAG)).body)
    push(origin.registry, ARM, "1.0", "linux/arm64", text="new")
    clock.advance(61)

    last = await proxy.get(TAG)

    assert bodies[:5] == [old.body] * 5
    assert bodies[-1] not in {old.body, last.body}


async def test_a_push_that_is_taken_back_ends_the_waiting(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """When the half-pushed release is undone, the index is an ordinary one again."""
    x86, _ = push_pair(origin.registry)
    proxy = await start(origin, rule=[{**rule, "coherence": "together"}])
    await proxy.get(TAG)
    before = await origin.registry.manifest(X86, x86.digest, frozenset())  # type: ignore[arg-type]  # not looked at
    push(origin.registry, X86, "1.0", "linux/amd64", text="new")
    clock.advance(61)
    await proxy.get(TAG)
    origin.registry.add_manifest(X86, before, V1)
    clock.advance(61)

    answer = await proxy.get(TAG)

    assert answer.headers["X-Manifuse-Cache"] == "revalidated"
    assert "Warning" not in answer.headers


async def test_an_image_that_is_gone_for_a_moment(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """With `on_partial = "hold"` a source's 404 doesn't shrink the index before `hold_max`; then it does."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[{**rule, "on_partial": "hold", "hold_max": "2m"}])
    await proxy.get(TAG)
    origin.registry.remove(ARM, V1)
    sizes = []
    for _ in range(4):
        clock.advance(61)
        sizes.append(len(orjson.loads((await proxy.get(TAG)).body)["manifests"]))

    assert sizes == [2, 2, 1, 1]


async def test_explain_says_what_is_waited_for(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """`/explain` and the metrics tell of an index that is kept."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[{**rule, "coherence": "together"}])
    await proxy.get(TAG)
    push(origin.registry, X86, "1.0", "linux/amd64", text="new")
    clock.advance(61)
    await proxy.get(TAG)

    explanation = orjson.loads((await proxy.page("/explain/kimoqi/alpine:1.0")).body)

    assert (explanation["verdict"], "has not changed yet" in explanation["reason"]) == ("keep", True)
    assert b'manifuse_held_total{reason="incomplete release"} 1.0' in (await proxy.page("/metrics")).body


@pytest.mark.parametrize(("tag", "asked"), [("v1.2", 0), ("latest", 3)])
async def test_tags_that_never_move_are_asked_for_once(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, tag: str, asked: int
) -> None:
    """`tag_ttl = "forever"` for a glob of tags: a year later there is nothing to ask."""
    push_pair(origin.registry, tag)
    proxy = await start(origin, rule=[{**rule, "tags": [{"match": "v*", "tag_ttl": "forever"}]}])
    await proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")
    origin.requests.clear()
    clock.advance(365 * 86_400)

    answer = await proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")

    assert answer.status == 200
    assert len(origin.requests) == asked


async def test_trouble_that_goes_on_is_asked_about_less_and_less(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """Failed checks of a known tag pause twice as long each time, two minutes at most."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    clock.advance(61)
    origin.fail("kimoqi", status(500))
    asked_at = []
    for second in range(600):
        origin.requests.clear()
        await proxy.get(TAG)
        asked_at += [second] if origin.requests else []
        clock.advance(1)

    assert asked_at == [0, 10, 30, 70, 150, 270, 390, 510]
