"""`manifuse publish` between real registries: what comes out is what clients got before."""

import json
import subprocess

import pytest

from e2e import wire
from e2e.images import MACHINES, PAIRS
from e2e.manifuse import COMMAND, Proxy, StartProxy, upstream
from e2e.peers import Client, Registry
from patience import HANGING


def publish(proxy: Proxy, *arguments: str) -> str:
    """Run `manifuse publish` by the proxy's own configuration, and return what it printed."""
    done = subprocess.run(
        [*COMMAND, "publish", "--config", str(proxy.configuration), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def mirroring(registry: Registry, elsewhere: Registry, start_proxy: StartProxy) -> Proxy:
    """A proxy that knows two registries."""
    return start_proxy(upstream(registry) + upstream(elsewhere, "mirror", default=False))


@pytest.mark.parametrize("repository", PAIRS)
def test_a_release_is_frozen_elsewhere(
    repository: str,
    mirroring: Proxy,
    elsewhere: Registry,
    docker_images: None,
    oci_images: None,
    crane: Client,
) -> None:
    """Another registry has the same index, and all that it names: crane validates it there, platform by platform."""
    served = wire.manifest(mirroring.address, repository, "1.0")
    publish(mirroring, f"{repository}:1.0", "--to", f"mirror/releases/{repository}:v1")
    frozen = wire.manifest(elsewhere.address, f"releases/{repository}", "v1")

    assert frozen.body == served.body
    for platform in ("linux/amd64", "linux/arm64/v8"):
        crane("validate", "--remote", f"{elsewhere.address}/releases/{repository}:v1", "--platform", platform)


def test_a_release_is_frozen_at_its_own_name(
    registry: Registry, start_proxy: StartProxy, docker_images: None, docker: Client, emulation: None
) -> None:
    """The registry itself has the index then, without a byte of a layer sent; docker pulls from it without us."""
    proxy = start_proxy(upstream(registry))
    served = wire.manifest(proxy.address, "kimoqi/mixed", "1.0")
    told = json.loads(publish(proxy, "kimoqi/mixed:1.0", "--to", "kimoqi/frozen:1.0", "--json"))
    frozen = wire.manifest(registry.address, "kimoqi/frozen", "1.0")
    image = f"{registry.address}/kimoqi/frozen:1.0"
    for platform, machine in MACHINES.items():
        docker("pull", "--platform", platform, image)
        assert docker("run", "--rm", "--network", "none", "--platform", platform, image) == machine

    assert frozen.body == served.body
    assert {step["how"] for step in told["steps"] if step["kind"] == "blob"} == {"mount"}


def test_what_is_published_once_is_published(
    mirroring: Proxy, elsewhere: Registry, docker_images: None, oci_images: None
) -> None:
    """A second run finds everything there."""
    target = "mirror/releases/again:v1"
    publish(mirroring, "kimoqi/oci:1.0", "--to", target)
    again = json.loads(publish(mirroring, "kimoqi/oci:1.0", "--to", target, "--dry-run", "--json"))

    assert {step["how"] for step in again["steps"]} == {"there"}
