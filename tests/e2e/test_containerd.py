"""Containerd pulls through the proxy as the mirror of a registry, which it names with `?ns=`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import wire
from e2e.images import MACHINES, PAIRS
from e2e.manifuse import Proxy, serving, upstream
from e2e.peers import Client, Registry, Workshop

HOSTS = """\
server = "http://{address}"
[host."http://{address}"]
capabilities = ["pull", "resolve"]
"""


@pytest.fixture(scope="module")
def mirror(
    registry: Registry, private_registry: Registry, docker_images: None, oci_images: None, workshop: Workshop
) -> Iterator[Proxy]:
    """A proxy whose default is another registry: only `?ns=registry.example` leads to the images."""
    configuration = upstream(private_registry, "other") + upstream(
        registry, aliases=("registry.example",), default=False
    )
    with serving(configuration, workshop("mirror")) as proxy:
        yield proxy


@pytest.fixture
def hosts(mirror: Proxy, tmp_path: Path) -> str:
    """A folder that tells containerd to ask the proxy for what is on registry.example."""
    (tmp_path / "registry.example").mkdir()
    (tmp_path / "registry.example" / "hosts.toml").write_text(HOSTS.format(address=mirror.address))
    return str(tmp_path)


@pytest.fixture
def ctr(containerd: Client) -> Iterator[Client]:
    """A `ctr` whose containerd has no image when the test is over."""
    yield containerd
    for name in containerd("images", "list", "--quiet").splitlines():
        containerd("images", "remove", "--sync", name)


@pytest.mark.client("containerd", "pull --platform, run")
@pytest.mark.parametrize("platform", MACHINES)
@pytest.mark.parametrize("repository", PAIRS)
def test_containerd_runs_the_platform_it_asks_for(
    repository: str, platform: str, ctr: Client, hosts: str, emulation: None
) -> None:
    """A name of the mirrored registry, pulled for a platform, runs on that platform."""
    name = f"registry.example/{repository}:1.0"
    ctr("images", "pull", "--hosts-dir", hosts, "--snapshotter=native", "--platform", platform, name)
    printed = ctr("run", "--rm", "--snapshotter=native", "--platform", platform, name, "once")

    assert printed == MACHINES[platform]


@pytest.mark.client("containerd", "pull --all-platforms")
def test_containerd_pulls_all_platforms(mirror: Proxy, ctr: Client, hosts: str) -> None:
    """One pull may bring every platform: afterwards all children of the index are there."""
    served = wire.manifest(mirror.address, "kimoqi/alpine", "1.0?ns=registry.example")
    name = "registry.example/kimoqi/alpine:1.0"
    ctr("images", "pull", "--hosts-dir", hosts, "--snapshotter=native", "--all-platforms", name)
    stored = ctr("content", "list", "--quiet").split()

    assert len(served.entries) == 2
    assert {served.digest, *served.entries} <= set(stored)
