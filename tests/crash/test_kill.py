"""Killed at any moment under write load, the service has lost nothing that it ever told a client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import structlog

from crash.killed import Rounds
from scripted import Origin


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Let the upstream, which runs in this process, say nothing of its many requests."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@pytest.fixture
async def rounds(origin: Origin, tmp_path: Path) -> AsyncIterator[Rounds]:
    """A service to be killed."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield Rounds(origin, tmp_path, session)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("often", [3, pytest.param(100, marks=pytest.mark.slow)])
async def test_a_killed_process_has_lost_nothing(
    rounds: Rounds, often: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """After each SIGKILL all that was told is there, children included; no file is corrupt, none is left over."""
    summary = await rounds.run(often)
    with capsys.disabled():
        print(f"\n{summary}")  # noqa: T201 # the run's result

    assert summary.failures == []
    assert summary.rounds == often
    assert summary.told > often
