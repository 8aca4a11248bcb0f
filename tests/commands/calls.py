"""Configurations, and the commands called with them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from click.testing import CliRunner

from patience import HANGING
from proxy.cli import main

CONFIG = """
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
drain = "1s"

[[upstream]]
name = "registry"
url = "URL"
"""
RULE = """
[[rule]]
match = "kimoqi/*"
sources = [
  { image = "{repository}-x86:{tag}", platform = "linux/amd64" },
  { image = "{repository}-arm:{tag}", platform = "linux/arm64" },
]
"""
WRONG = """
listen = 5080
colour = "blue"
[[upstream]]
name = "registry"
url = "registry.example"
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str


def written(folder: Path, text: str) -> Path:
    """Write a configuration file."""
    path = folder / "manifuse.toml"
    path.write_text(text)
    return path


def called(*arguments: str | Path) -> Done:
    """Run the command in this process, for what comes before anything is asked; logging stays as it was."""
    kept = structlog.get_config()
    try:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    finally:
        structlog.configure(**kept)
    return Done(result.exit_code, result.stdout, result.stderr)


@asynccontextmanager
async def started(*arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command in a process of its own, which is gone when the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "proxy",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def manifuse(*arguments: str | Path) -> Done:
    """Run the command to its end."""
    async with started(*arguments) as process, asyncio.timeout(HANGING):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def listening(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Read the log until the service listens, and return what it says of it."""
    assert process.stderr is not None
    async with asyncio.timeout(HANGING):
        async for line in process.stderr:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "listening":
                return event
    raise AssertionError("the service has left")
