"""Docker pulls, runs and inspects one name."""

import json
from platform import machine

import pytest

from e2e import images, wire
from e2e.images import MACHINES, PAIRS
from e2e.manifuse import Proxy
from e2e.peers import Client, Registry


@pytest.mark.client("docker", "pull --platform, run")
@pytest.mark.parametrize("platform", MACHINES)
@pytest.mark.parametrize("repository", PAIRS)
def test_docker_runs_the_platform_it_asks_for(
    repository: str, platform: str, proxy: Proxy, docker: Client, emulation: None
) -> None:
    """One name, pulled for a platform, is the image of that platform: it runs, and says so."""
    name = f"{proxy.address}/{repository}:1.0"
    docker("pull", "--platform", platform, name)
    printed = docker("run", "--rm", "--network", "none", "--platform", platform, name)

    assert printed == MACHINES[platform]


@pytest.mark.client("docker", "run")
def test_docker_pulls_its_own_platform_unasked(proxy: Proxy, docker: Client) -> None:
    """A plain `docker run` of the name that was never pulled before just works."""
    printed = docker("run", "--rm", "--network", "none", f"{proxy.address}/kimoqi/alpine:1.0")

    assert printed == machine()


@pytest.mark.client("docker", "pull --platform, run")
@pytest.mark.parametrize("platform", MACHINES)
def test_tag_suffixes_are_merged_without_a_rule(platform: str, proxy: Proxy, docker: Client, emulation: None) -> None:
    """`app:1.0-amd64` and `app:1.0-arm64` are pulled as `app:1.0`."""
    name = f"{proxy.address}/kimoqi/app:1.0"
    docker("pull", "--platform", platform, name)
    printed = docker("run", "--rm", "--network", "none", "--platform", platform, name)

    assert printed == MACHINES[platform]


@pytest.mark.client("docker", "manifest inspect")
def test_docker_manifest_inspect_lists_both_platforms(proxy: Proxy, docker: Client) -> None:
    """`docker manifest inspect` shows the name as the manifest list that it seems to be."""
    shown = json.loads(docker("manifest", "inspect", "--insecure", f"{proxy.address}/kimoqi/alpine:1.0"))

    assert shown["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert [wire.platform_of(entry) for entry in shown["manifests"]] == ["linux/amd64", "linux/arm64/v8"]


def test_the_index_lists_what_docker_manifest_lists(proxy: Proxy, registry: Registry, docker: Client) -> None:
    """Digests, sizes and platforms are those of create, annotate and push by hand; so is the media type."""
    by_hand, x86, arm = (f"{registry.address}/kimoqi/{name}:1.0" for name in ("by-hand", "alpine-x86", "alpine-arm"))
    docker("manifest", "create", "--insecure", by_hand, x86, arm)
    docker("manifest", "annotate", "--os=linux", "--arch=arm64", "--variant=v8", by_hand, arm)
    pushed = docker("manifest", "push", "--insecure", "--purge", by_hand).splitlines()[-1]
    expected = wire.manifest(registry.address, "kimoqi/by-hand", "1.0")
    ours = wire.manifest(proxy.address, "kimoqi/alpine", "1.0")

    assert expected.digest == pushed
    assert ours.entries == expected.entries
    assert ours.headers["Content-Type"] == expected.headers["Content-Type"]


def test_a_list_made_by_hand_passes_through(proxy: Proxy, registry: Registry, docker: Client) -> None:
    """A manifest list that exists at the name already is served as its author pushed it."""
    name = f"{registry.address}/kimoqi/already:1.0"
    docker("manifest", "create", "--insecure", name, f"{registry.address}/kimoqi/alpine-arm:1.0")
    pushed = docker("manifest", "push", "--insecure", "--purge", name).splitlines()[-1]
    served = wire.manifest(proxy.address, "kimoqi/already", "1.0")

    assert served.digest == pushed
    assert served.headers["Docker-Content-Digest"] == pushed


@pytest.mark.client("docker", "pull --platform, run")
def test_a_name_that_no_rule_touches_passes_through(proxy: Proxy, registry: Registry, docker: Client) -> None:
    """A source pulled under its own name is the image that was pushed, byte for byte."""
    pushed = wire.manifest(registry.address, "kimoqi/alpine-arm", "1.0")
    served = wire.manifest(proxy.address, "kimoqi/alpine-arm", "1.0")
    pulled = docker("pull", "--platform=linux/arm64", f"{proxy.address}/kimoqi/alpine-arm:1.0")

    assert served.body == pushed.body
    assert f"Digest: {pushed.digest}" in pulled


@pytest.mark.client("docker", "push")
@pytest.mark.parametrize("platform", MACHINES)
def test_docker_pulls_what_it_has_pushed(platform: str, open_proxy: Proxy, docker: Client, emulation: None) -> None:
    """`docker push` of two architectures under their own names, and `docker pull` of one name, all at one address."""
    for word, source in (("x86", "linux/amd64"), ("arm", "linux/arm64")):
        pulled, pushed = (f"{open_proxy.address}/{name}-{word}:1.0" for name in ("kimoqi/alpine", "team/app"))
        docker("pull", "--platform", source, pulled)
        docker("tag", pulled, pushed)
        docker("push", pushed)
    images.forget(docker)
    name = f"{open_proxy.address}/team/app:1.0"
    docker("pull", "--platform", platform, name)
    printed = docker("run", "--rm", "--network", "none", "--platform", platform, name)

    assert printed == MACHINES[platform]
