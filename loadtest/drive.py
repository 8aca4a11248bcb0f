"""A driver that pulls like docker, containerd and podman do: their recorded heads, in their order, every byte read."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from loadtest.heads import Client, Head
from loadtest.wrk import Failed

_SECONDS = 60.0  # for one answer
_CHUNK = 256 * 1024
_PARALLEL = 3  # layers that docker and containerd fetch at once


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said. A blob's bytes are counted and hashed, a manifest's are kept."""

    status: int
    headers: dict[str, str]
    body: bytes
    size: int
    digest: str


@dataclass(slots=True)
class Links:
    """The connections of one client to one server. One that may be used again waits here for it."""

    address: str
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def ask(self, head: Head, *, keep: bool = True) -> Answer:
        """Send a request and read the whole answer; its body is only returned with *keep*. Raises `Failed`."""
        async with asyncio.timeout(_SECONDS):
            reader, writer = self._idle.pop() if self._idle and not head.closes else await self._open()
            writer.write(bytes(head))
            answer = await _read(reader, head, keep=keep)
        if head.closes or answer.headers.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return answer

    async def warm(self, count: int) -> None:
        """Have *count* connections open."""
        self._idle += [await self._open() for _ in range(count)]

    def close(self) -> None:
        """Close what is open."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.address.rpartition(":")
        return await asyncio.open_connection(host, int(port), limit=_CHUNK)


@asynccontextmanager
async def links(address: str) -> AsyncIterator[Links]:
    """Let a client have connections to *address* while the block runs."""
    opened = Links(address)
    try:
        yield opened
    finally:
        opened.close()


async def _read(reader: asyncio.StreamReader, head: Head, *, keep: bool) -> Answer:
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError as error:
        raise Failed(f"no answer to {head.method} {head.path}: {error.partial!r}") from None
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    left = 0 if head.method == "HEAD" else int(headers.get("content-length", "0"))
    hashed, pieces, size = hashlib.sha256(), [], 0
    while size < left:
        piece = await reader.read(min(_CHUNK, left - size))
        if not piece:
            raise Failed(f"{head.path} ended after {size} of {left} bytes")
        size += len(piece)
        hashed.update(piece)
        if keep:
            pieces.append(piece)
    return Answer(int(first.split(" ", 2)[1]), headers, b"".join(pieces), size, f"sha256:{hashed.hexdigest()}")


@dataclass(frozen=True, slots=True)
class Puller:
    """One client that pulls from one server."""

    client: Client
    links: Links
    architecture: str = "amd64"

    async def pull(self, repository: str, tag: str) -> int:
        """Pull an image as the client does, verified, and return how many requests that took. Raises `Failed`."""
        asked = 0
        if self.client.ping is not None:
            await self._ask(self.client.ping, "/v2/")
            asked += 1
        resolved = await self._ask(self.client.resolve, f"/v2/{repository}/manifests/{tag}")
        asked += 1
        if self.client.index is not None:
            digest = resolved.headers["docker-content-digest"]
            resolved = await self._by_digest(self.client.index, f"/v2/{repository}/manifests/", digest)
            asked += 1
        child = self._choose(orjson.loads(resolved.body))
        manifest = orjson.loads((await self._by_digest(self.client.child, f"/v2/{repository}/manifests/", child)).body)
        blobs = [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
        await self._blobs(repository, blobs)
        return asked + 1 + len(blobs)

    async def _blobs(self, repository: str, digests: Iterable[str]) -> None:
        turns = asyncio.Semaphore(_PARALLEL)

        async def blob(digest: str) -> None:
            async with turns:
                await self._by_digest(self.client.blob, f"/v2/{repository}/blobs/", digest, keep=False)

        async with asyncio.TaskGroup() as group:
            for digest in digests:
                group.create_task(blob(digest))

    async def _by_digest(self, head: Head, path: str, digest: str, *, keep: bool = True) -> Answer:
        answer = await self._ask(head, path + digest, keep=keep)
        if answer.digest != digest:
            raise Failed(f"{path}{digest} has other bytes")
        return answer

    async def _ask(self, head: Head, path: str, *, keep: bool = True) -> Answer:
        answer = await self.links.ask(head.to(self.links.address, path), keep=keep)
        if answer.status != 200:
            raise Failed(f"{answer.status} for {path}: {answer.body[:200]!r}")
        return answer

    def _choose(self, index: dict[str, Any]) -> str:
        for child in index["manifests"]:
            if child["platform"]["architecture"] == self.architecture:
                return str(child["digest"])
        raise Failed(f"nothing for {self.architecture}")
