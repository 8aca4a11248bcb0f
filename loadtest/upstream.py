"""The registry far away: releases in memory, a delay before each answer, and a count of what it was asked.

    python -m loadtest.upstream TAGS DELAY LAYERS SIZE

Writes its address to stdout once it listens, and the number of requests so far for each line that comes on stdin.
It ends when stdin does. `GET /v2/` isn't counted and not delayed.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass, field

import uvloop

from loadtest.images import fill, release
from loadtest.origin import Slow
from proxy.app import serve_registry
from proxy.memory import MemoryRegistry
from proxy.telemetry import configure_logging


@dataclass(slots=True)
class Count:
    """How often something happened."""

    number: int = 0


@dataclass(frozen=True, slots=True)
class Counted(Slow):
    """A slow registry that counts what it is asked."""

    asked: Count = field(default_factory=Count)

    async def _wait(self) -> None:
        self.asked.number += 1
        if self.delay:
            await asyncio.sleep(self.delay)


async def main(tags: int, delay: float, layers: int, size: int) -> None:
    """Serve until stdin ends."""
    registry = MemoryRegistry()
    for number in range(tags):
        fill(registry, release(f"{number}", layers, size))
    counted = Counted(registry, delay)
    async with serve_registry(counted, ("127.0.0.1", 0)) as (host, port):
        print(f"{host}:{port}", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(counted.asked.number, flush=True)


if __name__ == "__main__":
    configure_logging(level=logging.ERROR)
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
