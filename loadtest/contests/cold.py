"""What nobody has asked for before: merging it, against what must be asked for anyway, and for a thousand at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from itertools import count, islice
from statistics import median, quantiles

import orjson
import uvloop

from loadtest import cpu
from loadtest.bench import Bench
from loadtest.drive import Answer, Links, links
from loadtest.heads import podman
from loadtest.images import READY, RULE, SUFFIXES, VIRTUAL
from loadtest.peers import DISTRIBUTIONS, Manifuse, Missing, Peer
from loadtest.report import Row, number, summary
from loadtest.wrk import Failed

DELAY = 0.02  # seconds before the upstream answers
OWN = 5.0  # milliseconds
MANIFUSE, STRAIGHT = "manifuse", "straight"
_WARM = 10  # tags beforehand, not counted, for connections and caches of code

_HEAD = podman().resolve.alive()
Way = Callable[[str], Awaitable[None]]


def merge(bench: Bench) -> list[Row]:
    """Measure the first pull of a tag: straight, merged, and ready-made through pull-through caches."""
    plan, yard = bench.plan, bench.yard
    with ExitStack() as stack:
        origin = stack.enter_context(yard.origin(_WARM + plan.repeats * plan.cold, DELAY))
        peers: dict[str, Peer] = {STRAIGHT: origin}
        peers[MANIFUSE] = stack.enter_context(yard.manifuse(origin.address, rule=RULE))
        for command, name in DISTRIBUTIONS.items():
            try:
                peers[name] = stack.enter_context(yard.distribution(command, remote=origin.address))
            except Missing as missing:
                print(f"  left out: {missing}", flush=True)
        found = uvloop.run(_measure(peers, plan.repeats, plan.cold))
    return _rows(found)


def _rows(found: list[Mapping[str, list[float]]]) -> list[Row]:
    medians = {name: tuple(1000 * median(each[name]) for each in found) for name in found[0]}
    own = tuple(
        1000 * median(there - here for there, here in zip(each[MANIFUSE], each[STRAIGHT], strict=True))
        for each in found
    )
    how = (
        "Every tag is new to everybody. `straight` sends what manifuse sends, in the same two rounds, over kept "
        "connections; the difference is taken tag by tag. manifuse with its default log."
    )
    rows = [
        Row(
            what="cold merge of two sources, upstream 20 ms away",
            unit="ms over 2 round trips",
            limit=OWN,
            at_least=False,
            values=own,
            how=how,
            details=tuple(summary(name, values, "ms") for name, values in medians.items()),
        )
    ]
    for name in DISTRIBUTIONS.values():
        theirs = medians.get(name, ())
        values = tuple(mine / other for mine, other in zip(medians[MANIFUSE], theirs, strict=False))
        what, behind = f"cold merge against {name}'s pull-through", "The same tags; the list is ready-made there."
        missing = "" if values else f"no {name}"
        rows.append(Row(what=what, unit="x", limit=1.0, at_least=False, values=values, how=behind, missing=missing))
    return rows


async def _measure(peers: Mapping[str, Peer], repeats: int, cold: int) -> list[Mapping[str, list[float]]]:
    tags = map(str, count())
    async with AsyncExitStack() as stack:
        opened = {name: await stack.enter_async_context(links(peer.address)) for name, peer in peers.items()}
        ways = {name: _way(name, each) for name, each in opened.items()}
        await _repetition(ways, list(islice(tags, _WARM)))
        return [await _repetition(ways, list(islice(tags, cold))) for _ in range(repeats)]


async def _repetition(ways: Mapping[str, Way], tags: list[str]) -> Mapping[str, list[float]]:
    """Measure *tags*, each in every way, another one first each time."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn, tag in enumerate(tags):
        names = list(ways)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            await ways[name](tag)
            found[name].append(time.perf_counter() - began)
    return found


def _way(name: str, opened: Links) -> Way:
    if name == STRAIGHT:
        return lambda tag: _straight(opened, tag)
    return lambda tag: _list(opened, VIRTUAL if name == MANIFUSE else READY, tag)


async def _list(opened: Links, repository: str, tag: str) -> None:
    answer = await _get(opened, f"/v2/{repository}/manifests/{tag}")
    if len(orjson.loads(answer.body).get("manifests", ())) != len(SUFFIXES):
        raise Failed(f"{repository}:{tag} isn't a list of both")


async def _straight(opened: Links, tag: str) -> None:
    """Send what manifuse sends for a cold tag, in the same two rounds."""
    *images, _ = await asyncio.gather(
        *(_get(opened, f"/v2/{VIRTUAL}{suffix}/manifests/{tag}") for suffix in SUFFIXES),
        opened.ask(_HEAD.to(opened.address, f"/v2/{VIRTUAL}/manifests/{tag}", "HEAD")),
    )
    digests = [orjson.loads(image.body)["config"]["digest"] for image in images]
    await asyncio.gather(
        *(
            _get(opened, f"/v2/{VIRTUAL}{suffix}/blobs/{digest}")
            for suffix, digest in zip(SUFFIXES, digests, strict=True)
        )
    )


async def _get(opened: Links, path: str) -> Answer:
    answer = await opened.ask(_HEAD.to(opened.address, path))
    if answer.status != 200:
        raise Failed(f"{answer.status} for {path}: {answer.body[:200]!r}")
    return answer


def herd(bench: Bench) -> list[Row]:
    """Let many clients ask for one cold tag at once."""
    plan, yard = bench.plan, bench.yard
    alone = RULE.replace("sources =", 'base = "ignore"\nsources =')
    with yard.origin(_WARM + 6 * plan.repeats, DELAY) as origin:
        with yard.manifuse(origin.address, rule=RULE) as ours:
            found = uvloop.run(_herds(ours, plan.clients, plan.repeats))
        with yard.manifuse(origin.address, rule=alone) as ours:
            ignoring = uvloop.run(_herds(ours, plan.clients, 1))
    asked = tuple(float(each.asked) for each in found)
    how = (
        f"{plan.clients} kept connections ask for a tag that nobody has asked for, all at once; everybody has to get "
        "the merged list. The upstream is 20 ms away. manifuse with its default log."
    )
    details = (
        summary("99th percentile", [1000 * each.slow for each in found], "ms"),
        summary("cold merge, one client", [1000 * each.merged for each in found], "ms"),
        summary("CPU time of manifuse for a herd", [1000 * each.cpu for each in found], "ms"),
    )
    every = f"with that HEAD, which asks whether there is an image at the name: {number(median(asked))}"
    fewer = f"but for that HEAD: {number(median(asked) - 1)}"
    without = f'with `base = "ignore"` in the rule, which spares asking for the name itself: {ignoring[0].asked}'
    return [
        Row(
            what=f"{plan.clients} clients, one cold tag: upstream requests, but for the HEAD of the name itself",
            unit="requests",
            limit=4.0,
            at_least=False,
            values=tuple(each - 1 for each in asked),
            how=how,
            details=(every, fewer, without),
        ),
        Row(
            what=f"{plan.clients} clients, one cold tag: 99th percentile over the cold merge",
            unit="x",
            limit=3.0,
            at_least=False,
            values=tuple(each.slow / each.merged for each in found),
            how="The same herds; the cold merge is the median of five single pulls before each.",
            details=details,
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Herd:
    """Upstream requests; seconds: the 99th percentile, a cold merge for one client, and manifuse's CPU time."""

    asked: int
    slow: float
    merged: float
    cpu: float


async def _herds(ours: Manifuse, clients: int, repeats: int) -> list[_Herd]:
    tags = map(str, count())
    async with links(ours.address) as opened:
        await opened.warm(clients)
        for _ in range(_WARM):
            await _timed(opened, next(tags))
        return [await _herd(ours, opened, tags, clients) for _ in range(repeats)]


async def _herd(ours: Manifuse, opened: Links, tags: Iterator[str], clients: int) -> _Herd:
    merged = [await _timed(opened, next(tags)) for _ in range(5)]
    await asyncio.sleep(0.2)  # what is written behind the answers is written
    before, tag = await asyncio.to_thread(ours.upstream_requests), next(tags)
    spent = cpu.seconds(ours.pid)
    took = await asyncio.gather(*(_timed(opened, tag) for _ in range(clients)))
    spent = cpu.seconds(ours.pid) - spent
    asked = await asyncio.to_thread(ours.upstream_requests) - before
    return _Herd(asked=asked, slow=quantiles(took, n=100)[98], merged=median(merged), cpu=spent)


async def _timed(opened: Links, tag: str) -> float:
    began = time.perf_counter()
    await _list(opened, VIRTUAL, tag)
    return time.perf_counter() - began
