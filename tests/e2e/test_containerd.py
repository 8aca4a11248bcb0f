"""Containerd pulls through the proxy as the mirror of a registry, which it names with `?ns=`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from e2e import wire
from e2e.images import MACHINES, PAIRS
from e2e.manifuse import Proxy, serving, upstream
from e2e.peers import Client, ClientFailed, Registry, Workshop
from pods import the
from ports import free_port

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


@pytest.mark.client("containerd", "pull --platform, run")
@pytest.mark.parametrize("platform", MACHINES)
@pytest.mark.parametrize("repository", PAIRS)
def test_containerd_runs_the_platform_it_asks_for(
    repository: str, platform: str, ctr: Client, hosts: str, emulation: None
) -> None:
    """A name of the mirrored registry, pulled for a platform, runs on that platform."""
    name = f"registry.example/{repository}:1.0"
    ctr("images", "pull", "--hosts-dir", hosts, "--snapshotter=native", "--platform", platform, name)
    # A name of its own: what ran before may not be quite gone yet.
    printed = ctr("run", "--rm", "--snapshotter=native", "--platform", platform, name, f"run-{uuid4().hex}")

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


def told(root: Path, registry: str, mirror: str) -> str:
    """Let the node mirror of Kubernetes tell containerd of a mirror for *registry*; return the folder it is told by."""
    certs = root / "etc/containerd/certs.d"
    certs.mkdir(parents=True)
    teller = the("node-mirror").containers["tell-containerd"]
    done = replace(teller, spec={**teller.spec, "env": [{"name": "REGISTRIES", "value": registry}]}).run(root)
    assert done.returncode == 0, done.stderr
    file = certs / registry / "hosts.toml"
    file.write_text(file.read_text().replace("127.0.0.1:5080", mirror))
    return str(certs)


def test_containerd_asks_the_node_mirror(mirror: Proxy, ctr: Client, tmp_path: Path) -> None:
    """What is written on the nodes of Kubernetes leads containerd to the proxy."""
    certs = told(tmp_path, "registry.example", mirror.address)
    name = "registry.example/kimoqi/alpine:1.0"
    ctr("images", "pull", "--hosts-dir", certs, "--snapshotter=native", "--platform", "linux/arm64", name)

    assert name in ctr("images", "list", "--quiet").splitlines()


def test_containerd_asks_the_registry_when_the_node_mirror_is_down(
    registry: Registry, docker_images: None, ctr: Client, tmp_path: Path
) -> None:
    """It names no server, and so the registry of the image's own name is asked: for names that it has."""
    certs = told(tmp_path, registry.address, f"127.0.0.1:{free_port()}")
    pull = ("images", "pull", "--hosts-dir", certs, "--snapshotter=native")
    name = f"{registry.address}/kimoqi/alpine-x86:1.0"
    ctr(*pull, "--platform", "linux/amd64", name)

    assert name in ctr("images", "list", "--quiet").splitlines()
    with pytest.raises(ClientFailed, match=r"NotFound|not found"):
        ctr(*pull, f"{registry.address}/kimoqi/alpine:1.0")
