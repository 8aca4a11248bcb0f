"""The real process, for tests that kill it, and clients that read as slowly as they like."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from patience import HANGING

_COMMAND: Final = str(Path(sys.executable).with_name("manifuse"))
_CONFIG: Final = """
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
[[upstream]]
name = "registry"
url = "{url}"
blobs = "cache"
[cache]
dir = "{dir}"
"""


@dataclass(frozen=True, slots=True)
class Service:
    """A running process and where it listens."""

    process: asyncio.subprocess.Process
    host: str
    port: int

    async def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def serving(url: str, cache: Path) -> AsyncIterator[Service]:
    """Run the service in front of a registry at *url*, with its blobs cached; kill it at the latest at the end."""
    config = cache.with_suffix(".toml")
    config.write_text(_CONFIG.format(url=url, dir=cache))
    process = await asyncio.create_subprocess_exec(
        _COMMAND, "serve", "--config", str(config), stderr=asyncio.subprocess.PIPE, limit=1 << 24
    )
    assert process.stderr is not None
    reading = None
    try:
        host, _, port = (await asyncio.wait_for(listening(process.stderr), HANGING)).rpartition(":")
        reading = asyncio.create_task(process.stderr.read())
        yield Service(process, host.removeprefix("http://"), int(port))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if reading is not None:
            await reading


@dataclass(frozen=True, slots=True)
class Reader:
    """A client that reads a blob, or the part *first* to *last*.

    Attributes:
        pause: Seconds between two reads.
        leaves_at: Bytes after which it leaves.
    """

    path: str
    data: bytes
    first: int = 0
    last: int | None = None
    pause: float = 0.0
    leaves_at: int | None = None

    async def read(self, service: Service) -> int:
        """Read, compare every byte, and return how many there were."""
        reader, writer = await asyncio.open_connection(service.host, service.port, limit=1 << 18)
        try:
            last = "" if self.last is None else self.last
            wanted = f"Range: bytes={self.first}-{last}\r\n" if self.first or self.last is not None else ""
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{wanted}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 206" if wanted else "HTTP/1.1 200"), head
            return await self._compare(reader)
        finally:
            writer.transport.abort()

    async def _compare(self, reader: asyncio.StreamReader) -> int:
        expected = memoryview(self.data)[self.first : None if self.last is None else self.last + 1]
        position = 0
        while piece := await reader.read(1 << 18):
            assert piece == expected[position : position + len(piece)], f"wrong bytes from {self.first + position} on"
            position += len(piece)
            if self.leaves_at is not None and position >= self.leaves_at:
                return position
            await asyncio.sleep(self.pause)
        assert position == len(expected), f"{position} of {len(expected)} bytes"
        return position


async def listening(log: asyncio.StreamReader) -> str:
    """Return where the service listens, as it logs."""
    async for line in log:
        event = orjson.loads(line)
        if event["event"] == "listening":
            return str(event["registry"])
    raise AssertionError("the service ended before it listened")


def files(folder: Path) -> list[Path]:
    """Return the files in *folder*."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def size(folder: Path) -> int:
    """Return how many bytes the files in *folder* have, those that go meanwhile left out."""
    total = 0
    for path in files(folder):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
