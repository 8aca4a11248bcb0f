"""The registry that the cold path is measured against: images in memory, a delay before each answer.

    python loadtest/origin.py TAGS DELAY

It has TAGS tags of two repositories, one an architecture each, waits DELAY seconds before it answers, and writes its
address to stdout once it listens.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvloop

from proxy import demo
from proxy.app import serve_registry
from proxy.memory import MemoryRegistry, add_image
from proxy.oci.byterange import Part
from proxy.oci.content import Blob, Descriptor, Manifest, RepositoryPage, Resolved, TagPage
from proxy.oci.errors import Unsupported
from proxy.oci.mediatype import Accept
from proxy.oci.reference import Digest, Reference, Repository, Tag
from proxy.oci.write import Target, Write, Written
from proxy.telemetry import configure_logging


@dataclass(frozen=True, slots=True)
class Slow:
    """A registry that takes its time, *delay* seconds, before it begins to answer."""

    registry: MemoryRegistry
    delay: float

    async def resolve(self, repository: Repository, reference: Reference, accept: Accept) -> Resolved:
        """Return a manifest's descriptor."""
        await self._wait()
        return await self.registry.resolve(repository, reference, accept)

    async def manifest(self, repository: Repository, reference: Reference, accept: Accept) -> Manifest:
        """Return a manifest."""
        await self._wait()
        return await self.registry.manifest(repository, reference, accept)

    @asynccontextmanager
    async def blob(self, repository: Repository, digest: Digest, part: Part) -> AsyncIterator[Blob]:
        """Open a blob."""
        await self._wait()
        async with self.registry.blob(repository, digest, part) as blob:
            yield blob

    async def tags(self, repository: Repository, limit: int | None, last: str) -> TagPage:
        """Return a page of tags."""
        await self._wait()
        return await self.registry.tags(repository, limit, last)

    async def referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to a manifest."""
        await self._wait()
        return await self.registry.referrers(repository, digest)

    async def catalog(self, limit: int | None, last: str) -> RepositoryPage:
        """Return a page of repositories."""
        await self._wait()
        return await self.registry.catalog(limit, last)

    def check_write(self, at: Target) -> None:
        """Take no pushes."""
        raise Unsupported("this registry is read-only")

    async def write(self, write: Write) -> Written:
        """Take no pushes."""
        raise Unsupported("this registry is read-only")

    async def _wait(self) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)


def filled(tags: int) -> MemoryRegistry:
    """Return a registry whose images all differ, so that nothing known of one helps with another."""
    registry = MemoryRegistry()
    for number in range(tags):
        for repository, machine in demo.machines():
            layer = f"{repository}:{number}".encode()
            tag = Tag(f"{number}")
            add_image(registry, repository, tag, machine.platform, layer=layer, diff_id=Digest.of(layer))
    return registry


async def main(tags: int, delay: float) -> None:
    """Serve until killed."""
    async with serve_registry(Slow(filled(tags), delay), ("127.0.0.1", 0)) as (host, port):
        print(f"http://{host}:{port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    configure_logging(level=logging.ERROR)
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
