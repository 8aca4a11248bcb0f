"""Podman and buildah pull one name."""

import pytest

from e2e.images import ARCHITECTURES, PAIRS
from e2e.manifuse import Proxy
from e2e.peers import Client


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("repository", PAIRS)
def test_podman_pulls_the_architecture_it_asks_for(
    repository: str, architecture: str, proxy: Proxy, podman: Client
) -> None:
    """What `podman pull --arch` stores is an image of that architecture."""
    name = f"{proxy.address}/{repository}:1.0"
    podman("pull", "--tls-verify=false", "--arch", architecture, name)
    stored = podman("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", name)

    assert stored == f"linux/{architecture}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_buildah_pulls_the_architecture_it_asks_for(architecture: str, proxy: Proxy, buildah: Client) -> None:
    """What `buildah pull --arch` stores is an image of that architecture."""
    name = f"{proxy.address}/kimoqi/alpine:1.0"
    buildah("pull", "--tls-verify=false", "--arch", architecture, name)
    stored = buildah("inspect", "--type=image", "--format", "{{.OCIv1.Architecture}}", name)

    assert stored == architecture


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_buildah_builds_from_the_architecture_it_asks_for(
    architecture: str, proxy: Proxy, buildah: Client, emulation: None
) -> None:
    """`buildah from --arch` starts a container of that architecture, and commands run in it."""
    name = f"{proxy.address}/kimoqi/alpine:1.0"
    container = buildah("from", "--quiet", "--tls-verify=false", "--arch", architecture, name)
    printed = buildah("run", "--isolation=chroot", container, "--", "/bin/busybox", "uname", "-m")

    assert printed == ARCHITECTURES[architecture]
