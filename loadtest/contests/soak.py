"""An hour's worth of requests: does memory grow without end?"""

from __future__ import annotations

import asyncio
import random
import time
from statistics import median

import uvloop

from loadtest import cpu
from loadtest.bench import Bench
from loadtest.drive import Links, Puller, links
from loadtest.heads import containerd, docker, podman
from loadtest.images import RULE, SUFFIXES, VIRTUAL
from loadtest.peers import Manifuse
from loadtest.report import Row, number
from loadtest.wrk import Failed

_RATE = 100  # requests a second, of which there is an hour's worth
_LONGEST = 3600.0  # seconds after which it ends in any case
_CLIENTS = 12
_TAGS = 3000
_SAMPLE = 1.0  # seconds between two looks
_MEMORY = "8MiB"  # for what is kept, so that it is full, and things leave it, almost from the beginning
_CLOSES = 50  # pulls after which a client comes anew


def soak(bench: Bench) -> list[Row]:
    """Send as many requests as an hour has, as fast as they are answered, and watch resident memory."""
    wanted = _RATE * (3600 if bench.plan.repeats > 1 else 60)
    began = time.monotonic()
    with (
        bench.yard.origin(_TAGS, layers=2, size=20_000) as origin,
        bench.yard.manifuse(origin.address, rule=RULE, of_cache=f'memory = "{_MEMORY}"\ntag_ttl = "2s"') as ours,
    ):
        asked, samples = uvloop.run(_soak(ours, wanted))
    took = time.monotonic() - began
    half, last = samples[len(samples) // 2 : 3 * len(samples) // 4], samples[3 * len(samples) // 4 :]
    shown = [samples[at * (len(samples) - 1) // 10] for at in range(11)]
    return [
        Row(
            what=f"soak: memory of the last quarter over the third, {asked:,} requests",
            unit="x",
            limit=1.05,
            at_least=False,
            values=(median(last) / median(half),),
            how=f"{_CLIENTS} clients pull {_TAGS:,} tags at random like docker, containerd and podman, ask for names "
            f"that aren't there, for lists of tags, and leave without waiting for an answer; {took:.0f} s. Tags are "
            f"asked for again after 2 s, `cache.memory` is {_MEMORY}. Compared are medians of resident memory, looked "
            "at every second.",
            details=("resident MiB from beginning to end: " + ", ".join(number(each) for each in shown),),
        )
    ]


async def _soak(ours: Manifuse, wanted: int) -> tuple[int, list[float]]:
    """Return how many requests were sent, and the samples of memory."""
    asked, samples = [0] * _CLIENTS, [cpu.resident(ours.pid)]
    end = time.monotonic() + _LONGEST
    clients = [asyncio.create_task(_client(ours, which, asked, wanted, end)) for which in range(_CLIENTS)]
    while not all(client.done() for client in clients):
        await asyncio.wait(clients, timeout=_SAMPLE)
        samples.append(cpu.resident(ours.pid))
    await asyncio.gather(*clients)
    return sum(asked), samples


async def _client(ours: Manifuse, which: int, asked: list[int], wanted: int, end: float) -> None:
    chance = random.Random(which)  # noqa: S311 - the same in every run
    client = (docker, containerd, podman)[which % 3]()
    while sum(asked) < wanted and time.monotonic() < end:
        async with links(ours.address) as opened:
            puller = Puller(client, opened)
            for _ in range(_CLOSES):
                tag = f"{chance.randrange(_TAGS)}"
                asked[which] += await puller.pull(VIRTUAL, tag)
                asked[which] += await _strangely(opened, tag, chance.randrange(20))


async def _strangely(opened: Links, tag: str, choice: int) -> int:
    """Ask, now and then, for something else than a pull. Returns how many requests that took."""
    paths = {0: (f"/v2/{VIRTUAL}/manifests/none-{tag}", 404), 1: (f"/v2/{VIRTUAL}/tags/list?n=100", 200)}
    if choice in paths:
        path, status = paths[choice]
        answer = await opened.ask(podman().resolve.alive().to(opened.address, path))
        if answer.status != status:
            raise Failed(f"{answer.status} for {path}: {answer.body[:200]!r}")
        return 1
    if choice == 2:
        await _leave(opened.address, tag)
        return 1
    return 0


async def _leave(address: str, tag: str) -> None:
    """Ask for an image of one architecture, and go before the answer has come."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    path = f"/v2/{VIRTUAL}{next(iter(SUFFIXES))}/manifests/{tag}"
    writer.write(bytes(podman().resolve.alive().to(address, path)))
    await writer.drain()
    writer.close()
