"""What the first pull of a tag costs: the same requests sent straight to the registry, and one through manifuse.

Registry and manifuse run in processes of their own, this one is the client of both. Each tag is asked for once each
way, straight first and through manifuse next, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
import orjson
import uvloop

from proxy import demo
from proxy.oci import mediatype

HERE = Path(__file__).parent
CONFIG = """
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
drain = "1s"

[[upstream]]
name = "origin"
url = "{origin}"

[[rule]]
match = "{virtual}"
sources = [
  {{ image = "{{repository}}-x86:{{tag}}", platform = "linux/amd64" }},
  {{ image = "{{repository}}-arm:{{tag}}", platform = "linux/arm64" }},
]

[cache]
dir = "{cache}"
"""
SOURCES = [str(repository) for repository, _ in demo.machines()]
NOWHERE = Path("/dev/null/cache")  # no folder can be made there: manifuse keeps to its memory
HEADERS = {"Accept": ", ".join(sorted(mediatype.INDEXES | mediatype.MANIFESTS))}


@dataclass(frozen=True, slots=True)
class Service:
    """Where manifuse runs."""

    registry: str
    admin: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Medians of one repetition, milliseconds a merge; *cpu* is that of the manifuse process."""

    straight: float
    through: float
    own: float
    cpu: float
    requests: float


@contextmanager
def origin(tags: int, delay: float) -> Iterator[str]:
    """Run the registry. Yields its URL."""
    command = [sys.executable, str(HERE / "origin.py"), str(tags), str(delay)]
    with _running(subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True)) as process:
        yield process.stdout.readline().strip() if process.stdout else ""


@contextmanager
def manifuse(url: str, folder: Path, cache: Path) -> Iterator[Service]:
    """Run the proxy with an empty cache, as operators do: logging every request, here to a file."""
    config, log = folder / "manifuse.toml", folder / "log"
    config.write_text(CONFIG.format(origin=url, virtual=demo.VIRTUAL, cache=cache))
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(config)]
    with (
        log.open("wb") as stderr,
        _running(subprocess.Popen(command, cwd=HERE.parent, stderr=stderr, text=True)) as process,
    ):
        for _ in range(200):
            for line in log.read_bytes().splitlines(keepends=True):
                if b'"listening"' in line and line.endswith(b"\n"):
                    where = orjson.loads(line)
                    yield Service(where["registry"], where["admin"], process.pid)
                    return
            time.sleep(0.05)
        raise SystemExit(f"manifuse doesn't listen:\n{log.read_text()}")


@contextmanager
def _running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


async def straight(session: aiohttp.ClientSession, url: str, tag: str) -> None:
    """Send what manifuse sends for a cold tag, in the same two rounds."""

    async def manifest(method: str, repository: str) -> bytes:
        async with session.request(method, f"{url}/v2/{repository}/manifests/{tag}", headers=HEADERS) as response:
            return await response.read()

    async def config(repository: str, body: bytes) -> None:
        digest = orjson.loads(body)["config"]["digest"]
        async with session.get(f"{url}/v2/{repository}/blobs/{digest}") as response:
            await response.read()

    first, second, _ = await asyncio.gather(
        *(manifest("GET", repository) for repository in SOURCES), manifest("HEAD", str(demo.VIRTUAL))
    )
    await asyncio.gather(*(config(*each) for each in zip(SOURCES, (first, second), strict=True)))


async def through(session: aiohttp.ClientSession, service: Service, tag: str) -> None:
    """Ask manifuse for the merged tag."""
    url = f"{service.registry}/v2/{demo.VIRTUAL}/manifests/{tag}"
    async with session.get(url, headers=HEADERS) as response:
        body = await response.read()
        if response.status != 200 or len(orjson.loads(body)["manifests"]) != len(SOURCES):
            raise SystemExit(f"{tag} is not merged: {response.status} {body.decode()}")


async def repetition(
    session: aiohttp.ClientSession, url: str, service: Service, tags: list[str], pause: float
) -> Measured:
    """Measure *tags*, each both ways, with *pause* seconds before each."""
    before, cpu = await _upstream_requests(session, service), _cpu_seconds(service.pid)
    directly, merged = [], []
    for tag in tags:
        await asyncio.sleep(pause)
        began = time.perf_counter()
        await straight(session, url, tag)
        between = time.perf_counter()
        await through(session, service, tag)
        directly.append(between - began)
        merged.append(time.perf_counter() - between)
    cpu = _cpu_seconds(service.pid) - cpu
    asked = await _upstream_requests(session, service) - before
    return Measured(
        straight=1000 * median(directly),
        through=1000 * median(merged),
        own=1000 * median(there - here for there, here in zip(merged, directly, strict=True)),
        cpu=1000 * cpu / len(tags),
        requests=asked / len(tags),
    )


async def measure(url: str, service: Service, tags: int, repeats: int, warm: int, pause: float) -> list[Measured]:
    """Measure *repeats* times *tags* tags, after *warm* others for connections and caches of code."""
    numbers = map(str, itertools.count())
    async with aiohttp.ClientSession() as session:
        await repetition(session, url, service, list(itertools.islice(numbers, warm)), 0)
        return [
            await repetition(session, url, service, list(itertools.islice(numbers, tags)), pause)
            for _ in range(repeats)
        ]


async def _upstream_requests(session: aiohttp.ClientSession, service: Service) -> float:
    async with session.get(f"{service.admin}/metrics") as response:
        text = await response.text()
    return sum(
        float(count) for count in re.findall(r"^manifuse_upstream_requests_total\{.*\} (\S+)$", text, re.MULTILINE)
    )


def _cpu_seconds(pid: int) -> float:
    """Return user and system time of a process; proc(5) has them behind the name in parentheses."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def row(delay: float, found: list[Measured]) -> str:
    """Write a line of the table: medians over the repetitions, the range of our own time behind it."""
    own = [each.own for each in found]
    here, there = median(each.straight for each in found), median(each.through for each in found)
    return (
        f"| {1000 * delay:.0f} ms | {here:.2f} | {there:.2f} | {there / here:.2f} | "
        f"{median(own):.2f} ({min(own):.2f} to {max(own):.2f}) | {median(each.cpu for each in found):.2f} | "
        f"{median(each.requests for each in found):.1f} |"
    )


def main() -> None:
    """Measure for each delay and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, default=200, help="tags a repetition")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm", type=int, default=50, help="tags beforehand, not counted")
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 0.02], help="seconds before each answer")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each tag; without, back to back")
    parser.add_argument("--memory-only", action="store_true", help="let manifuse keep nothing on disk")
    chosen = parser.parse_args()
    print(
        "| registry's delay | straight, ms | through manifuse, ms | ratio | our own time, ms | our CPU, ms | requests |"
    )
    print("|---|---|---|---|---|---|---|")
    for delay in chosen.delays:
        tags = chosen.warm + chosen.repeats * chosen.tags
        with (
            tempfile.TemporaryDirectory(prefix="manifuse-cold-") as folder,
            origin(tags, delay) as url,
            manifuse(url, Path(folder), NOWHERE if chosen.memory_only else Path(folder) / "cache") as service,
        ):
            found = uvloop.run(measure(url, service, chosen.tags, chosen.repeats, chosen.warm, chosen.pause))
        print(row(delay, found), flush=True)


if __name__ == "__main__":
    main()
