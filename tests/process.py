"""The real process with a configuration of the test's own: where it listens, what it logged, what it says."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import orjson
from multidict import CIMultiDictProxy
from yarl import URL

from patience import HANGING

_COMMAND: Final = str(Path(sys.executable).with_name("manifuse"))
_HEAD: Final = """
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Process:
    """A running service.

    Attributes:
        url, admin: Where it listens.
        lines: What it has logged so far, a line each.
        tls: How its certificate is checked, where it has one.
    """

    process: asyncio.subprocess.Process
    url: URL
    admin: URL
    session: aiohttp.ClientSession
    lines: list[bytes] = field(default_factory=list)
    tls: ssl.SSLContext | bool = True

    @property
    def log(self) -> str:
        """All that it has logged so far."""
        return b"".join(self.lines).decode()

    @property
    def resident(self) -> int:
        """Bytes of memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    async def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask for *path* as it is written, without any requoting. Header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._ask(self.url, path, method, named)

    async def page(self, path: str, **headers: str) -> Answer:
        """Ask the admin port."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._ask(self.admin, path, "GET", named)

    async def _ask(self, at: URL, path: str, method: str, headers: dict[str, str]) -> Answer:
        url = URL(f"{at.origin()}{path}", encoded=True)
        async with self.session.request(method, url, headers=headers, allow_redirects=False, ssl=self.tls) as response:
            return Answer(response.status, response.headers, await response.read())

    async def raw(self, data: bytes, seconds: float = HANGING) -> bytes:
        """Send bytes on a connection of their own, and return all that comes in *seconds*."""
        reader, writer = await asyncio.open_connection(self.url.host, self.url.port)
        answer = bytearray()
        try:
            with suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(seconds):
                    while piece := await reader.read(1 << 16):
                        answer += piece
        finally:
            writer.transport.abort()
        return bytes(answer)


@asynccontextmanager
async def running_process(
    folder: Path,
    config: str,
    environment: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | bool = True,
) -> AsyncIterator[Process]:
    """Run `manifuse serve` with *config*, which says nothing of addresses and may say nothing of the cache.

    Args:
        folder: Where its configuration and its cache are.
        environment: Beside that of the test.
        tls: How its certificate is checked, where it has one.
    """
    file = folder / "manifuse.toml"
    cache = "" if "[cache]" in config else f'\n[cache]\ndir = "{folder / "cache"}"\n'
    file.write_text(_HEAD + config + cache)
    process = await asyncio.create_subprocess_exec(
        _COMMAND,
        "serve",
        "--config",
        str(file),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        limit=1 << 24,
    )
    assert process.stderr is not None
    lines: list[bytes] = []
    reading = None
    try:
        registry, admin = await asyncio.wait_for(_listening(process.stderr, lines), HANGING)
        reading = asyncio.create_task(_collect(process.stderr, lines))
        async with aiohttp.ClientSession(
            auto_decompress=False, skip_auto_headers=["Accept", "Accept-Encoding"], cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            yield Process(process, registry, admin, session, lines, tls)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 10)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if reading is not None:
            await reading


async def _listening(log: asyncio.StreamReader, lines: list[bytes]) -> tuple[URL, URL]:
    async for line in log:
        lines.append(line)
        with suppress(orjson.JSONDecodeError):
            event = orjson.loads(line)
            if event["event"] in ("listening", "supervising"):
                return URL(event["registry"]), URL(event["admin"])
    raise AssertionError(f"the service ended before it listened\n{b''.join(lines).decode()}")


async def _collect(log: asyncio.StreamReader, lines: list[bytes]) -> None:
    async for line in log:
        lines.append(line)  # noqa: PERF401 - each as it comes
