"""Running out of file descriptors is told."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from conftest import Clock, until
from proxy.app import serve
from proxy.settings.keys import Settings
from proxy.web.descriptors import Shortage

EVENT = "no connection can be taken"


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_is_told_once_a_minute() -> None:
    """Nothing as long as there are some; a line when there are none, and none more for a minute."""
    clock = Clock()
    shortage = Shortage(clock)
    with capture_logs() as logs:
        shortage.look()
        with no_descriptors():
            for _ in range(3):
                shortage.look()
                clock.advance(25)
            shortage.look()
        clock.advance(61)
        shortage.look()

    assert logs == [{"event": EVENT, "log_level": "error", "error": os.strerror(errno.EMFILE)}] * 2


def test_looking_costs_none() -> None:
    """What was opened to see whether it can be is closed."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    shortage = Shortage(Clock())
    for _ in range(5):
        shortage.look()

    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_the_service_tells(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop resets connections then without a word."""
    monkeypatch.setattr("proxy.web.descriptors._LOOK", 0.01)
    settings: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "cache": {"dir": tmp_path},
        "upstream": [{"name": "origin", "url": "http://127.0.0.1:1"}],
    }
    with capture_logs() as logs:
        async with serve(Settings.model_validate(settings), clock):
            await asyncio.sleep(0)
            with no_descriptors():
                await until(lambda: EVENT in {log["event"] for log in logs})
