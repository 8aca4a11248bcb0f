"""What many tags cost: memory, a hot request, the start."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import uvloop

from loadtest import cpu
from loadtest.bench import Bench, alternate
from loadtest.contests.hot import QUIET, TAG, details, loading
from loadtest.drive import links
from loadtest.heads import podman
from loadtest.images import RULE, VIRTUAL
from loadtest.known import LASTING, seed
from loadtest.peers import Peer
from loadtest.report import Row, summary
from loadtest.wrk import Failed

_MEMORY = 64  # MiB, the default of `cache.memory`
_SECONDS = 240.0  # at most for asking for known tags: each comes from disk, for 2 ms of CPU time
_AT_ONCE = 4  # connections that ask for them: enough to leave the server no pause
_WARM = 2000  # known tags asked for before a load
_TIMES = 2  # the usual repetitions: what is looked for is no difference, and each run has its own
_HEAD = podman().resolve.alive()


def memory(bench: Bench) -> list[Row]:
    """Measure resident memory: idle, and with many tags known; and how long a start takes with them on disk."""
    yard, plan = bench.yard, bench.plan
    idle, grown, ready, asked = [], [], [], 0
    with yard.origin(1) as origin:
        planted = seed(yard, origin)
        cache = yard.folder / "known"
        planted.fill(cache, plan.tags, different=True)
        for _ in range(plan.repeats):
            with yard.manifuse(origin.address, rule=RULE) as ours:
                time.sleep(1)
                idle.append(cpu.resident(ours.pid))
            with yard.manifuse(origin.address, rule=RULE, of_cache=LASTING, cache=cache) as ours:
                ready.append(ours.ready)
        with yard.manifuse(origin.address, rule=RULE, of_cache=LASTING, cache=cache) as ours:
            before = cpu.resident(ours.pid)
            asked = uvloop.run(_ask(ours, plan.tags, _SECONDS))
            grown.append(cpu.resident(ours.pid) - before)
            if ours.upstream_requests():
                raise Failed("the tags that were prepared aren't known: upstreams were asked")
    return [
        Row(
            what="memory, idle",
            unit="MiB",
            limit=60.0,
            at_least=False,
            values=tuple(idle),
            how="Resident memory of one worker a second after the start, nothing asked. The default configuration.",
        ),
        Row(
            what=f"memory, {plan.tags:,} tags known",
            unit="MiB more than idle",
            limit=1.2 * _MEMORY,
            at_least=False,
            values=tuple(grown),
            how=f"Each tag has an index of its own. Resident memory after {asked:,} of them were asked for, over "
            f"{_AT_ONCE} connections and for {_SECONDS:.0f} s at most, less that before; `cache.memory` is its "
            f"default, {_MEMORY} MiB, and a fifth may come on top.",
            details=(f"{asked:,} of {plan.tags:,} tags asked for",),
        ),
        Row(
            what=f"start to ready, {plan.tags:,} tags on disk",
            unit="s",
            limit=1.0,
            at_least=False,
            values=tuple(ready),
            how="From starting the process, the interpreter's own start included, to the log line that says it "
            "listens. Each tag has three files. The kernel knows the folder.",
        ),
    ]


async def _ask(ours: Peer, tags: int, seconds: float) -> int:
    """Ask for *tags* tags over several connections, as many as *seconds* allow; return how many that were."""
    end = time.monotonic() + seconds
    numbers = iter(range(tags))

    async def some() -> int:
        asked = 0
        while time.monotonic() < end and (number := next(numbers, None)) is not None:
            answer = await opened.ask(_HEAD.to(ours.address, f"/v2/{VIRTUAL}/manifests/{number}"))
            if answer.status != 200:
                raise Failed(f"{answer.status} for tag {number}: {answer.body[:200]!r}")
            asked += 1
        return asked

    async with links(ours.address) as opened:
        return sum(await asyncio.gather(*(some() for _ in range(_AT_ONCE))))


def hot_cost(bench: Bench) -> list[Row]:
    """Measure one hot request where few and where many tags are known."""
    yard, plan = bench.yard, bench.plan
    head = _HEAD.to("", TAG)
    took = []
    with ExitStack() as stack:
        origin = stack.enter_context(yard.origin(1))
        planted = seed(yard, origin)
        contestants = {}
        for tags in plan.known:
            cache = yard.folder / f"known-{tags}"
            began = time.monotonic()
            planted.fill(cache, tags, different=False)
            took.append(time.monotonic() - began)
            ours = stack.enter_context(
                yard.manifuse(origin.address, top=QUIET, rule=RULE, of_cache=LASTING, cache=cache)
            )
            uvloop.run(_ask(ours, min(tags, _WARM), _SECONDS))
            contestants[f"{tags:,} tags"] = loading(bench, ours, [head])
        runs = alternate(contestants, plan.repeats * _TIMES)
    few, *_, many = runs
    pairs = zip(runs[few], runs[many], strict=True)
    return [
        Row(
            what=f"one hot request, {many} over {few}",
            unit="x requests for a second of CPU time",
            limit=0.95,
            values=tuple((there.score / there.busy) / (here.score / here.busy) for here, there in pairs),
            how=f"wrk as for the hot tag; neither logs requests. The tags are on disk, {_WARM:,} of them were asked "
            "for and are in memory, too. Compared is the server's CPU time, so that the load's own doesn't count. "
            "Flat within noise is taken for: not 5 % dearer.",
            details=(*details(runs), summary("making the folders", took, "s")),
        )
    ]
