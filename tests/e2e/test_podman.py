"""Podman and buildah pull one name."""

import pytest

from e2e.images import ARCHITECTURES, PAIRS
from e2e.manifuse import Proxy
from e2e.peers import Client


@pytest.mark.client("podman", "pull --arch")
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


@pytest.mark.client("buildah", "pull --arch")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_buildah_pulls_the_architecture_it_asks_for(architecture: str, proxy: Proxy, buildah: Client) -> None:
    """What `buildah pull --arch` stores is an image of that architecture."""
    name = f"{proxy.address}/kimoqi/alpine:1.0"
    buildah("pull", "--tls-verify=false", "--arch", architecture, name)
    stored = buildah("inspect", "--type=image", "--format", "{{.OCIv1.Architecture}}", name)

    assert stored == architecture


@pytest.mark.client("buildah", "from --arch, run")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_buildah_builds_from_the_architecture_it_asks_for(
    architecture: str, proxy: Proxy, buildah: Client, emulation: None
) -> None:
    """`buildah from --arch` starts a container of that architecture, and commands run in it."""
    name = f"{proxy.address}/kimoqi/alpine:1.0"
    container = buildah("from", "--quiet", "--tls-verify=false", "--arch", architecture, name)
    printed = buildah("run", "--isolation=chroot", container, "--", "/bin/busybox", "uname", "-m")

    assert printed == ARCHITECTURES[architecture]


@pytest.mark.client("podman", "push")
def test_podman_pulls_what_it_has_pushed(open_proxy: Proxy, podman: Client) -> None:
    """`podman push` of two architectures under their own names, and `podman pull` of one name, all at one address."""
    _push_both(podman, open_proxy, "podman/app")
    name = f"{open_proxy.address}/podman/app:1.0"
    podman("pull", "--tls-verify=false", "--arch=arm64", name)

    assert podman("image", "inspect", "--format", "{{.Architecture}}", name) == "arm64"


@pytest.mark.client("buildah", "push")
def test_buildah_pulls_what_it_has_pushed(open_proxy: Proxy, buildah: Client) -> None:
    """`buildah push` of two architectures under their own names, and `buildah pull` of one name, all at one address."""
    _push_both(buildah, open_proxy, "buildah/app")
    name = f"{open_proxy.address}/buildah/app:1.0"
    buildah("pull", "--tls-verify=false", "--arch=arm64", name)

    assert buildah("inspect", "--type=image", "--format", "{{.OCIv1.Architecture}}", name) == "arm64"


def _push_both(client: Client, proxy: Proxy, repository: str) -> None:
    for word in ("x86", "arm"):
        source, target = (f"{proxy.address}/{name}-{word}:1.0" for name in ("kimoqi/alpine", repository))
        client("pull", "--tls-verify=false", source)
        client("tag", source, target)
        client("push", "--tls-verify=false", target)
