"""Runs of the suite, against a registry and against manifuse in front of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import report
from e2e import gopeers, peers
from e2e.peers import Workshop

READING = "only reading"
WRITING = "all workflows"
RUNS = [(name, what) for what in (READING, WRITING) for name in gopeers.REGISTRIES]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, as it needs the same peers as `tests/e2e`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def workshop() -> Iterator[Workshop]:
    """Folders for the peers' state."""
    with peers.workshop("oci-") as make:
        yield make


@pytest.fixture(scope="session")
def runs() -> Iterator[report.Runs]:
    """What was seen; when every run was made, it is written into the page that `make conformance` names."""
    seen: report.Runs = {}
    yield seen
    page = os.environ.get("MANIFUSE_CONFORMANCE")
    if page and set(seen) == set(RUNS):
        report.write(Path(page), {run: seen[run] for run in RUNS})
