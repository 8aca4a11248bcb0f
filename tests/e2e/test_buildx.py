"""Buildx inspects and makes indexes."""

import json

import pytest

from e2e import wire
from e2e.images import PAIRS
from e2e.manifuse import Proxy
from e2e.peers import Client, Registry


@pytest.mark.client("buildx", "imagetools inspect")
@pytest.mark.parametrize("repository", PAIRS)
def test_imagetools_inspects_the_index(repository: str, proxy: Proxy, buildx: Client) -> None:
    """`docker buildx imagetools inspect --raw` prints the index to the byte."""
    served = wire.manifest(proxy.address, repository, "1.0")

    assert buildx("imagetools", "inspect", "--raw", f"{proxy.address}/{repository}:1.0").encode() == served.body


@pytest.mark.client("buildx", "imagetools inspect")
def test_imagetools_reads_the_config_of_every_platform(proxy: Proxy, buildx: Client) -> None:
    """Its formatted output needs each child and its config."""
    name = f"{proxy.address}/kimoqi/oci:1.0"
    seen = json.loads(buildx("imagetools", "inspect", "--format={{json .Image}}", name))

    assert {each["architecture"] for each in seen.values()} == {"amd64", "arm64"}


@pytest.mark.client("buildx", "imagetools create")
@pytest.mark.parametrize("repository", PAIRS)
def test_imagetools_makes_what_is_served_already(
    repository: str, open_proxy: Proxy, registry: Registry, buildx: Client
) -> None:
    """`imagetools create` of a merged name, pushed through the proxy, is the synthesized index to the byte."""
    served = wire.manifest(open_proxy.address, repository, "1.0")
    target = f"{open_proxy.address}/buildx/{repository}:by-hand"
    buildx("imagetools", "create", f"--tag={target}", f"{open_proxy.address}/{repository}:1.0")

    assert wire.manifest(registry.address, f"buildx/{repository}", "by-hand").body == served.body
    assert wire.manifest(open_proxy.address, f"buildx/{repository}", "by-hand").body == served.body
