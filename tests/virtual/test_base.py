"""What stands at the virtual name itself: passed through, merged or ignored."""

from __future__ import annotations

from typing import Any

from conftest import StartProxy
from images import ARM, VIRTUAL, X86, entry, push, push_artifact, push_index, push_pair
from proxy.oci.mediatype import DOCKER_LIST, OCI_MANIFEST
from scripted import Origin
from virtual.merged import TAG, merged


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
