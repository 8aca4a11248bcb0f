"""Two workers on two cores against one on one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from loadtest.bench import Bench, Run, alternate, ratios
from loadtest.contests.hot import PODMAN, QUIET, details, loading, served
from loadtest.images import RULE
from loadtest.peers import Missing, Peer, knows
from loadtest.quota import held
from loadtest.report import Row

_HOT: Final = "hot answers"
_FULL_PATH: Final = "the full path"
_SHARE: Final = 0.3  # of a core, for each of two workers that leave room for their load


def workers(bench: Bench) -> list[Row]:
    """Measure two workers on two cores against one on one."""
    ways = (_FULL_PATH,) if knows("hot") is None else (_HOT, _FULL_PATH)
    return [row for way in ways for row in _contest(bench, way)]


def _contest(bench: Bench, way: str) -> list[Row]:
    with _one_and_two(bench, hot=way is _HOT) as peers:
        free = alternate(_unbridled(bench, peers), bench.plan.repeats)
        if not bench.cores.shared:
            return [_over(free, way, 1.7, _shared(bench))]
        return [_bridled(bench, peers, way), *_by_cpu_time(bench, free, way)]


def _bridled(bench: Bench, peers: Mapping[str, Peer], way: str) -> Row:
    """Give each worker a share of its core, so that the load finds room beside them."""
    what = f"{way}; each worker may have {_SHARE:.0%} of its core"
    how = (
        f"The kernel's CPU controller lets each worker have {_SHARE:.0%} of a core and no more; wrk, as for the hot "
        "tag, has what is left of both cores. A hot answer costs less than asking for it, so that two cores can't hold "
        "two workers at full speed and their load. Neither logs requests."
    )
    runs: dict[str, Callable[[], Run]] = {}
    try:
        with ExitStack() as stack:
            for name, peer in peers.items():
                stack.enter_context(held(peer.pid, _SHARE))
                runs[name] = loading(bench, peer, [PODMAN], bench.cores.pair)
            return _over(alternate(runs, bench.plan.repeats), what, 1.7, how)
    except Missing as missing:
        return replace(_over({}, what, 1.7, how), missing=str(missing))


def _by_cpu_time(bench: Bench, runs: Mapping[str, list[Run]], way: str) -> list[Row]:
    """Say what the workers made of the time that they got beside a load that wants it, too."""
    one, two = runs.values()
    measured = _over(runs, way, None, _shared(bench))
    given = tuple(2 * (b.score / b.busy) / (a.score / a.busy) for a, b in zip(one, two, strict=True))
    how = "The same runs: requests for a second of the servers' CPU time, two workers over one, times two cores."
    return [measured, Row(what=f"{measured.what}, by their CPU time", unit="x", values=given, how=how)]


@contextmanager
def _one_and_two(bench: Bench, *, hot: bool) -> Iterator[dict[str, Peer]]:
    """Run one worker on one core, and two on two."""
    key = "" if knows("hot") is None else f"hot = {str(hot).lower()}\n"
    peers: dict[str, Peer] = {}
    with ExitStack() as stack:
        origin = stack.enter_context(bench.yard.origin(1))
        for count, where in ((1, bench.cores.server), (2, bench.cores.pair)):
            top = f"{QUIET}\n{key}workers = {count}"
            peer = stack.enter_context(bench.yard.manifuse(origin.address, top=top, rule=RULE, cores=where))
            for _ in range(8):
                served(peer)  # so that each worker knows it
            peers[f"{count} on {len(where)}"] = peer
        yield peers


def _unbridled(bench: Bench, peers: Mapping[str, Peer]) -> dict[str, Callable[[], Run]]:
    return {name: loading(bench, peer, [PODMAN], bench.cores.load_of_pair[-1:]) for name, peer in peers.items()}


def _over(runs: Mapping[str, list[Run]], what: str, limit: float | None, how: str) -> Row:
    """Compare two workers with one; without *runs* nothing is measured."""
    one, two = runs.values() if runs else ([], [])
    return Row(
        what=f"2 workers on 2 cores over 1, {what}",
        unit="x",
        limit=limit,
        values=ratios(two, one),
        how=how,
        details=details(runs),
    )


def _shared(bench: Bench) -> str:
    if not bench.cores.shared:
        return "wrk as for the hot tag, on a core of its own; neither logs requests."
    return (
        "wrk as for the hot tag, on one core of the two, shared with the second worker; neither logs requests. What "
        "wrk takes from the second worker counts against it."
    )
