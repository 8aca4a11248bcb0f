"""The running process in front of scripted upstreams, for S1 to S18."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from process import Process, running_process

StartProcess = Callable[..., Coroutine[Any, Any, Process]]


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[StartProcess]:
    """Start `manifuse serve` with a configuration, and perhaps an environment; it stops with the test."""
    async with AsyncExitStack() as stack:

        async def begin(
            config: str, environment: Mapping[str, str] | None = None, tls: ssl.SSLContext | bool = True
        ) -> Process:
            return await stack.enter_async_context(running_process(tmp_path, config, environment, tls))

        yield begin
