"""Layers: what a gigabyte costs the server, from disk and passed through, and what slow readers hold on to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from e2e import wire
from loadtest import cpu, sockets
from loadtest.bench import Bench, Run, alternate, ratios, scores, watched
from loadtest.heads import Head, containerd
from loadtest.peers import DISTRIBUTIONS, Peer, blob_modes
from loadtest.report import Row, summary

_REPOSITORY = "blobs/app"
_MIB = 1 << 20
_GB = 1e9
_LARGE = 256 * _MIB
_LAYER = 64 * _MIB
_SIP = 0.01  # seconds between two sips of all slow readers
_SIPPED = 2 * _MIB  # that each of them reads


def _head(digest: str) -> Head:
    return containerd().blob.to("", f"/v2/{_REPOSITORY}/blobs/{digest}")


def _fetching(peer: Peer, batches: Iterator[Sequence[Head]]) -> Callable[[], Run]:
    """Return a run that fetches the next batch; its score is the server's CPU seconds for a gigabyte."""

    def load() -> float:
        heads = [head.to(peer.address, head.path) for head in next(batches)]
        before = cpu.seconds(peer.pid)
        read = sockets.fetch(peer.address, heads)
        return (cpu.seconds(peer.pid) - before) / (read / _GB)

    return lambda: watched(peer.pid, load)


def cached(bench: Bench) -> list[Row]:
    """Measure a blob that is on disk."""
    row = Row(
        what="cached blob, server CPU per GB",
        unit="x nginx sendfile",
        limit=1.1,
        at_least=False,
        how=f'`blobs = "cache"`, a blob of {_LARGE // _MIB} MiB that was fetched before, one connection that reads it '
        "again and again; nginx with sendfile and the same file. User and system time of the server.",
    )
    if "cache" not in blob_modes():
        return [replace(row, missing='this manifuse has no `blobs = "cache"`')]
    data = os.urandom(_LARGE)
    with ExitStack() as stack:
        yard = bench.yard
        origin = stack.enter_context(yard.distribution("docker-registry", cores=bench.cores.load))
        digest = wire.push_blob(origin.address, _REPOSITORY, data)
        ours = stack.enter_context(yard.manifuse(origin.address, of_upstream='blobs = "cache"'))
        path = f"/v2/{_REPOSITORY}/blobs/{digest}"
        theirs = stack.enter_context(yard.nginx({path: data}, "application/octet-stream"))
        times = max(1, round(bench.plan.gigabytes * _GB / _LARGE))
        peers = {"manifuse": ours, "nginx": theirs}
        runs = {name: _fetching(peer, iter(lambda: [_head(digest)] * times, None)) for name, peer in peers.items()}
        for run in runs.values():
            run()  # the first one fetches it, or finds cold pages
        found = alternate(runs, bench.plan.repeats)
    return [_measured(row, found, "nginx")]


def streamed(bench: Bench) -> list[Row]:
    """Measure blobs that pass through, each for the first time."""
    old = "docker-registry"
    repeats, count = min(3, bench.plan.repeats), max(1, round(bench.plan.gigabytes / 4 * _GB / _LAYER))
    with ExitStack() as stack:
        yard = bench.yard
        origin = stack.enter_context(yard.distribution(old, cores=bench.cores.load))
        digests = [
            wire.push_blob(origin.address, _REPOSITORY, os.urandom(_LAYER)) for _ in range((1 + repeats) * count)
        ]
        batches = [[_head(digest) for digest in digests[at : at + count]] for at in range(0, len(digests), count)]
        peers: dict[str, Peer] = {"manifuse": stack.enter_context(yard.manifuse(origin.address))}
        peers[DISTRIBUTIONS[old]] = stack.enter_context(yard.distribution(old, remote=origin.address))
        runs = {name: _fetching(peer, iter(batches)) for name, peer in peers.items()}
        for run in runs.values():
            run()  # for connections and caches of code
        found = alternate(runs, repeats)
    row = Row(
        what="streamed blob, server CPU per GB",
        unit="x distribution 2.8's pull-through",
        limit=1.0,
        at_least=False,
        how=f"Blobs of {_LAYER // _MIB} MiB that nobody has asked for, on one connection. manifuse passes them on and "
        "hashes them, the pull-through cache passes them on, hashes them, and keeps them. User and system time of "
        "the server.",
    )
    return [_measured(row, found, DISTRIBUTIONS[old])]


def slow(bench: Bench) -> list[Row]:
    """Measure what a transfer to a slow reader holds in memory."""
    readers, grown = bench.plan.readers, []
    with ExitStack() as stack:
        yard = bench.yard
        origin = stack.enter_context(yard.distribution("docker-registry", cores=bench.cores.load))
        digest = wire.push_blob(origin.address, _REPOSITORY, os.urandom(_LAYER))
        many = f"connections = {2 * readers}"
        for _ in range(min(3, bench.plan.repeats)):
            with yard.manifuse(origin.address, of_upstream=many) as ours:
                head = _head(digest).to(ours.address, _head(digest).path)
                sockets.fetch(ours.address, [head])
                grown.append(_growth(ours, head, readers))
    return [
        Row(
            what=f"streamed blob, memory per transfer with {readers} slow readers",
            unit="MiB",
            limit=1.0,
            at_least=False,
            values=tuple(grown),
            how=f"{readers} connections with receive buffers of 32 KiB read the same blob of {_LAYER // _MIB} MiB, "
            f"each {_SIPPED // _MIB} MiB of it, 16 KiB at a time. The highest resident memory meanwhile, less that "
            "after one whole download, by the number of readers. Each has an upstream connection of its own: "
            f"`{many}`, where 100 is the default.",
        )
    ]


def _growth(ours: Peer, head: Head, readers: int) -> float:
    before = highest = cpu.resident(ours.pid)
    with sockets.slow_readers(ours.address, head, readers, _SIPPED) as sips:
        for _ in sips:
            highest = max(highest, cpu.resident(ours.pid))
            time.sleep(_SIP)
    return (highest - before) / readers


def _measured(row: Row, found: dict[str, list[Run]], theirs: str) -> Row:
    details = tuple(summary(name, scores(runs), "CPU s per GB") for name, runs in found.items())
    return replace(row, values=ratios(found["manifuse"], found[theirs]), details=details)
