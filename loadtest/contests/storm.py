"""A pull storm: many nodes start the same application, whose images nobody has pulled yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import uvloop

from loadtest.bench import Bench, Run, alternate, busy, ratios, scores, watched
from loadtest.drive import Puller, links
from loadtest.heads import Client, containerd, docker, podman
from loadtest.images import READY, RULE, VIRTUAL
from loadtest.peers import DISTRIBUTIONS, Missing, Origin, Peer, blob_modes, found
from loadtest.report import Row, summary

_LAYERS, _SIZE = 3, 256 * 1024
_DELAY = 0.02
_AT_ONCE = 2  # images that a node pulls at the same time
_CLIENTS = (docker, containerd, podman)
_ARCHITECTURES = ("amd64", "arm64")


def storm(bench: Bench) -> list[Row]:
    """Let nodes pull an application through manifuse, and through pull-through caches."""
    plan = bench.plan
    asked: dict[str, list[float]] = {}
    names = ["manifuse", *filter(None, map(_there, DISTRIBUTIONS))]
    with bench.yard.origin(plan.apps, _DELAY, layers=_LAYERS, size=_SIZE) as origin:
        contestants = {name: partial(_storm, bench, origin, name, asked) for name in names}
        runs = alternate(contestants, plan.storms)
    return _rows(bench, runs, asked)


def _there(command: str) -> str:
    try:
        found(command)
    except Missing as missing:
        print(f"  left out: {missing}", flush=True)
        return ""
    return DISTRIBUTIONS[command]


def _storm(bench: Bench, origin: Origin, name: str, asked: dict[str, list[float]]) -> Run:
    """Run one storm through a proxy that knows nothing. Its score is the seconds until the last node is done."""
    plan = bench.plan
    with _proxy(bench, origin, name) as peer:
        before = origin.requests()
        repository = VIRTUAL if name == "manifuse" else READY
        run = watched(peer.pid, lambda: uvloop.run(_nodes(peer, repository, plan.nodes, plan.apps)))
        per_thousand = 1000 * (origin.requests() - before) / (plan.nodes * plan.apps)
    asked.setdefault(name, []).append(per_thousand)
    return run


@contextmanager
def _proxy(bench: Bench, origin: Origin, name: str) -> Iterator[Peer]:
    if name == "manifuse":
        mode = f'blobs = "{_mode()}"'
        with bench.yard.manifuse(origin.address, rule=RULE, of_upstream=mode) as ours:
            yield ours
    else:
        command = next(command for command, called in DISTRIBUTIONS.items() if called == name)
        with bench.yard.distribution(command, remote=origin.address) as theirs:
            yield theirs


def _mode() -> str:
    return "cache" if "cache" in blob_modes() else "stream"


async def _nodes(peer: Peer, repository: str, nodes: int, apps: int) -> float:
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(nodes):
            client = _CLIENTS[number % len(_CLIENTS)]()
            architecture = _ARCHITECTURES[number // len(_CLIENTS) % len(_ARCHITECTURES)]
            group.create_task(_node(peer, repository, apps, client, architecture))
    return time.perf_counter() - began


async def _node(peer: Peer, repository: str, apps: int, client: Client, architecture: str) -> None:
    turns = asyncio.Semaphore(_AT_ONCE)
    async with links(peer.address) as opened:
        puller = Puller(client, opened, architecture)

        async def pull(tag: str) -> None:
            async with turns:
                await puller.pull(repository, tag)

        async with asyncio.TaskGroup() as group:
            for number in range(apps):
                group.create_task(pull(f"{number}"))


def _rows(bench: Bench, runs: Mapping[str, list[Run]], asked: Mapping[str, list[float]]) -> list[Row]:
    plan = bench.plan
    how = (
        f"{plan.nodes} nodes, a third each like docker, containerd and podman, half of them amd64 and half arm64, "
        f"pull {plan.apps} images, {_AT_ONCE} at a time, as recorded and every byte verified, through a proxy that "
        f'knows nothing yet; the upstream is 20 ms away. manifuse merges, with `blobs = "{_mode()}"` and its default '
        f"log; the others are asked for lists that were ready-made. An image has {_LAYERS} layers of {_SIZE // 1024} "
        "KiB. All nodes share the cores of the load."
    )
    times = tuple(
        f"{summary(name, scores(each), 's')}, {100 * busy(each):.0f} % of a core" for name, each in runs.items()
    )
    requests = tuple(summary(name, each, "upstream requests per 1,000 pulls") for name, each in asked.items())
    what = f"pull storm, {plan.nodes} nodes, {plan.apps} images"
    rows = [
        Row(
            what=f"{what}: time to the last node against {name}",
            unit="x",
            values=ratios(runs["manifuse"], runs[name]),
            how="The same storms.",
        )
        for name in list(runs)[1:]
    ]
    new = 1000 / plan.nodes
    return [
        Row(
            what=f"{what}: upstream requests",
            unit="per 1,000 pulls",
            values=tuple(asked["manifuse"]),
            how=f"{how} Of 1,000 pulls {new:.0f} are of an image that nobody has pulled before.",
            details=(*requests, *times),
        ),
        *rows,
    ]
