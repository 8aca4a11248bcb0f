"""What several of these tests share: configurations, traps, and where things are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from process import Process
from scripted import Origin

BAD_ANSWER = (502, 503)
"""What a client of a merged tag gets when a source's answer can't be used: 503 where several are trouble."""

TAG = "/v2/kimoqi/alpine/manifests/1.0"
X86_TAG = "/v2/kimoqi/alpine-x86/manifests/1.0"
ARM_TAG = "/v2/kimoqi/alpine-arm/manifests/1.0"


def pair(origin: Origin, *, rule: str = "", upstream: str = "") -> str:
    """Write a configuration of one upstream and the rule of the usual pair, with more lines for each."""
    return f"""
[[upstream]]
name = "registry"
url = "{origin.url}"
retries = 0
breaker = 0
{upstream}
[[rule]]
match = "kimoqi/*"
sources = [
  {{ image = "{{repository}}-x86:{{tag}}", platform = "linux/amd64" }},
  {{ image = "{{repository}}-arm:{{tag}}", platform = "linux/arm64" }},
]
negative_ttl = "0s"
{rule}
"""


@dataclass
class Trap:
    """Something that listens and should never be connected to.

    Attributes:
        heard: What came on each connection.
    """

    port: int = 0
    heard: list[bytes] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self.port}"

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Note a connection, and what its first bytes are."""
        number = len(self.heard)
        self.heard.append(b"")
        self.heard[number] = await reader.read(1 << 16)
        writer.close()


@asynccontextmanager
async def trap() -> AsyncIterator[Trap]:
    """Let a trap listen on a free port of loopback."""
    one = Trap()
    server = await asyncio.start_server(one.hear, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    async with server:
        yield one


def children(body: bytes) -> dict[str, str]:
    """Return the digests of an index's entries by platform; each platform is there once."""
    entries: list[dict[str, Any]] = orjson.loads(body)["manifests"]
    platforms = ["{os}/{architecture}".format(**entry["platform"]) for entry in entries]
    assert len(platforms) == len(set(platforms))
    return dict(zip(platforms, (entry["digest"] for entry in entries), strict=True))


async def no_error_of_ours(process: Process) -> None:
    """It still runs, and nothing in its log is an error of its own."""
    assert process.process.returncode is None
    assert "internal error" not in process.log
    assert "Traceback" not in process.log
    assert (await process.get("/v2/")).status == 200
