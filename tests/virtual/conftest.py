"""Virtual registry tests: a client of a proxy whose upstream may be pushed to."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import StartProxy
from scripted import Origin
from virtual.pushing import OPEN, Pusher


@pytest.fixture
async def pusher(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> Pusher:
    """A client of a proxy whose upstream may be pushed to."""
    return Pusher(await start(origin, rule=[rule], upstream=OPEN))
