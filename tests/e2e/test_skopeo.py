"""Skopeo inspects and copies one name with all that is behind it."""

import json
from pathlib import Path

import pytest

from e2e import wire
from e2e.images import PAIRS
from e2e.manifuse import Proxy
from e2e.peers import Client


@pytest.mark.parametrize("repository", PAIRS)
def test_skopeo_sees_the_bytes_that_are_served(repository: str, proxy: Proxy, skopeo: Client) -> None:
    """`skopeo inspect --raw` prints the index to the byte, and the digest sent with it is its digest."""
    served = wire.manifest(proxy.address, repository, "1.0")
    seen = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{proxy.address}/{repository}:1.0")

    assert seen.encode() == served.body
    assert served.headers["Docker-Content-Digest"] == served.digest


def test_skopeo_inspect_lists_the_tags(proxy: Proxy, skopeo: Client) -> None:
    """`skopeo inspect`, which asks for the tags too, shows the native image and the merged tag."""
    seen = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{proxy.address}/kimoqi/alpine:1.0"))

    assert seen["Architecture"] == "amd64"
    assert "1.0" in seen["RepoTags"]


@pytest.mark.parametrize("repository", PAIRS)
def test_skopeo_copies_every_platform(repository: str, proxy: Proxy, skopeo: Client, tmp_path: Path) -> None:
    """`skopeo copy --all` brings the index and every child along without changing a digest."""
    served = wire.manifest(proxy.address, repository, "1.0")
    source = f"docker://{proxy.address}/{repository}:1.0"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"dir:{tmp_path}/copy")
    children = {f"sha256:{path.name.split('.')[0]}" for path in tmp_path.glob("copy/*.manifest.json")}

    assert (tmp_path / "copy" / "manifest.json").read_bytes() == served.body
    assert children == set(served.entries)


def test_skopeo_copies_an_oci_index_into_a_layout(proxy: Proxy, skopeo: Client, tmp_path: Path) -> None:
    """An index of two OCI images is an OCI index: a layout holds it under the digest that the proxy sent."""
    served = wire.manifest(proxy.address, "kimoqi/oci", "1.0")
    source = f"docker://{proxy.address}/kimoqi/oci:1.0"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"oci:{tmp_path}/layout:1.0")
    layout = json.loads((tmp_path / "layout" / "index.json").read_bytes())

    assert [entry["digest"] for entry in layout["manifests"]] == [served.digest]
