"""The running process, and connections that nobody should make: it answers, forgets them, and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from fuzz.engine import found, keep, report
from fuzz.plan import SECONDS, SEED
from fuzz.wire import Stream, Streams, send, statuses
from images import push_pair
from process import Process, running_process
from scripted import Origin
from test_recorded import READS

_BATCH = 32  # connections at once
_BATCHES = 16  # where nobody asked for more
_WARM = 8  # batches after which memory is looked at for the first time
_GROWTH = 24 << 20  # bytes; caches are at their limits long before
_CLEAN = "/v2/kimoqi/alpine/manifests/1.0"
_NAME = "wire"

_CONFIG = """
log_level = "debug"
hot = {hot}
[cache]
dir = "{folder}"
memory = "4MiB"
negative_ttl = "1s"
[[upstream]]
name = "registry"
url = "{url}"
aliases = ["registry.example:5000"]
retries = 0
breaker = 0
push = {push}
[[rule]]
match = "kimoqi/*"
sources = [
  {{ image = "{{repository}}-x86:{{tag}}", platform = "linux/amd64" }},
  {{ image = "{{repository}}-arm:{{tag}}", platform = "linux/arm64" }},
]
"""


@dataclass
class Fuzzed:
    """A running process, and what it answers to a request as it should be."""

    process: Process
    digest: str

    async def try_all(self, streams: list[Stream]) -> list[tuple[bytes, Exception]]:
        """Send all at once; return those that went wrong."""
        address = (str(self.process.url.host), int(self.process.url.port or 0))
        answers = await asyncio.gather(*(send(address, stream) for stream in streams), return_exceptions=True)
        return [
            (stream.write(), wrong)
            for stream, answer in zip(streams, answers, strict=True)
            if (wrong := _wrong(answer)) is not None
        ]

    async def check(self) -> None:
        """A request as it should be is answered as ever, and nothing was an error of ours."""
        assert self.process.process.returncode is None, self.process.log[-4000:]
        for _ in range(2):
            answer = await self.process.get(_CLEAN)
            assert (answer.status, answer.headers["Docker-Content-Digest"]) == (200, self.digest)
        bad = [line for line in self.process.lines if b'"level": "error"' in line or not line.startswith(b"{")]
        assert not bad, b"".join(bad[:40]).decode()
        self.process.lines.clear()

    async def culprits(self, batch: list[Stream]) -> list[Stream]:
        """Return those streams after which something is wrong alone; all of them where none is."""
        self.process.lines.clear()
        wrong = []
        for stream in batch:
            try:
                assert not await self.try_all([stream])
                await self.check()
            except AssertionError:
                wrong.append(stream)
                self.process.lines.clear()
        return wrong or batch


def _wrong(answer: bytes | BaseException) -> Exception | None:
    if isinstance(answer, TimeoutError):
        return AssertionError("the connection was never closed")
    if isinstance(answer, BaseException):
        raise answer
    return AssertionError("an answer of 500") if 500 in statuses(answer) else None


@pytest.fixture(params=["hot", "cold", "pushing"])
async def fuzzed(request: pytest.FixtureRequest, tmp_path: Path, origin: Origin) -> AsyncIterator[Fuzzed]:
    """The process in front of an upstream, with hot answers, without, and where pushes are taken."""
    push_pair(origin.registry)
    hot, push = (str(word).lower() for word in (request.param != "cold", request.param == "pushing"))
    config = _CONFIG.format(hot=hot, push=push, url=origin.url, folder=tmp_path / "cache")
    async with running_process(tmp_path, config) as process:
        answer = await process.get(_CLEAN)
        yield Fuzzed(process, answer.headers["Docker-Content-Digest"])


@pytest.mark.timeout(0)
async def test_whatever_comes(fuzzed: Fuzzed, request: pytest.FixtureRequest) -> None:
    """No crash, no hang, no 500; memory doesn't grow; and every batch is followed by requests as they should be.

    What found something once comes first.
    """
    for path in found(_NAME):
        assert not await fuzzed.try_all([Stream.read(path.read_bytes())]), path
        await fuzzed.check()
    streams = Streams(Random(f"{SEED}:{request.node.name}"), sorted({each.head for each in READS}))
    end, batches, warm = monotonic() + SECONDS / 9, 0, 0
    while batches < _BATCHES or monotonic() < end:
        batch = [streams.draw() for _ in range(_BATCH)]
        if findings := await fuzzed.try_all(batch):
            for data, _ in findings:
                keep(_NAME, data)
            pytest.fail(report(_NAME, SEED, findings))
        try:
            await fuzzed.check()
        except AssertionError:
            for stream in await fuzzed.culprits(batch):
                keep(_NAME, stream.write())
            raise
        batches += 1
        warm = fuzzed.process.resident if batches == _WARM else warm
    grown = fuzzed.process.resident - warm
    assert grown < _GROWTH, (
        f"{grown >> 10} KiB more after {batches} batches of {_BATCH} than after {_WARM}, seed {SEED}"
    )
