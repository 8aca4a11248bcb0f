"""Every kind of source, through the whole service: what the index holds in the end."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from conftest import Clock, StartProxy
from images import ARM, VIRTUAL, X86, entry, push, push_attestation, push_index, push_pair, push_with_config
from proxy.oci import mediatype
from proxy.oci.mediatype import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from proxy.oci.reference import Tag
from scripted import Origin, status
from virtual.merged import TAG, merged


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
