"""The real process, killed again and again while clients ask and registries change."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from conftest import until
from crash.service import listening
from images import push, push_pair
from patience import HANGING
from proxy.oci.mediatype import INDEXES
from scripted import Origin

_COMMAND: Final = str(Path(sys.executable).with_name("manifuse"))
_TAGS: Final = [f"{n}.0" for n in range(12)]
_CLIENTS: Final = 16
_GOLDEN: Final = 0.618_033_988_749_895  # multiples of it, modulo one, spread evenly however many there are
_LONGEST: Final = 1.0  # seconds of load before a kill
_SAMPLE: Final = 150  # digests of earlier rounds that are asked for again in each round
_ACCEPT: Final = ", ".join(sorted(INDEXES))

_CONFIG: Final = """
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
[[upstream]]
name = "registry"
url = "{url}"
[[rule]]
match = "kimoqi/*"
sources = [
  {{ image = "{{repository}}-x86:{{tag}}", platform = "linux/amd64" }},
  {{ image = "{{repository}}-arm:{{tag}}", platform = "linux/arm64" }},
]
[cache]
dir = "{dir}"
tag_ttl = "1ms"
stale_while_revalidate = "0s"
memory = "1MiB"
"""


@dataclass
class Summary:
    """What came of it."""

    rounds: int = 0
    told: int = 0
    checked: int = 0
    scratch: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Write it for people."""
        return (
            f"{self.rounds} rounds, {self.told} digests told to clients, {self.checked} pulled again after a restart, "
            f"{self.scratch} half-written files left by kills, {len(self.failures)} failures"
        )


@dataclass
class Rounds:
    """Kills of one service on one cache folder; *told* are the digests that clients were ever told, in order."""

    origin: Origin
    folder: Path
    session: aiohttp.ClientSession
    told: dict[str, None] = field(default_factory=dict)
    summary: Summary = field(default_factory=Summary)

    @property
    def cache(self) -> Path:
        """The cache folder."""
        return self.folder / "cache"

    async def run(self, rounds: int) -> Summary:
        """Kill *rounds* times; after each restart ask for what was told."""
        for tag in _TAGS:
            push_pair(self.origin.registry, tag)
        for number in range(rounds):
            before = len(self.told)
            async with self._process() as (process, url), self._load(url):
                await asyncio.sleep(_LONGEST * (number * _GOLDEN % 1))
                if number:  # a slow machine may not have told anything yet; the first kill is at once
                    await until(lambda before=before: len(self.told) > before + 1)  # type: ignore[misc]
                process.kill()
            self.summary.scratch += len(_files(self.cache / "tmp"))
            self._check_files()
            everything = list(self.told)
            start = number * _SAMPLE % max(1, before)
            wanted = everything[before:] + everything[:before][start : start + _SAMPLE]
            await self._check(wanted if number + 1 < rounds else everything)
            self.summary.rounds += 1
        self.summary.told = len(self.told)
        return self.summary

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
        """Start the service, yield it and where it listens, and kill it at the latest when the block ends."""
        config = self.folder / "manifuse.toml"
        config.write_text(_CONFIG.format(url=self.origin.url, dir=self.cache))
        process = await asyncio.create_subprocess_exec(
            _COMMAND, "serve", "--config", str(config), stderr=asyncio.subprocess.PIPE, limit=1 << 24
        )
        assert process.stderr is not None
        reading = None
        try:
            url = await asyncio.wait_for(listening(process.stderr), HANGING)
            reading = asyncio.create_task(self._read(process.stderr))
            if left := _files(self.cache / "tmp"):
                self.summary.failures.append(f"temporary files after the restart: {left}")
            yield process, url
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if reading is not None:
                await reading

    async def _read(self, log: asyncio.StreamReader) -> None:
        """Read what the service logs: there is nothing to warn of."""
        async for line in log:
            if orjson.loads(line)["level"] != "info":
                self.summary.failures.append(line.decode(errors="replace").strip())

    @asynccontextmanager
    async def _load(self, url: str) -> AsyncIterator[None]:
        """Push and pull as fast as it goes while the block runs."""
        stop = asyncio.Event()
        pulls = [self._pull(url, number, stop) for number in range(_CLIENTS)]
        tasks = [asyncio.create_task(work) for work in (self._push(stop), *pulls)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def _push(self, stop: asyncio.Event) -> None:
        """Let every tag move all the time, one architecture after the other."""
        number = 0
        while not stop.is_set():
            number += 1
            tag = _TAGS[number % len(_TAGS)]
            for name, platform in (("x86", "linux/amd64"), ("arm", "linux/arm64")):
                text = f"{len(self.told)} {number} {platform}"
                push(self.origin.registry, f"kimoqi/alpine-{name}", tag, platform, text=text)
                await asyncio.sleep(0.002)
            self.origin.requests.clear()

    async def _pull(self, url: str, number: int, stop: asyncio.Event) -> None:
        """Ask for tags until nobody answers, and note every digest at the moment it is told."""
        turn = number
        while not stop.is_set():
            turn += 5
            method = "HEAD" if turn % 2 else "GET"
            path = f"{url}/v2/kimoqi/alpine/manifests/{_TAGS[turn % len(_TAGS)]}"
            try:
                async with self.session.request(method, path, headers={"Accept": _ACCEPT}) as answer:
                    if answer.status == 200:
                        self.told[answer.headers["Docker-Content-Digest"]] = None
                    await answer.read()
            except (aiohttp.ClientError, OSError):
                return  # killed

    def _check_files(self) -> None:
        """No file is corrupt, whatever moment the kill came at."""
        for path in _files(self.cache / "content"):
            if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
                self.summary.failures.append(f"corrupt: {path}")
        for kind in ("tags", "locations", "learned"):
            for path in _files(self.cache / kind):
                with suppress(ValueError):
                    orjson.loads(path.read_bytes())
                    continue
                self.summary.failures.append(f"corrupt: {path}")

    async def _check(self, digests: Sequence[str]) -> None:
        """Pull *digests* and their children from a process that has just started."""
        async with self._process() as (_, url):
            for first in range(0, len(digests), 64):
                await asyncio.gather(*(self._check_index(url, digest) for digest in digests[first : first + 64]))

    async def _check_index(self, url: str, digest: str) -> None:
        index = await self._body(url, digest)
        for child in orjson.loads(index)["manifests"] if index else ():
            body = await self._body(url, child["digest"])
            if len(body) != child["size"]:
                self.summary.failures.append(f"{digest}: child {child['digest']} has {len(body)} bytes")

    async def _body(self, url: str, digest: str) -> bytes:
        self.summary.checked += 1
        async with self.session.get(f"{url}/v2/kimoqi/alpine/manifests/{digest}") as answer:
            body = await answer.read()
        if answer.status != 200 or f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
            self.summary.failures.append(f"{digest}: {answer.status} {body[:200]!r}")
            return b""
        return body


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
