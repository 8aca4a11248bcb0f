"""Blobs on their way: a registry that sends when it may and fails when it should, and a spool to look into."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conftest import Clock, until
from proxy.memory import MemoryRegistry
from proxy.oci.byterange import Nothing, Part, Whole, select
from proxy.oci.content import Blob
from proxy.oci.errors import RegistryError, Unreachable
from proxy.oci.reference import Digest, Repository
from proxy.store.base import Holder
from proxy.store.disk import Folder
from proxy.store.shelf import Shelf
from proxy.store.spool import Spool
from proxy.telemetry import Metrics

REPOSITORY = Repository("team/app")
DATA = random.Random(0).randbytes(3_000_000)  # noqa: S311 # no secret
LIMIT = 20_000_000


class Registry(MemoryRegistry):
    """A registry that sends blobs chunk by chunk, each when it may, and fails when it should."""

    def __init__(self, data: bytes = DATA, *, chunk: int = 100_000, announced: bool = True) -> None:
        super().__init__()
        self.data = data
        self.digest = Digest.of(data)
        self.opened: list[Part] = []
        self.allowed = 1 << 40
        self.refusal: RegistryError | None = None
        self.breaks_at = 1 << 40
        self._chunk = chunk
        self._announced = announced

    @asynccontextmanager
    async def blob(self, repository: Repository, digest: Digest, part: Part) -> AsyncIterator[Blob]:
        """Open the blob."""
        self.opened.append(part)
        if self.refusal is not None:
            await until(lambda: self.allowed > 0)
            raise self.refusal
        wanted = select(part, len(self.data))
        piece = self.data[wanted.first : wanted.last + 1] if wanted else self.data
        chunks = self._chunks(b"" if isinstance(part, Nothing) else piece)
        yield Blob(digest=digest, size=len(self.data) if self._announced else None, part=wanted, chunks=chunks)

    @property
    def transfers(self) -> int:
        """How often bytes were asked for."""
        return sum(not isinstance(part, Nothing) for part in self.opened)

    async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), self._chunk):
            await until(lambda start=start: start < self.allowed)  # type: ignore[misc]
            if start >= self.breaks_at:
                raise Unreachable("broken off")
            yield data[start : start + self._chunk]
            await asyncio.sleep(0)


@dataclass
class World:
    """A spool in a folder."""

    root: Path
    limit: int = LIMIT
    clock: Clock = field(default_factory=Clock)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        """Make the folder."""
        self.folder = Folder(self.root, self.clock)
        self.folder.prepare()
        self.spool = self.another()

    def another(self) -> Spool:
        """Return a spool on the same folder, as another process has one."""
        return Spool(Shelf(self.folder, self.limit, self.metrics, self.clock), self.metrics, self.clock)

    async def read(self, registry: Registry, part: Part = Whole(), spool: Spool | None = None) -> bytes:  # noqa: B008
        """Read a blob as a client would that can't be sent files."""
        async with (spool or self.spool).open(holder(registry), part) as blob:
            return b"".join([chunk async for chunk in blob.chunks])

    @property
    def waiting(self) -> int:
        """How many wait for more of a transfer, or for its beginning."""
        return sum(len(fill._change._waiters) for fill in self.spool._fills.values())

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        await until(lambda: not self.spool._tasks)

    def files(self, kind: str = "blobs") -> list[str]:
        """Name the files in a folder."""
        return sorted(path.name for path in (self.root / kind).rglob("*") if path.is_file())

    def count(self, name: str, **labels: str) -> float:
        """Return a counter."""
        counter = getattr(self.metrics, name)
        return float((counter.labels(**labels) if labels else counter)._value.get())


def holder(registry: Registry) -> Holder:
    """Return where the registry's blob is."""
    return Holder(registry, REPOSITORY, registry.digest)


def fails(call: Callable[..., object], after: int, code: int = errno.ENOSPC) -> Callable[..., object]:
    """Let *call* fail from the call behind the first *after* ones."""
    left = [after]

    def failing(*arguments: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code))
        return call(*arguments)

    return failing


def kept_file(world: World, registry: Registry) -> Path:
    """Return where the registry's blob is kept."""
    return world.root / "blobs" / "sha256" / registry.digest.hex


async def checked(spool: Spool) -> None:
    """Wait until nothing kept is to be looked at any more."""
    await until(lambda: spool._checks.is_idle)
