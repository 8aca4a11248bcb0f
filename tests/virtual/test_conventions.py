"""Names by convention, and what was learned of them, through the whole service."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Clock, StartProxy
from images import ARM, VIRTUAL, X86, push, push_index, push_pair
from scripted import Origin, status
from virtual.merged import TAG, merged


@pytest.mark.parametrize(
    ("convention", "x86", "arm"),
    [
        ("repository-suffix", "team/app-amd64:1.0", "team/app-arm64:1.0"),
        ("tag-suffix", "team/app:1.0-x86_64", "team/app:1.0-aarch64"),
        ("repository-prefix", "team/amd64-app:1.0", "team/arm64-app:1.0"),
        ("namespace", "amd64/app:1.0", "arm64v8/app:1.0"),
        ("tag-prefix", "team/app:amd64-1.0", "team/app:arm64-1.0"),
    ],
)
async def test_each_convention(origin: Origin, start: StartProxy, convention: str, x86: str, arm: str) -> None:
    """Every naming convention finds its images."""
    for name, platform in ((x86, "linux/amd64"), (arm, "linux/arm64")):
        repository, _, tag = name.partition(":")
        push(origin.registry, repository, tag, platform)
    rules = [{"match": "**", "conventions": [convention], "platforms": ["linux/amd64", "linux/arm64"]}]
    proxy = await start(origin, rule=rules)

    platforms = [platform for platform, _ in await merged(proxy, "/v2/team/app/manifests/1.0")]

    assert platforms == ["linux/amd64", "linux/arm64/v8"]


async def test_two_conventions_in_one_repository(origin: Origin, start: StartProxy) -> None:
    """What was learned from one tag costs another tag, named otherwise, a second round and never a 404."""
    push_pair(origin.registry, "1.0")
    for suffix, platform in (("amd64", "linux/amd64"), ("arm64", "linux/arm64")):
        push(origin.registry, VIRTUAL, f"2.0-{suffix}", platform)
    proxy = await start(origin)

    assert len(await merged(proxy)) == 2
    assert len(await merged(proxy, "/v2/kimoqi/alpine/manifests/2.0")) == 2


async def test_two_words_for_one_platform_in_one_repository(origin: Origin, start: StartProxy, tmp_path: Path) -> None:
    """What was learned from one tag changes no other tag's index: a tag may be pushed by other words."""
    push_pair(origin.registry, "1.0")
    push(origin.registry, X86, "2.0", "linux/amd64")
    push(origin.registry, f"{VIRTUAL}-arm64", "2.0", "linux/arm64")
    knowing, knowing_nothing = [await start(origin, cache={"dir": tmp_path / name}) for name in ("one", "other")]
    await merged(knowing)

    learned, guessed = [await merged(each, "/v2/kimoqi/alpine/manifests/2.0") for each in (knowing, knowing_nothing)]

    assert learned == guessed
    assert len(learned) == 2


async def test_another_word_that_comes_later_is_found(origin: Origin, start: StartProxy, clock: Clock) -> None:
    """A tag that lacks an architecture isn't left without it because other tags have it by another word."""
    push_pair(origin.registry, "1.0")
    push(origin.registry, X86, "2.0", "linux/amd64")
    proxy = await start(origin)
    await merged(proxy)
    before = await merged(proxy, "/v2/kimoqi/alpine/manifests/2.0")
    push(origin.registry, f"{VIRTUAL}-arm64", "2.0", "linux/arm64")
    clock.advance(61)

    assert len(before) == 1
    assert len(await merged(proxy, "/v2/kimoqi/alpine/manifests/2.0")) == 2


async def test_an_image_at_the_name_hides_no_other_words(origin: Origin, start: StartProxy) -> None:
    """Nor does it where all that was learned is missing, and a single image is at the name itself."""
    push_pair(origin.registry, "1.0")
    push(origin.registry, VIRTUAL, "2.0", "linux/s390x")
    push(origin.registry, VIRTUAL, "2.0-arm64", "linux/arm64")
    proxy = await start(origin)
    await merged(proxy)

    assert len(await merged(proxy, "/v2/kimoqi/alpine/manifests/2.0")) == 2


async def test_a_word_that_meant_another_platform_hides_none(origin: Origin, start: StartProxy, clock: Clock) -> None:
    """`-arm` may be arm/v7, and then nothing is known of arm64: it goes on being looked for, by all its words."""
    for tag in ("1.0", "2.0"):
        push(origin.registry, f"{VIRTUAL}-amd64", tag, "linux/amd64")
        push(origin.registry, ARM, tag, "linux/arm/v7")
    push(origin.registry, f"{VIRTUAL}-arm64", "2.0", "linux/arm64")
    proxy = await start(origin)
    first = await merged(proxy)
    second = await merged(proxy, "/v2/kimoqi/alpine/manifests/2.0")
    push(origin.registry, f"{VIRTUAL}-arm64", "1.0", "linux/arm64")
    clock.advance(61)

    assert [platform for platform, _ in first] == ["linux/amd64", "linux/arm/v7"]
    for platforms in (second, await merged(proxy)):
        assert [platform for platform, _ in platforms] == ["linux/amd64", "linux/arm64/v8", "linux/arm/v7"]


async def test_a_learned_word_that_means_another_platform_here_hides_none(
    origin: Origin, start: StartProxy, clock: Clock
) -> None:
    """That `-arm` is arm64 was learned from another tag; of this one it is arm/v7, and arm64 may come at any time."""
    push_pair(origin.registry, "1.0")
    push(origin.registry, X86, "2.0", "linux/amd64")
    push(origin.registry, ARM, "2.0", "linux/arm/v7")
    proxy = await start(origin)
    await merged(proxy)
    before = await merged(proxy, "/v2/kimoqi/alpine/manifests/2.0")
    push(origin.registry, f"{VIRTUAL}-arm64", "2.0", "linux/arm64")
    clock.advance(61)
    after = await merged(proxy, "/v2/kimoqi/alpine/manifests/2.0")

    assert [platform for platform, _ in before] == ["linux/amd64", "linux/arm/v7"]
    assert [platform for platform, _ in after] == ["linux/amd64", "linux/arm64/v8", "linux/arm/v7"]


async def test_a_word_that_may_mean_another_platform_goes_on_being_asked(origin: Origin, start: StartProxy) -> None:
    """`-arm` for arm/v7 beside `-arm64`, as Kubernetes has them, or `-x86` for 386: each is something else."""
    for tag in ("1.0", "2.0"):
        for word in ("amd64", "arm64"):
            push(origin.registry, f"{VIRTUAL}-{word}", tag, f"linux/{word}")
    push(origin.registry, ARM, "2.0", "linux/arm/v7")
    push(origin.registry, X86, "2.0", "linux/386")
    proxy = await start(origin)
    await merged(proxy)

    platforms = [platform for platform, _ in await merged(proxy, "/v2/kimoqi/alpine/manifests/2.0")]

    assert platforms == ["linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/386"]


@pytest.mark.parametrize("seen", [True, False])
async def test_a_word_that_came_true_is_refused_for_another_tag(
    origin: Origin, start: StartProxy, *, seen: bool
) -> None:
    """It is no guess any more, also while other words are (law 4); where it never came true it may not exist."""
    push(origin.registry, X86, "1.0", "linux/amd64")
    push_pair(origin.registry, "2.0")
    proxy = await start(origin)
    if seen:
        await merged(proxy)
    origin.fail(f"/v2/{X86}/manifests/2.0", status(403))

    answer = await proxy.get("/v2/kimoqi/alpine/manifests/2.0")

    assert answer.status == (403 if seen else 200)


async def test_an_index_at_the_name_of_one_tag_hides_no_sources_of_another(
    origin: Origin, start: StartProxy, clock: Clock
) -> None:
    """`1.0` was merged by its author; `2.0` wasn't: a single image at the name joins the others, whoever was first."""
    push_index(origin.registry, VIRTUAL, "1.0", [])
    base = push(origin.registry, VIRTUAL, "2.0", "linux/amd64")
    arm = push(origin.registry, ARM, "2.0", "linux/arm64")
    proxy = await start(origin)
    assert (await proxy.get(TAG)).status == 200

    assert await merged(proxy, "/v2/kimoqi/alpine/manifests/2.0") == [
        ("linux/amd64", base.digest),
        ("linux/arm64/v8", arm.digest),
    ]


async def test_a_source_that_joins_a_single_image_later_is_found(
    origin: Origin, start: StartProxy, clock: Clock
) -> None:
    """The same where the image at the name was alone when it was pulled first."""
    push_index(origin.registry, VIRTUAL, "1.0", [])
    push(origin.registry, VIRTUAL, "2.0", "linux/amd64")
    proxy = await start(origin)
    assert [(await proxy.get(f"/v2/{VIRTUAL}/manifests/{tag}")).status for tag in ("1.0", "2.0")] == [200, 200]
    push(origin.registry, ARM, "2.0", "linux/arm64")
    clock.advance(61)

    assert len(await merged(proxy, "/v2/kimoqi/alpine/manifests/2.0")) == 2
