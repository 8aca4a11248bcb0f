"""Web tests: a server with hot answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from conftest import Clock
from web.hotserver import Server, serving


@pytest.fixture
async def server(clock: Clock) -> AsyncIterator[Server]:
    """A server with hot answers."""
    async with serving(clock) as one:
        yield one
