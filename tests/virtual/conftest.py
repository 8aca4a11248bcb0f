"""Virtual registry tests: a large blob, and a client of a proxy whose upstream may be pushed to."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import StartProxy
from images import ARM
from proxy.oci.reference import Digest
from scripted import Origin
from virtual.bigblob import BIG
from virtual.pushing import OPEN, Pusher


@pytest.fixture
async def pusher(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> Pusher:
    """A client of a proxy whose upstream may be pushed to."""
    return Pusher(await start(origin, rule=[rule], upstream=OPEN))


@pytest.fixture
def big(origin: Origin) -> Digest:
    """A blob of 1.6 MB in one of the sources."""
    return origin.registry.add_blob(ARM, BIG)
