"""Real clients and failing registries: what can be mended they don't notice, what can't they are told."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from chaos.faults import reset_in_body
from chaos.relay import limited
from chaos.scenario import HEALING, Scenario, started
from chaos.world import APP, World
from e2e import peers
from e2e.peers import ClientFailed, Registry, Workshop

pytestmark = pytest.mark.slow

Pull = Callable[[str], str]
PATIENCE = 60.0  # seconds; a client that pulls for longer is hung


@contextmanager
def _docker(workshop: Workshop) -> Iterator[Pull]:
    with peers.dockerd(workshop("dockerd")) as docker:
        yield lambda name: docker("pull", "--platform=linux/arm64", name, seconds=PATIENCE)


@contextmanager
def _podman(workshop: Workshop) -> Iterator[Pull]:
    podman = peers.podman(workshop("podman"))
    yield lambda name: podman("pull", "--tls-verify=false", "--arch=arm64", name, seconds=PATIENCE)


@contextmanager
def _containerd(workshop: Workshop) -> Iterator[Pull]:
    with peers.containerd(workshop("containerd")) as ctr:
        options = ("--plain-http", "--snapshotter=native", "--platform=linux/arm64")
        yield lambda name: ctr("images", "pull", *options, name, seconds=PATIENCE)


CLIENTS = {"docker": _docker, "podman": _podman, "containerd": _containerd}


@pytest.fixture(params=CLIENTS)
def pull(request: pytest.FixtureRequest, workshop: Workshop) -> Iterator[Pull]:
    """Pulls the ARM image of a name with a client that has no image."""
    with CLIENTS[request.param](workshop) as begun:
        yield begun


@pytest.mark.timeout(600)
async def test_a_pull_survives_blobs_that_break_off(
    pull: Pull, truth: World, registry: Registry, workshop: Workshop
) -> None:
    """While every blob breaks off again and again, a pull of a cold name just works."""
    async with started(truth, registry.address, workshop("proxy")) as scenario:
        scenario.main.answer = scenario.arm.answer = limited(reset_in_body, "/blobs/")
        await asyncio.to_thread(pull, _name(scenario, "cold"))


@pytest.mark.timeout(600)
async def test_a_pull_fails_in_time_and_works_afterwards(
    pull: Pull, truth: World, registry: Registry, workshop: Workshop
) -> None:
    """While nobody listens, a client is told so and gives up; once somebody does, the same pull works."""
    async with started(truth, registry.address, workshop("proxy")) as scenario:
        await scenario.main.close()
        await scenario.arm.close()
        refused = not await asyncio.to_thread(_works, pull, _name(scenario, "cold"))
        await scenario.main.heal()
        await scenario.arm.heal()
        name = _name(scenario, "cold")
        healed = await asyncio.to_thread(peers.eventually, lambda: _works(pull, name), HEALING)

    assert refused
    assert healed


def _name(scenario: Scenario, tag: str) -> str:
    return f"{scenario.proxy.address}/{APP}:{tag}"


def _works(pull: Pull, name: str) -> bool:
    try:
        pull(name)
    except ClientFailed:
        return False
    return True
