"""Run the contests and write what they found.

PYTHONPATH=tests python -m loadtest.run [--plan full|quick|tiny] [--only CONTEST ...] [--write RESULTS|SOAK]
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from e2e.peers import NotReady
from loadtest import report
from loadtest.bench import FULL, QUICK, TINY, Bench
from loadtest.contests import blobs, cold, hot, scale, soak, storm, workers
from loadtest.machine import describe, roomy, share_out
from loadtest.peers import Missing, Yard
from loadtest.report import Row
from loadtest.wrk import Failed

HERE = Path(__file__).parent
PLANS = {"full": FULL, "quick": QUICK, "tiny": TINY}
CONTESTS: Mapping[str, Callable[[Bench], list[Row]]] = {
    "tag-get": hot.tag_get,
    "tag-head": hot.tag_head,
    "digest-get": hot.digest_get,
    "docker-alive": hot.docker_alive,
    "docker-closing": hot.docker_closing,
    "logged": hot.logged,
    "workers": workers.workers,
    "cold": cold.merge,
    "herd": cold.herd,
    "cached-blob": blobs.cached,
    "streamed-blob": blobs.streamed,
    "slow-readers": blobs.slow,
    "memory": scale.memory,
    "hot-cost": scale.hot_cost,
    "storm": storm.storm,
    "soak": soak.soak,
}
COMMANDS = {"RESULTS": "loadtest", "SOAK": "soak"}  # targets of make, by the report that they write
FAILED = "it failed"
TROUBLE = (Failed, NotReady, OSError, subprocess.SubprocessError, ExceptionGroup)  # ends a contest, not the others
RATIOS = ("tag-get", "tag-head", "digest-get", "docker-alive", "docker-closing", "logged")  # in about a minute


@contextmanager
def bench(plan: str) -> Iterator[Bench]:
    """Make room for contestants, and keep to the load's cores ourselves."""
    cores = share_out(sorted(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, cores.load)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a thousand clients are more than the usual limit
    with tempfile.TemporaryDirectory(prefix="manifuse-load-", dir=roomy()) as folder:
        yield Bench(Yard(Path(folder), cores), PLANS[plan])


def contest(name: str, place: Bench) -> list[Row]:
    """Run one contest. What it misses becomes a row that says so."""
    began = time.monotonic()
    print(f"{name} …", flush=True)
    try:
        rows = CONTESTS[name](place)
    except Missing as missing:
        rows = [Row(what=name, unit="", how="", missing=str(missing))]
    except TROUBLE as trouble:
        rows = [Row(what=name, unit="", how="", missing=f"{FAILED}: {trouble!r}")]
    for row in rows:
        measured = f"{report.number(row.measured)} {row.unit}" if row.values else f"not measured: {row.missing}"
        print(f"  {row.what}: {measured} ({row.target})", flush=True)
        for line in row.details:
            print(f"    {line}", flush=True)
    print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return rows


def main() -> None:
    """Run what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=list(PLANS), default="full", help="how much is measured")
    parser.add_argument("--only", choices=list(CONTESTS), nargs="+", help="not all contests, but these")
    parser.add_argument("--write", choices=list(COMMANDS), help="write a report with this name, and its chart")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # contestants are stopped on the way out
    with bench(chosen.plan) as place:
        machine = describe(place.cores, place.yard.folder)
        rows = [row for name in _names(chosen.plan, chosen.only) for row in contest(name, place)]
    print("\n".join(["", *report.table(rows)]))
    failed = [row for row in rows if row.missing.startswith(FAILED)]
    if chosen.write == "SOAK" or (chosen.write and not chosen.only):  # a part is no reason to forget the others
        text = report.markdown(rows, machine, f"make {COMMANDS[chosen.write]}", f"{chosen.write}.svg")
        (HERE / f"{chosen.write}.md").write_text(text)
        (HERE / f"{chosen.write}.svg").write_text(report.svg(rows))
    sys.exit(bool(failed))


def _names(plan: str, only: Sequence[str] | None) -> Sequence[str]:
    if only:
        return only
    return RATIOS if plan == "quick" else [name for name in CONTESTS if name != "soak"]


if __name__ == "__main__":
    main()
