"""Running out of file descriptors is told."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from conftest import Clock, until
from process import running_process
from proxy.web.descriptors import Shortage

EVENT = "no connection can be taken"
FEW = 3  # it has more open; with none at all it couldn't even wait until its log can be written
ORIGIN = """
[[upstream]]
name = "origin"
url = "http://127.0.0.1:1"
"""


def refused(*_: Any) -> int:
    """Open nothing, as the system does for a process that has too much open."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_it_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing as long as there are some; a line when there are none, and none more for a minute."""
    clock = Clock()
    shortage = Shortage(clock)
    with capture_logs() as logs:
        shortage.look()
        with monkeypatch.context() as short:
            short.setattr(os, "open", refused)
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


async def test_the_service_tells(tmp_path: Path) -> None:
    """The loop resets connections then without a word.

    It is a process of its own: in this one threads of other tests' servers wait for descriptors that would be too many.
    """
    async with running_process(tmp_path, ORIGIN) as service:
        soft, hard = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (FEW, hard))
        await until(lambda: EVENT in service.log)
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
