"""An image whose configuration lies about its architecture."""

import json

import pytest

from e2e import wire
from e2e.images import MACHINES
from e2e.manifuse import StartProxy, upstream
from e2e.peers import Client, Registry

RULE = """
[[rule]]
match = "kimoqi/careless"
sources = [
  { image = "{repository}-x86:{tag}", platform = "linux/amd64" },
  { image = "{repository}-arm:{tag}", platform = "linux/arm64/v8" },
]
"""


def test_both_images_say_amd64(registry: Registry, docker_images: None) -> None:
    """The careless build is careless: the ARM image's configuration says amd64."""
    manifest = json.loads(wire.manifest(registry.address, "kimoqi/careless-arm", "1.0").body)
    url = f"{registry.url}/v2/kimoqi/careless-arm/blobs/{manifest['config']['digest']}"
    configuration = json.loads(wire.request("GET", url).body)

    assert configuration["architecture"] == "amd64"


@pytest.mark.parametrize("platform", MACHINES)
def test_a_rule_wins_over_a_wrong_label(
    platform: str, registry: Registry, docker_images: None, start_proxy: StartProxy, docker: Client, emulation: None
) -> None:
    """Who asks for arm64 gets the image that the rule calls arm64, whatever its configuration says."""
    proxy = start_proxy(upstream(registry) + RULE)
    name = f"{proxy.address}/kimoqi/careless:1.0"
    docker("pull", "--platform", platform, name)
    # No --platform: docker would compare it with the wrong label of the image that it now has.
    printed = docker("run", "--rm", "--network", "none", name)

    assert printed == MACHINES[platform]
