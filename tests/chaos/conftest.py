"""A registry with known content, and what a healthy proxy makes of it."""

from collections.abc import Iterator

import pytest

from chaos import report, world
from chaos.scenario import CONFIGURATION
from chaos.world import World
from e2e import peers
from e2e.manifuse import serving
from e2e.peers import Client, Registry, Workshop


@pytest.fixture(scope="session")
def workshop() -> Iterator[Workshop]:
    """Folders for the peers' state."""
    with peers.workshop("chaos-") as make:
        yield make


@pytest.fixture(scope="session")
def registry(workshop: Workshop) -> Iterator[Registry]:
    """A real registry."""
    with peers.registry(workshop("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def truth(registry: Registry, workshop: Workshop) -> World:
    """The registry's content, and what is merged of it when nothing fails."""
    halves = world.fill(registry.address)
    configuration = CONFIGURATION.format(main=registry.url, arm=registry.url)
    with serving(configuration, workshop("healthy")) as proxy:
        return world.learn(proxy.address, halves)


@pytest.fixture(scope="session")
def skopeo(workshop: Workshop) -> Client:
    """A `skopeo`, which keeps nothing."""
    return peers.skopeo(workshop("skopeo"))


@pytest.fixture(scope="session")
def records() -> Iterator[report.Records]:
    """What was seen of each fault; when all were played and nothing was wrong, the manual's table is written."""
    seen: report.Records = {}
    yield seen
    report.write(seen)
