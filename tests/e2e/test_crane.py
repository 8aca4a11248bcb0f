"""Crane reads, copies and pushes one name."""

import json
from pathlib import Path

import pytest

from e2e import wire
from e2e.images import PAIRS
from e2e.manifuse import Proxy
from e2e.peers import Client, Registry


@pytest.mark.client("crane", "digest")
@pytest.mark.parametrize("repository", PAIRS)
def test_crane_digest_is_the_index(repository: str, proxy: Proxy, crane: Client) -> None:
    """`crane digest`, which only sends HEAD, prints the digest of what GET serves."""
    served = wire.manifest(proxy.address, repository, "1.0")

    assert crane("digest", f"{proxy.address}/{repository}:1.0") == served.digest


@pytest.mark.client("crane", "digest --platform")
def test_crane_digest_of_a_platform_is_the_child(proxy: Proxy, crane: Client) -> None:
    """`crane digest --platform` finds the child in the index."""
    served = wire.manifest(proxy.address, "kimoqi/alpine", "1.0")
    (arm,) = (digest for digest, (_, platform) in served.entries.items() if platform == "linux/arm64/v8")

    assert crane("digest", "--platform=linux/arm64/v8", f"{proxy.address}/kimoqi/alpine:1.0") == arm


@pytest.mark.client("crane", "manifest")
@pytest.mark.parametrize("repository", PAIRS)
def test_crane_manifest_prints_the_index(repository: str, proxy: Proxy, crane: Client) -> None:
    """`crane manifest` prints the index to the byte."""
    served = wire.manifest(proxy.address, repository, "1.0")

    assert crane("manifest", f"{proxy.address}/{repository}:1.0").encode() == served.body


@pytest.mark.client("crane", "ls")
def test_crane_lists_the_tags(proxy: Proxy, crane: Client) -> None:
    """`crane ls` of a merged name shows the tag that only its sources have."""
    assert "1.0" in crane("ls", f"{proxy.address}/kimoqi/alpine").splitlines()


@pytest.mark.client("crane", "pull")
@pytest.mark.parametrize("repository", PAIRS)
def test_crane_pulls_the_index(repository: str, proxy: Proxy, crane: Client, tmp_path: Path) -> None:
    """`crane pull` into a layout brings the index and all that it names."""
    served = wire.manifest(proxy.address, repository, "1.0")
    crane("pull", "--format=oci", f"{proxy.address}/{repository}:1.0", f"{tmp_path}/layout")

    assert _top(tmp_path / "layout") == [served.digest]
    assert {served.digest, *served.entries} <= _blobs(tmp_path / "layout")


@pytest.mark.client("crane", "pull --platform")
@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64/v8"])
def test_crane_pulls_a_platform(platform: str, proxy: Proxy, crane: Client, tmp_path: Path) -> None:
    """`crane pull --platform` brings the child of that platform."""
    served = wire.manifest(proxy.address, "kimoqi/oci", "1.0")
    children = [digest for digest, (_, name) in served.entries.items() if name == platform]
    crane("pull", "--format=oci", f"--platform={platform}", f"{proxy.address}/kimoqi/oci:1.0", f"{tmp_path}/layout")

    assert _top(tmp_path / "layout") == children


@pytest.mark.client("crane", "validate --remote --platform")
@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64/v8"])
@pytest.mark.parametrize("repository", PAIRS)
def test_crane_validates_what_it_can_fetch(repository: str, platform: str, proxy: Proxy, crane: Client) -> None:
    """`crane validate --platform` fetches manifest, config and layers, and finds digests and sizes right."""
    crane("validate", f"--platform={platform}", "--remote", f"{proxy.address}/{repository}:1.0")


@pytest.mark.client("crane", "validate --remote")
def test_crane_validates_the_index(proxy: Proxy, registry: Registry, crane: Client) -> None:
    """`crane validate` of the whole index compares each platform with the config of the child."""
    for word, platform in (("x86", "linux/amd64"), ("arm", "linux/arm64/v8")):
        # The index says arm64/v8, as all that crane compares it with must: builders leave the variant out.
        source, target = (f"{registry.address}/kimoqi/{name}-{word}:1.0" for name in ("oci", "exact"))
        crane("mutate", f"--set-platform={platform}", f"--tag={target}", source)

    crane("validate", "--remote", f"{proxy.address}/kimoqi/exact:1.0")


@pytest.mark.client("crane", "copy")
@pytest.mark.parametrize("repository", PAIRS)
def test_crane_copies_to_another_registry(
    repository: str, proxy: Proxy, elsewhere: Registry, registry: Registry, crane: Client
) -> None:
    """`crane copy` takes the index and its children along to another registry, where they have the same digests."""
    served = wire.manifest(proxy.address, repository, "1.0")
    crane("copy", f"{proxy.address}/{repository}:1.0", f"{elsewhere.address}/{repository}:1.0")

    assert wire.manifest(elsewhere.address, repository, "1.0").body == served.body
    for digest in served.entries:
        assert wire.manifest(elsewhere.address, repository, digest).digest == digest


@pytest.mark.client("crane", "copy to the proxy")
@pytest.mark.parametrize("repository", PAIRS)
def test_crane_copies_through_the_proxy(repository: str, open_proxy: Proxy, registry: Registry, crane: Client) -> None:
    """`crane copy` freezes a merged name under another one of the same address: one index, the same digest."""
    served = wire.manifest(open_proxy.address, repository, "1.0")
    crane("copy", f"{open_proxy.address}/{repository}:1.0", f"{open_proxy.address}/crane/{repository}:frozen")

    assert wire.manifest(registry.address, f"crane/{repository}", "frozen").body == served.body
    assert wire.manifest(open_proxy.address, f"crane/{repository}", "frozen").body == served.body


@pytest.mark.client("crane", "push")
def test_crane_pushes_what_is_merged_at_once(open_proxy: Proxy, crane: Client, tmp_path: Path) -> None:
    """`crane push` of one architecture after the other: each push changes the merged name at once."""
    seen = []
    for word, platform in (("x86", "linux/amd64"), ("arm", "linux/arm64/v8")):
        path = f"{tmp_path}/{word}"
        crane("pull", "--format=oci", f"--platform={platform}", f"{open_proxy.address}/kimoqi/oci:1.0", path)
        crane("push", path, f"{open_proxy.address}/crane/pushed-{word}:1.0")
        served = wire.manifest(open_proxy.address, "crane/pushed", "1.0")
        seen.append(sorted(name for _, name in served.entries.values()))

    assert seen == [["linux/amd64"], ["linux/amd64", "linux/arm64/v8"]]


def _top(layout: Path) -> list[str]:
    return [entry["digest"] for entry in json.loads((layout / "index.json").read_bytes())["manifests"]]


def _blobs(layout: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (layout / "blobs" / "sha256").iterdir()}
