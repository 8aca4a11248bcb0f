"""Real clients and the three ways in which blobs are served; pushes to a registry that asks who is there."""

from pathlib import Path

import pytest

from e2e import wire
from e2e.images import MACHINES
from e2e.manifuse import StartProxy, upstream
from e2e.peers import Client, Registry


def with_mode(configuration: str, mode: str) -> str:
    """Return a configuration whose upstream serves blobs in this mode."""
    return configuration.replace("[[upstream]]\n", f'[[upstream]]\nblobs = "{mode}"\n')


@pytest.mark.parametrize("mode", ["stream", "redirect", "cache"])
def test_docker_pulls_in_every_mode(
    mode: str, registry: Registry, docker_images: None, start_proxy: StartProxy, docker: Client, emulation: None
) -> None:
    """Whatever way the layers take, each platform runs as what it is; twice, as the second pull may be a hit."""
    name = f"{start_proxy(with_mode(upstream(registry), mode)).address}/kimoqi/alpine:1.0"
    for _ in range(2):
        for platform, machine in MACHINES.items():
            docker("pull", "--platform", platform, name)
            assert docker("run", "--rm", "--network", "none", "--platform", platform, name) == machine
        docker("system", "prune", "--all", "--force")


@pytest.mark.parametrize("mode", ["redirect", "cache"])
def test_skopeo_copies_in_every_mode(
    mode: str, registry: Registry, oci_images: None, start_proxy: StartProxy, skopeo: Client, tmp_path: Path
) -> None:
    """All platforms, digests kept."""
    proxy = start_proxy(with_mode(upstream(registry), mode))
    served = wire.manifest(proxy.address, "kimoqi/oci", "1.0")
    source = f"docker://{proxy.address}/kimoqi/oci:1.0"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"dir:{tmp_path}/copy")

    assert (tmp_path / "copy" / "manifest.json").read_bytes() == served.body


def test_a_push_signs_in_where_it_has_to(
    registry: Registry,
    private_registry: Registry,
    docker_images: None,
    start_proxy: StartProxy,
    skopeo: Client,
    tmp_path: Path,
) -> None:
    """The proxy pushes with its own credentials; whoever pushes through it needs none."""
    private = upstream(private_registry, "private", default=False, password_file=tmp_path / "password")
    proxy = start_proxy(upstream(registry) + private + "push = true\n")
    copy = ("copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
    for architecture in ("x86", "arm"):
        source = f"docker://{registry.address}/kimoqi/alpine-{architecture}:1.0"
        skopeo(*copy, source, f"docker://{proxy.address}/private/kimoqi/pushed-{architecture}:1.0")
    merged = wire.manifest(proxy.address, "private/kimoqi/pushed", "1.0")

    assert wire.manifest(private_registry.address, "kimoqi/pushed-x86", "1.0").status == 401
    assert sorted(platform for _, platform in merged.entries.values()) == ["linux/amd64", "linux/arm64/v8"]
