"""Regctl reads, copies and pushes one name."""

import json
from pathlib import Path

import pytest

from e2e import wire
from e2e.images import ARCHITECTURES, PAIRS
from e2e.manifuse import Proxy
from e2e.peers import Client, Registry


def plain(*addresses: str) -> list[str]:
    """Return the options that let regctl ask these addresses without TLS."""
    return [f"--host=reg={address},tls=disabled" for address in addresses]


@pytest.mark.client("regctl", "manifest get")
@pytest.mark.parametrize("repository", PAIRS)
def test_regctl_gets_the_index(repository: str, proxy: Proxy, regctl: Client) -> None:
    """`regctl manifest get` prints the index to the byte."""
    served = wire.manifest(proxy.address, repository, "1.0")
    seen = regctl(*plain(proxy.address), "manifest", "get", "--format=raw-body", f"{proxy.address}/{repository}:1.0")

    assert seen.encode() == served.body


@pytest.mark.client("regctl", "manifest head")
def test_regctl_head_is_the_index(proxy: Proxy, regctl: Client) -> None:
    """`regctl manifest head` prints the digest of what GET serves."""
    served = wire.manifest(proxy.address, "kimoqi/alpine", "1.0")

    assert regctl(*plain(proxy.address), "manifest", "head", f"{proxy.address}/kimoqi/alpine:1.0") == served.digest


@pytest.mark.client("regctl", "image inspect --platform")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_regctl_inspects_a_platform(architecture: str, proxy: Proxy, regctl: Client) -> None:
    """`regctl image inspect --platform` reads the config of the child of that platform."""
    name = f"{proxy.address}/kimoqi/alpine:1.0"
    options = (f"--platform=linux/{architecture}", "--format={{.Architecture}}")

    assert regctl(*plain(proxy.address), "image", "inspect", *options, name) == architecture


@pytest.mark.client("regctl", "tag ls")
def test_regctl_lists_the_tags(proxy: Proxy, regctl: Client) -> None:
    """`regctl tag ls` of a merged name shows the tag that only its sources have."""
    assert "1.0" in regctl(*plain(proxy.address), "tag", "ls", f"{proxy.address}/kimoqi/alpine").splitlines()


@pytest.mark.client("regctl", "repo ls")
def test_regctl_lists_the_repositories(proxy: Proxy, regctl: Client) -> None:
    """`regctl repo ls` shows the merged name, which no registry has."""
    assert "kimoqi/alpine" in regctl(*plain(proxy.address), "repo", "ls", proxy.address).splitlines()


@pytest.mark.client("regctl", "image copy")
@pytest.mark.parametrize("repository", PAIRS)
def test_regctl_copies_into_a_layout(repository: str, proxy: Proxy, regctl: Client, tmp_path: Path) -> None:
    """`regctl image copy` brings the index and its children into an OCI layout without changing a digest."""
    served = wire.manifest(proxy.address, repository, "1.0")
    name = f"{proxy.address}/{repository}:1.0"
    regctl(*plain(proxy.address), "image", "copy", name, f"ocidir://{tmp_path}/layout:1.0")
    layout = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    stored = {f"sha256:{path.name}" for path in (tmp_path / "layout" / "blobs" / "sha256").iterdir()}

    assert [entry["digest"] for entry in layout["manifests"]] == [served.digest]
    assert set(served.entries) <= stored


@pytest.mark.client("regctl", "image copy")
def test_regctl_copies_to_another_registry(proxy: Proxy, elsewhere: Registry, regctl: Client) -> None:
    """`regctl image copy` with all that refers to the image ends with the same digests at another registry."""
    served = wire.manifest(proxy.address, "kimoqi/oci", "1.0")
    source, target = (f"{address}/kimoqi/oci:1.0" for address in (proxy.address, elsewhere.address))
    options = ("--referrers", "--digest-tags", "--force-recursive")
    regctl(*plain(proxy.address, elsewhere.address), "image", "copy", *options, source, target)

    assert wire.manifest(elsewhere.address, "kimoqi/oci", "1.0").body == served.body
    for digest in served.entries:
        assert wire.manifest(elsewhere.address, "kimoqi/oci", digest).digest == digest


@pytest.mark.client("regctl", "artifact list")
def test_regctl_lists_what_a_source_was_given(proxy: Proxy, registry: Registry, regctl: Client) -> None:
    """What refers to an image at its source is listed through the virtual name."""
    source = f"{registry.address}/kimoqi/mixed-arm:1.0"
    child = regctl(*plain(registry.address), "manifest", "head", source)
    put = ("artifact", "put", "--artifact-type=application/vnd.example.note", f"--subject={source}")
    regctl(*plain(registry.address), *put)
    listed = ("artifact", "list", "--format={{range .Descriptors}}{{.ArtifactType}}{{end}}")
    seen = regctl(*plain(proxy.address), *listed, f"{proxy.address}/kimoqi/mixed@{child}")

    assert seen == "application/vnd.example.note"


@pytest.mark.client("regctl", "image copy to the proxy")
@pytest.mark.parametrize("repository", PAIRS)
def test_regctl_copies_through_the_proxy(
    repository: str, open_proxy: Proxy, registry: Registry, regctl: Client
) -> None:
    """`regctl image copy` freezes a merged name under another one of the same address: the same digest."""
    served = wire.manifest(open_proxy.address, repository, "1.0")
    source, target = (f"{open_proxy.address}/{name}" for name in (f"{repository}:1.0", f"regctl/{repository}:frozen"))
    regctl(*plain(open_proxy.address), "image", "copy", source, target)

    assert wire.manifest(registry.address, f"regctl/{repository}", "frozen").body == served.body
    assert wire.manifest(open_proxy.address, f"regctl/{repository}", "frozen").body == served.body


@pytest.mark.client("regctl", "index create")
def test_regctl_makes_an_index_by_hand(open_proxy: Proxy, regctl: Client) -> None:
    """`regctl index create` at a virtual name: what its author pushed is served from then on."""
    name = f"{open_proxy.address}/regctl/by-hand:1.0"
    source = f"--ref={open_proxy.address}/kimoqi/oci:1.0"
    regctl(*plain(open_proxy.address), "index", "create", source, "--platform=linux/amd64", name)
    served = wire.manifest(open_proxy.address, "regctl/by-hand", "1.0")

    assert [platform for _, platform in served.entries.values()] == ["linux/amd64"]
