"""Fixtures of upstream tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
from yarl import URL

from conftest import Clock, until
from proxy.telemetry import Metrics
from proxy.upstream.auth import Authorizer, Door
from proxy.upstream.client import Upstream
from proxy.upstream.credentials import Fixed, Login
from proxy.upstream.retry import Retries
from proxy.upstream.transport import Limits, Transport
from scripted import Origin
from upstream.peers import Connect

_DEFAULT: Final = Limits()
_NO_RETRIES: Final = Retries()


@pytest.fixture(autouse=True)
async def no_leaks() -> AsyncIterator[None]:
    """After each test no connection and no task is left, but for the scripted upstream's own that hang."""
    loop: Any = asyncio.get_running_loop()
    before = set(loop._selector.get_map())
    yield
    await until(lambda: set(loop._selector.get_map()) <= before)
    me = asyncio.current_task()
    await until(lambda: not [task for task in asyncio.all_tasks() - {me} if not _hangs(task)])


def _hangs(task: asyncio.Task[Any]) -> bool:
    return "RequestHandler" in repr(task.get_coro())


@pytest.fixture
async def connect(clock: Clock) -> AsyncIterator[Connect]:
    """Open clients of upstreams; they close with the test."""
    async with AsyncExitStack() as stack:

        async def begin(
            origin: Origin,
            *,
            path: str = "",
            credential: Login | None = None,
            realms: Collection[str] = (),
            missing: Collection[int] = (404,),
            limits: Limits = _DEFAULT,
            metrics: Metrics | None = None,
            retries: Retries = _NO_RETRIES,
        ) -> Upstream:
            url = URL(origin.url + path)
            transport = Transport("hub", url, limits, metrics or Metrics(), realms=realms, retries=retries, clock=clock)
            await stack.enter_async_context(transport)
            return Upstream(transport, Authorizer(Door(transport, clock), Fixed(credential)), missing)

        yield begin
