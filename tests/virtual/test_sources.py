"""Every kind of source, through the whole service: what the index holds in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from conftest import Clock, Proxy, StartProxy
from images import (
    ARM,
    VIRTUAL,
    X86,
    entry,
    push,
    push_artifact,
    push_attestation,
    push_index,
    push_pair,
    push_with_config,
)
from proxy.oci import mediatype
from proxy.oci.mediatype import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from proxy.oci.reference import Tag
from scripted import Origin, status

TAG = "/v2/kimoqi/alpine/manifests/1.0"


async def merged(proxy: Proxy, path: str = TAG) -> list[tuple[str, str]]:
    """Return the platforms and digests of the index at *path*, in its order."""
    answer = await proxy.get(path)
    assert answer.status == 200, answer.body
    document = orjson.loads(answer.body)
    assert document["mediaType"] == answer.headers["Content-Type"]
    return [(_words(each["platform"]), each["digest"]) for each in document["manifests"]]


def _words(platform: dict[str, str]) -> str:
    return "/".join(platform[key] for key in ("os", "architecture", "variant") if key in platform)


async def test_docker_and_docker_make_a_docker_list(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Two Docker schema 2 images make a Docker manifest list."""
    x86, arm = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG)

    assert answer.headers["Content-Type"] == DOCKER_LIST
    assert await merged(proxy) == [("linux/amd64", x86.digest), ("linux/arm64/v8", arm.digest)]


@pytest.mark.parametrize("other_type", [mediatype.DOCKER_MANIFEST, OCI_MANIFEST])
async def test_an_oci_child_makes_an_oci_index(
    origin: Origin, start: StartProxy, rule: dict[str, Any], other_type: str
) -> None:
    """As soon as one child is an OCI manifest the index is OCI's."""
    push(origin.registry, X86, platform="linux/amd64", media_type=OCI_MANIFEST)
    push(origin.registry, ARM, platform="linux/arm64", media_type=other_type)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG)

    assert answer.headers["Content-Type"] == OCI_INDEX


async def test_buildx_indexes_are_flattened_with_their_provenance(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Sources that buildx wrapped in an index come out flat, attestations behind the images in their order."""
    wrapped = []
    for repository, platform in ((X86, "linux/amd64"), (ARM, "linux/arm64")):
        image = push(origin.registry, repository, "inner", platform, media_type=OCI_MANIFEST)
        attestation = push_attestation(origin.registry, repository, image)
        push_index(origin.registry, repository, "1.0", [entry(image, platform), attestation])
        wrapped.append((image.digest, attestation["digest"]))
    proxy = await start(origin, rule=[rule])

    (x86, x86_attested), (arm, arm_attested) = wrapped
    assert await merged(proxy) == [
        ("linux/amd64", x86),
        ("linux/arm64/v8", arm),
        ("unknown/unknown", x86_attested),
        ("unknown/unknown", arm_attested),
    ]


async def test_attestations_can_be_dropped(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """With `attestations = "drop"` only images are left."""
    image = push(origin.registry, X86, "inner", "linux/amd64", media_type=OCI_MANIFEST)
    push_index(
        origin.registry, X86, "1.0", [entry(image, "linux/amd64"), push_attestation(origin.registry, X86, image)]
    )
    push(origin.registry, ARM, platform="linux/arm64")
    proxy = await start(origin, rule=[{**rule, "attestations": "drop"}])

    assert [platform for platform, _ in await merged(proxy)] == ["linux/amd64", "linux/arm64/v8"]


async def test_a_docker_list_is_a_source_too(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Of a source that is a multi-arch list itself, the rule's platform selects."""
    for platform in ("linux/amd64", "linux/s390x"):
        push(origin.registry, X86, platform.rpartition("/")[2], platform)
    entries = [
        entry((await origin.registry.resolve(X86, Tag(name), mediatype.ANYTHING)).descriptor, f"linux/{name}")
        for name in ("s390x", "amd64")
    ]
    push_index(origin.registry, X86, "1.0", entries, DOCKER_LIST)
    push(origin.registry, ARM, platform="linux/arm64")
    proxy = await start(origin, rule=[rule])

    assert [platform for platform, _ in await merged(proxy)] == ["linux/amd64", "linux/arm64/v8"]


async def test_nested_indexes_are_flattened(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """An index within an index is opened; entries without a platform get their config's."""
    image = push(origin.registry, X86, "inner", "linux/amd64", media_type=OCI_MANIFEST)
    inner = push_index(origin.registry, X86, None, [entry(image, None)])
    push_index(origin.registry, X86, "1.0", [entry(inner, None)])
    push(origin.registry, ARM, platform="linux/arm64")
    proxy = await start(origin, rule=[rule])

    assert (await merged(proxy))[0] == ("linux/amd64", image.digest)


async def test_indexes_nested_too_deep_are_no_answer(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A tower of indexes is refused instead of followed; the source counts as failed."""
    descriptor = push(origin.registry, X86, "inner", "linux/amd64", media_type=OCI_MANIFEST)
    for depth in range(5):
        descriptor = push_index(origin.registry, X86, "1.0" if depth == 4 else None, [entry(descriptor, None)])
    push(origin.registry, ARM, platform="linux/arm64")
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG)

    assert answer.status == 503
    assert b"deep" in answer.body


async def test_an_index_that_contains_itself_is_no_answer(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """A registry that answers an index's child with the index itself is found out by the hash, not followed."""
    image = push(origin.registry, X86, "inner", "linux/amd64")
    inner = push_index(origin.registry, X86, None, [entry(image, None)])
    outer = push_index(origin.registry, X86, "1.0", [entry(inner, None)])
    body = (await origin.registry.manifest(X86, outer.digest, mediatype.ANYTHING)).body
    origin.fail(f"manifests/{inner.digest}", status(200, body, Content_Type=OCI_INDEX))
    push(origin.registry, ARM, platform="linux/arm64")
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG)

    assert answer.status == 503
    assert b"hash" in answer.body
    assert len(origin.requests) < 10


async def test_sources_on_two_upstreams(origin: Origin, other: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A source may be on another upstream; its children and blobs come from there."""
    push(origin.registry, X86, platform="linux/amd64")
    arm = push(other.registry, "team/builds", "1.0", "linux/arm64")
    sources = [rule["sources"][0], {"image": "team/builds:{tag}", "platform": "linux/arm64", "upstream": "origin1"}]
    proxy = await start(origin, other, rule=[{**rule, "sources": sources}])

    platforms = await merged(proxy)
    child = await proxy.get(f"/v2/kimoqi/alpine/manifests/{arm.digest}")
    layer = orjson.loads(child.body)["layers"][0]["digest"]
    blob = await proxy.get(f"/v2/kimoqi/alpine/blobs/{layer}")

    assert platforms[1] == ("linux/arm64/v8", arm.digest)
    assert (child.status, blob.status) == (200, 200)
    assert not [asked for asked in origin.asked if layer in asked]


async def test_every_arm(origin: Origin, start: StartProxy) -> None:
    """Arm v5, v6, v7 and arm64 side by side: newest first, each with its variant."""
    wanted = {
        "v5": "linux/arm/v5",
        "v6": "linux/arm/v6",
        "v7": "linux/arm/v7",
        "arm64": "linux/arm64",
        "x86": "linux/amd64",
    }
    for suffix, platform in wanted.items():
        push(origin.registry, f"kimoqi/alpine-{suffix}", platform=platform)
    sources = [
        {"image": f"{{repository}}-{suffix}:{{tag}}", "platform": platform} for suffix, platform in wanted.items()
    ]
    proxy = await start(origin, rule=[{"match": "kimoqi/*", "sources": sources}])

    assert [platform for platform, _ in await merged(proxy)] == [
        "linux/amd64",
        "linux/arm64/v8",
        "linux/arm/v7",
        "linux/arm/v6",
        "linux/arm/v5",
    ]


async def test_two_windows_versions(origin: Origin, start: StartProxy) -> None:
    """Two Windows images differ by `os.version` alone; the newer one comes first."""
    versions = ("10.0.17763.6189", "10.0.20348.2655")
    for version in versions:
        image = push(origin.registry, "kimoqi/win", version, "windows/amd64")
        fields = {
            **entry(image, "windows/amd64"),
            "platform": {"os": "windows", "architecture": "amd64", "os.version": version},
        }
        push_index(origin.registry, "kimoqi/win", f"{version}-i", [fields], DOCKER_LIST)
    sources = [{"image": f"kimoqi/win:{version}-i", "platform": "windows/amd64"} for version in versions]
    proxy = await start(origin, rule=[{"match": "kimoqi/*", "sources": sources}])

    answer = await proxy.get(TAG)

    assert [e["platform"]["os.version"] for e in orjson.loads(answer.body)["manifests"]] == list(reversed(versions))


@pytest.mark.parametrize("config", [b"", b"no JSON", None], ids=["empty", "no JSON", "missing"])
async def test_a_lone_image_is_served_whatever_its_config_is(
    origin: Origin, start: StartProxy, config: bytes | None
) -> None:
    """Where nothing is merged nobody asks for the platform: the registry's own answer passes through."""
    described = config if config is not None else b"never pushed"
    image = push_with_config(origin.registry, VIRTUAL, described, missing=config is None)
    proxy = await start(origin)

    answer = await proxy.get(TAG)

    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (200, image.digest)
    explanation = orjson.loads((await proxy.page("/explain/kimoqi/alpine:1.0")).body)
    assert explanation["digest"] == image.digest
    assert [each["says"] for each in explanation["questions"] if "can't be read" in each["says"]] != []


async def test_an_unreadable_config_beside_sources_is_no_answer(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """An image at the name would be part of the index, and nobody knows as what: that shrinks nothing (law 4)."""
    push_pair(origin.registry)
    push(origin.registry, VIRTUAL, platform="linux/s390x")
    proxy = await start(origin, rule=[rule])
    before = await merged(proxy)
    push_with_config(origin.registry, VIRTUAL, b"no JSON")
    clock.advance(3600)

    assert await merged(proxy) == before
    clock.advance(25 * 3600)
    assert (await proxy.get(TAG)).status == 503


async def test_a_written_platform_outweighs_a_careless_config(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Both configs say amd64: the rule's platforms count, and the contradiction is reported."""
    push(origin.registry, X86, platform="linux/amd64")
    push(origin.registry, ARM, platform="linux/amd64")
    proxy = await start(origin, rule=[rule])

    assert [platform for platform, _ in await merged(proxy)] == ["linux/amd64", "linux/arm64/v8"]
    assert b"manifuse_platform_mismatches_total 1.0" in (await proxy.page("/metrics")).body


async def test_a_guess_counts_where_the_configs_would_clash(origin: Origin, start: StartProxy) -> None:
    """With no rule, both configs amd64: the name `-arm` counts after all."""
    push(origin.registry, X86, platform="linux/amd64")
    push(origin.registry, ARM, platform="linux/amd64")
    proxy = await start(origin)

    assert [platform for platform, _ in await merged(proxy)] == ["linux/amd64", "linux/arm64/v8"]


async def test_a_guess_yields_to_the_config(origin: Origin, start: StartProxy) -> None:
    """With no rule `-x86` may be 386 and `-arm` may be v7: the configs say."""
    push(origin.registry, X86, platform="linux/386")
    push(origin.registry, ARM, platform="linux/arm/v7")
    proxy = await start(origin)

    assert [platform for platform, _ in await merged(proxy)] == ["linux/arm/v7", "linux/386"]


async def test_only_one_architecture(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A source that doesn't exist is left out, the client is warned, and the operator sees a partial merge."""
    push(origin.registry, X86, platform="linux/amd64")
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG)

    assert [platform for platform, _ in await merged(proxy)] == ["linux/amd64"]
    assert answer.headers["Warning"] == '299 - "origin0/kimoqi/alpine-arm:1.0 does not exist"'
    assert b"\nmanifuse_partial_merges_total 1.0\n" in (await proxy.page("/metrics")).body


async def test_an_incomplete_index_can_be_refused(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """With `on_partial = "fail"` a required platform that is missing makes a 404 that says so."""
    push(origin.registry, X86, platform="linux/amd64")
    proxy = await start(origin, rule=[{**rule, "require": ["linux/arm64"], "on_partial": "fail"}])

    answer = await proxy.get(TAG)

    assert answer.status == 404
    assert "linux/arm64 is missing" in orjson.loads(answer.body)["errors"][0]["message"]


async def test_an_index_at_the_name_is_served_untouched(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """`base = "passthrough"`: an index at the virtual name was merged by its author."""
    push_pair(origin.registry)
    image = push(origin.registry, VIRTUAL, "inner", "linux/s390x", media_type=OCI_MANIFEST)
    index = push_index(origin.registry, VIRTUAL, "1.0", [entry(image, "linux/s390x")])
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG)

    assert answer.headers["Docker-Content-Digest"] == index.digest


async def test_an_index_at_the_name_can_be_merged(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """`base = "merge"`: its entries join behind the sources."""
    x86, arm = push_pair(origin.registry)
    images = {p: push(origin.registry, VIRTUAL, p.replace("/", "-"), p) for p in ("linux/s390x", "linux/amd64")}
    push_index(origin.registry, VIRTUAL, "1.0", [entry(image, p) for p, image in images.items()], DOCKER_LIST)
    proxy = await start(origin, rule=[{**rule, "base": "merge"}])

    assert await merged(proxy) == [
        ("linux/amd64", x86.digest),
        ("linux/arm64/v8", arm.digest),
        ("linux/s390x", images["linux/s390x"].digest),
    ]


async def test_an_image_at_the_name_joins(origin: Origin, start: StartProxy) -> None:
    """A single image at the virtual name joins as the last source, with its config's platform."""
    base = push(origin.registry, VIRTUAL, platform="linux/amd64")
    arm = push(origin.registry, ARM, platform="linux/arm64")
    proxy = await start(origin)

    assert await merged(proxy) == [("linux/amd64", base.digest), ("linux/arm64/v8", arm.digest)]


async def test_the_name_itself_can_be_ignored(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """`base = "ignore"` never asks for the virtual name."""
    push_pair(origin.registry)
    push(origin.registry, VIRTUAL, platform="linux/s390x")
    proxy = await start(origin, rule=[{**rule, "base": "ignore"}])

    assert len(await merged(proxy)) == 2
    assert not [asked for asked in origin.asked if "kimoqi/alpine/" in asked]


async def test_a_chart_at_the_name_is_passed_through(origin: Origin, start: StartProxy) -> None:
    """A Helm chart is served as it is, even where images could be merged."""
    push_pair(origin.registry)
    chart = push_artifact(origin.registry, VIRTUAL)
    proxy = await start(origin)

    answer = await proxy.get(TAG)

    assert answer.headers["Docker-Content-Digest"] == chart.digest


async def test_a_chart_among_the_sources_is_left_out(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A source that is no runnable image brings nothing into the index."""
    push(origin.registry, X86, platform="linux/amd64")
    push_artifact(origin.registry, ARM)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG)

    assert [platform for platform, _ in await merged(proxy)] == ["linux/amd64"]
    assert "not a runnable image" in answer.headers["Warning"]


async def test_a_name_without_rule_passes_unchanged(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Names that no rule touches are served as they are upstream, digest for digest."""
    pushed = push(origin.registry, "other/tool")
    proxy = await start(origin, rule=[rule])

    answers = [await proxy.get(f"/v2/other/tool/manifests/{ref}") for ref in ("1.0", pushed.digest)]

    assert [answer.headers["Docker-Content-Digest"] for answer in answers] == [pushed.digest] * 2
    assert answers[0].headers["Content-Type"] == pushed.media_type


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


async def test_a_manifest_tool_template(origin: Origin, start: StartProxy) -> None:
    """manifest-tool's ARCH and VARIANT work as they do there."""
    push(origin.registry, "foo/bar-amd64", "v1", "linux/amd64")
    push(origin.registry, "foo/bar-armv7", "v1", "linux/arm/v7")
    rules = [
        {"match": "foo/bar", "template": "foo/bar-ARCHVARIANT:{tag}", "platforms": ["linux/amd64", "linux/arm/v7"]}
    ]
    proxy = await start(origin, rule=rules)

    assert [platform for platform, _ in await merged(proxy, "/v2/foo/bar/manifests/v1")] == [
        "linux/amd64",
        "linux/arm/v7",
    ]
