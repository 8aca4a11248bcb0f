"""A server with hot answers, and clients that know one answer from the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from conftest import Clock, until
from images import push_pair
from patience import HANGING
from proxy.memory import MemoryRegistry
from proxy.oci.content import CacheResult, Delivery, Manifest, Resolved
from proxy.oci.lease import Lease
from proxy.oci.mediatype import Accept
from proxy.oci.reference import Reference, Repository
from proxy.telemetry import Accesses, Metrics
from proxy.web.distribution import Distribution
from proxy.web.request import always
from proxy.web.server import listen
from proxy.web.table import Tables


class Counted(MemoryRegistry):
    """A registry that gives a lease with every manifest and counts how often it is asked."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.clock = clock
        self.lease = self.leased()

    def leased(self) -> Lease:
        """Give a new lease, of 30 seconds from now."""
        self.lease = Lease()
        self.lease.since = self.clock.now
        self.lease.until = self.clock.now + 30
        return self.lease

    def _delivery(self) -> Delivery:
        self.reads += 1
        return Delivery(CacheResult.HIT, self.lease.age(self.clock.now), (), self.lease)

    async def manifest(self, repository: Repository, reference: Reference, accept: Accept) -> Manifest:
        """Return a manifest with a lease."""
        delivery = self._delivery()
        await self.gate.wait()
        return replace(await super().manifest(repository, reference, accept), delivery=delivery)

    async def resolve(self, repository: Repository, reference: Reference, accept: Accept) -> Resolved:
        """Return a descriptor with a lease."""
        found = await self.manifest(repository, reference, accept)
        return Resolved(found.descriptor, found.delivery)


@dataclass
class Server:
    """A server of that registry, with hot answers."""

    registry: Counted
    metrics: Metrics
    address: tuple[str, int]
    stack: AsyncExitStack
    tables: Tables
    connections: list[Connection] = field(default_factory=list)

    async def connect(self) -> Connection:
        """Open a connection."""
        connection = Connection(*await asyncio.open_connection(*self.address))
        self.connections.append(connection)
        return connection

    async def once(self, data: bytes) -> bytes:
        """Send *data* on a connection of its own and return all that comes."""
        connection = await self.connect()
        connection.writer.write(data)
        return await connection.rest()

    async def counted(self) -> int:
        """Return how many requests the metrics know."""
        lines = self.metrics.render().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("manifuse_requests_total{"))

    async def waiting(self, data: bytes, count: int) -> list[Connection]:
        """Let one connection ask and *count* others wait for its answer; return all of them."""
        self.registry.gate.clear()
        before = self.registry.reads
        connections = [await self.connect() for _ in range(count + 1)]
        connections[0].writer.write(data)
        await until(lambda: self.registry.reads == before + 1)
        for connection in connections[1:]:
            connection.writer.write(data)
        asking = self.tables._table.asking
        await until(lambda: len(asking._questions[data].waiting) == count)
        return connections


@dataclass
class Connection:
    """A client's side of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, data: bytes) -> bytes:
        """Send *data* and return the one answer that comes."""
        self.writer.write(data)
        return await self.answer(is_head=data.startswith(b"HEAD"))

    async def answer(self, *, is_head: bool = False) -> bytes:
        """Return the next answer."""
        async with asyncio.timeout(HANGING):
            header = await self.reader.readuntil(b"\r\n\r\n")
            length = 0 if is_head else int(header.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return header + await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """Return all that comes until the server closes."""
        async with asyncio.timeout(HANGING):
            return await self.reader.read()


@asynccontextmanager
async def serving(
    clock: Clock, trusted: Any = (), accesses: Accesses | None = None, memory: int = 1 << 20, patience: float = 60.0
) -> AsyncIterator[Server]:
    """Let a server with hot answers listen."""
    registry, metrics = Counted(clock), Metrics()
    push_pair(registry)
    distribution = Distribution(always(registry), metrics, trusted, accesses=accesses)
    async with AsyncExitStack() as stack:
        tables = Tables(memory, clock, trusted, patience=patience, coalesced=metrics.coalesced.inc)
        address = await stack.enter_async_context(listen(distribution.handle, ("127.0.0.1", 0), drain=5, tables=tables))
        server = Server(registry, metrics, address, stack, tables)
        yield server
    for connection in server.connections:
        connection.writer.close()


def undated(answer: bytes) -> bytes:
    """Leave the date out, which may change between two answers."""
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith(b"Date: "))
