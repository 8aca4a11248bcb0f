"""The sources of one name are on two registries, one of them private."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import wire
from e2e.gopeers import REGISTRIES
from e2e.images import MACHINES
from e2e.manifuse import Proxy, serving, upstream
from e2e.peers import Client, Registry, Workshop

RULE = """
[[rule]]
match = "kimoqi/split"
sources = [
  { image = "{repository}-x86:{tag}", platform = "linux/amd64" },
  { image = "{repository}-arm:{tag}", platform = "linux/arm64/v8", upstream = "arm-site" },
]
"""


@pytest.fixture(scope="module")
def split(
    registry: Registry, private_registry: Registry, docker_images: None, skopeo: Client, workshop: Workshop
) -> Iterator[Proxy]:
    """A proxy in front of two registries; the ARM half of `kimoqi/split` is only on the private one."""
    account = private_registry.account
    assert account
    x86, arm = (f"docker://{registry.address}/kimoqi/alpine-{word}:1.0" for word in ("x86", "arm"))
    copy = ("copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
    skopeo(*copy, x86, f"docker://{registry.address}/kimoqi/split-x86:1.0")
    credentials = f"--dest-creds={account.username}:{account.password}"
    skopeo(*copy, credentials, arm, f"docker://{private_registry.address}/kimoqi/split-arm:1.0")
    folder = workshop("split")
    private = upstream(private_registry, "arm-site", default=False, password_file=folder / "password")
    with serving(upstream(registry) + private + RULE, folder) as proxy:
        yield proxy


@pytest.mark.parametrize("platform", MACHINES)
def test_docker_needs_no_credentials(platform: str, split: Proxy, docker: Client, emulation: None) -> None:
    """The proxy signs in where it has to; whoever pulls from it doesn't notice that there are two registries."""
    name = f"{split.address}/kimoqi/split:1.0"
    docker("pull", "--platform", platform, name)
    printed = docker("run", "--rm", "--network", "none", "--platform", platform, name)

    assert printed == MACHINES[platform]


def test_skopeo_copies_from_both_registries(split: Proxy, skopeo: Client, tmp_path: Path) -> None:
    """`skopeo copy --all` finds every manifest and blob of both registries under the one name."""
    source = f"docker://{split.address}/kimoqi/split:1.0"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"dir:{tmp_path}/copy")

    assert len(list(tmp_path.glob("copy/*.manifest.json"))) == 2


def test_the_private_registry_is_private(split: Proxy, private_registry: Registry) -> None:
    """Without the proxy's credentials the private source cannot be read: the other tests prove something."""
    refused = wire.manifest(private_registry.address, "kimoqi/split-arm", "1.0")
    served = wire.manifest(split.address, "kimoqi/split", "1.0")

    assert refused.status == 401
    assert sorted(platform for _, platform in served.entries.values()) == ["linux/amd64", "linux/arm64/v8"]


@pytest.mark.parametrize("name", REGISTRIES)
def test_the_registry_does_not_matter(
    name: str, proxy: Proxy, registry: Registry, crane: Client, workshop: Workshop
) -> None:
    """Whatever keeps the sources, they are merged to the same bytes."""
    with REGISTRIES[name](workshop(name)) as other, serving(upstream(other), workshop("proxy")) as started:
        for word in ("x86", "arm"):
            crane("copy", *(f"{each.address}/kimoqi/mixed-{word}:1.0" for each in (registry, other)))
        merged = wire.manifest(started.address, "kimoqi/mixed", "1.0")

    assert merged.body == wire.manifest(proxy.address, "kimoqi/mixed", "1.0").body
