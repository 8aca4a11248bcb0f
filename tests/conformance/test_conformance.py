"""The OCI conformance suite finds nothing wrong with manifuse that isn't wrong with the registry behind it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from conformance import content, report, suite
from conformance.conftest import READING, WRITING
from e2e.gopeers import REGISTRIES
from e2e.manifuse import serving, upstream
from e2e.peers import Workshop
from images import VIRTUAL

EVERYTHING: Final = {"REPO1": "conformance/one", "REPO2": "conformance/two"}
# Those that write to disk take their time; crane's keeps everything in memory.
PATIENTLY: Final = [pytest.param(name, marks=[] if name == "crane" else pytest.mark.slow) for name in REGISTRIES]


@pytest.mark.parametrize("name", REGISTRIES)
def test_reading_is_as_conformant_as_the_registry(name: str, workshop: Workshop, runs: report.Runs) -> None:
    """A merged name is read as its index, pushed by hand, is read from the registry itself."""
    with (
        REGISTRIES[name](workshop(name)) as registry,
        serving(upstream(registry), workshop("proxy")) as proxy,
    ):
        memory = content.push_sources(registry.address)
        known = content.push_index(registry.address, proxy.address, memory)
        alone = suite.run(registry.address, workshop("alone"), known.settings(content.BY_HAND))
        through = suite.run(proxy.address, workshop("through"), known.settings(str(VIRTUAL)))
    runs[name, READING] = found = suite.compare(alone, through)

    assert any(each.test.startswith("read-only/") for each in found)
    assert [each for each in found if each.worse] == []


@pytest.mark.parametrize("name", PATIENTLY)
def test_all_workflows_are_as_conformant_as_the_registry(name: str, workshop: Workshop, runs: report.Runs) -> None:
    """Pull, push, content discovery and content management, each with a registry that has nothing in it."""
    with (
        REGISTRIES[name](workshop(name)) as alone,
        REGISTRIES[name](workshop(name)) as behind,
        serving(upstream(behind, push=True), workshop("proxy")) as proxy,
        ThreadPoolExecutor(2) as pool,
    ):
        addresses, folders = (alone.address, proxy.address), (workshop("alone"), workshop("through"))
        results = pool.map(suite.run, addresses, folders, (EVERYTHING, EVERYTHING))
        runs[name, WRITING] = found = suite.compare(*results)

    assert [each for each in found if each.worse] == []
