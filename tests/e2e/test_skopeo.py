"""Skopeo inspects and copies one name with all that is behind it."""

import json
from itertools import product
from pathlib import Path

import pytest

from e2e import wire
from e2e.images import PAIRS
from e2e.manifuse import Proxy
from e2e.peers import Client, Registry


@pytest.mark.client("skopeo", "inspect --raw")
@pytest.mark.parametrize("repository", PAIRS)
def test_skopeo_sees_the_bytes_that_are_served(repository: str, proxy: Proxy, skopeo: Client) -> None:
    """`skopeo inspect --raw` prints the index to the byte, and the digest sent with it is its digest."""
    served = wire.manifest(proxy.address, repository, "1.0")
    seen = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{proxy.address}/{repository}:1.0")

    assert seen.encode() == served.body
    assert served.headers["Docker-Content-Digest"] == served.digest


@pytest.mark.client("skopeo", "inspect")
def test_skopeo_inspect_lists_the_tags(proxy: Proxy, skopeo: Client) -> None:
    """`skopeo inspect`, which asks for the tags too, shows the native image and the merged tag."""
    seen = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{proxy.address}/kimoqi/alpine:1.0"))

    assert seen["Architecture"] == "amd64"
    assert "1.0" in seen["RepoTags"]


@pytest.mark.client("skopeo", "copy --all")
@pytest.mark.parametrize("repository", PAIRS)
def test_skopeo_copies_every_platform(repository: str, proxy: Proxy, skopeo: Client, tmp_path: Path) -> None:
    """`skopeo copy --all` brings the index and every child along without changing a digest."""
    served = wire.manifest(proxy.address, repository, "1.0")
    source = f"docker://{proxy.address}/{repository}:1.0"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"dir:{tmp_path}/copy")
    children = {f"sha256:{path.name.split('.')[0]}" for path in tmp_path.glob("copy/*.manifest.json")}

    assert (tmp_path / "copy" / "manifest.json").read_bytes() == served.body
    assert children == set(served.entries)


@pytest.mark.client("skopeo", "copy --all")
def test_skopeo_copies_an_oci_index_into_a_layout(proxy: Proxy, skopeo: Client, tmp_path: Path) -> None:
    """An index of two OCI images is an OCI index: a layout holds it under the digest that the proxy sent."""
    served = wire.manifest(proxy.address, "kimoqi/oci", "1.0")
    source = f"docker://{proxy.address}/kimoqi/oci:1.0"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"oci:{tmp_path}/layout:1.0")
    layout = json.loads((tmp_path / "layout" / "index.json").read_bytes())

    assert [entry["digest"] for entry in layout["manifests"]] == [served.digest]


@pytest.mark.client("skopeo", "copy --all, and back")
@pytest.mark.parametrize("repository", ["kimoqi/oci", "kimoqi/mixed"])
def test_a_layout_goes_to_another_registry(
    repository: str, proxy: Proxy, elsewhere: Registry, skopeo: Client, tmp_path: Path
) -> None:
    """What was copied into an OCI layout, and from there to another registry, has the digests that it had here."""
    served = wire.manifest(proxy.address, repository, "1.0")
    layout, target = f"oci:{tmp_path}/layout:1.0", f"docker://{elsewhere.address}/skopeo/{repository}:1.0"
    options = ("copy", "--all", "--preserve-digests")
    skopeo(*options, "--src-tls-verify=false", f"docker://{proxy.address}/{repository}:1.0", layout)
    skopeo(*options, "--dest-tls-verify=false", layout, target)

    assert wire.manifest(elsewhere.address, f"skopeo/{repository}", "1.0").body == served.body
    for digest in served.entries:
        assert wire.manifest(elsewhere.address, f"skopeo/{repository}", digest).digest == digest


@pytest.mark.client("skopeo", "sync")
def test_a_whole_repository_is_mirrored(
    proxy: Proxy, registry: Registry, elsewhere: Registry, skopeo: Client, tmp_path: Path
) -> None:
    """`skopeo sync` finds every merged tag of a repository; on disk and at another registry, digests are the same."""
    tags = ("1.0", "1.1", "latest")
    for word, tag in product(("x86", "arm"), tags):
        source, target = (f"docker://{registry.address}/{n}-{word}" for n in ("kimoqi/oci", "kimoqi/synced"))
        tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
        skopeo("copy", "--preserve-digests", *tls, f"{source}:1.0", f"{target}:{tag}")
    served = {tag: wire.manifest(proxy.address, "kimoqi/synced", tag).body for tag in tags}
    options = ("sync", "--all", "--preserve-digests")
    skopeo(
        *options,
        "--src=docker",
        "--src-tls-verify=false",
        "--dest=dir",
        f"{proxy.address}/kimoqi/synced",
        str(tmp_path),
    )
    skopeo(
        *options, "--src=dir", "--dest=docker", "--dest-tls-verify=false", str(tmp_path), f"{elsewhere.address}/mirror"
    )

    assert {path.name for path in tmp_path.iterdir()} == {f"synced:{tag}" for tag in tags}
    assert {tag: wire.manifest(elsewhere.address, "mirror/synced", tag).body for tag in tags} == served


@pytest.mark.client("skopeo", "copy --all to the proxy")
@pytest.mark.parametrize("repository", PAIRS)
def test_skopeo_copies_through_the_proxy(
    repository: str, open_proxy: Proxy, registry: Registry, skopeo: Client
) -> None:
    """`skopeo copy --all` freezes a merged name under another one of the same address: the same digest."""
    served = wire.manifest(open_proxy.address, repository, "1.0")
    source, target = (
        f"docker://{open_proxy.address}/{n}" for n in (f"{repository}:1.0", f"skopeo/{repository}:frozen")
    )
    tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
    skopeo("copy", "--all", "--preserve-digests", *tls, source, target)

    assert wire.manifest(registry.address, f"skopeo/{repository}", "frozen").body == served.body
    assert wire.manifest(open_proxy.address, f"skopeo/{repository}", "frozen").body == served.body
