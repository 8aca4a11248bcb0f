"""The drivers, in front of a registry in memory, and one contest from end to end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from e2e.peers import command
from loadtest import sockets
from loadtest.drive import Puller, links
from loadtest.heads import Client, containerd, docker, podman
from loadtest.images import READY, fill, placed, release
from loadtest.wrk import Failed
from patience import HANGING
from proxy.app import serve_registry
from proxy.memory import MemoryRegistry

ROOT = Path(__file__).parents[2]
RELEASE = release("0", 3, 1000)


@asynccontextmanager
async def registry() -> AsyncIterator[str]:
    """Serve a release. Yields the address."""
    memory = MemoryRegistry()
    fill(memory, RELEASE)
    async with serve_registry(memory, ("127.0.0.1", 0)) as (host, port):
        yield f"{host}:{port}"


@pytest.mark.parametrize(("client", "requests"), [(docker, 8), (containerd, 7), (podman, 7)])
async def test_clients_pull_all_of_an_image(client: Callable[[], Client], requests: int) -> None:
    """Clients pull all of an image."""
    async with registry() as address, links(address) as opened:
        assert await Puller(client(), opened, "arm64").pull(READY, "0") == requests


async def test_a_pull_of_what_is_not_there_fails() -> None:
    """A pull of what is not there fails."""
    async with registry() as address, links(address) as opened:
        with pytest.raises(Failed, match="404"):
            await Puller(podman(), opened).pull(READY, "other")


async def test_an_architecture_that_is_not_there_fails() -> None:
    """An architecture that is not there fails."""
    async with registry() as address, links(address) as opened:
        with pytest.raises(Failed, match="riscv64"):
            await Puller(podman(), opened, "riscv64").pull(READY, "0")


async def test_heads_are_repeated() -> None:
    """Heads are repeated."""
    async with registry() as address:
        head = containerd().resolve.to(address, f"/v2/{READY}/manifests/0")
        rate = await asyncio.to_thread(lambda: sockets.repeat(address, head, seconds=1, connections=3))

        assert rate > 0


async def test_answers_that_are_errors_are_no_load() -> None:
    """Answers that are errors are no load."""
    async with registry() as address:
        head = containerd().resolve.to(address, f"/v2/{READY}/manifests/other")
        with pytest.raises(Failed):
            await asyncio.to_thread(
                lambda: sockets.repeat(address, head, seconds=HANGING, connections=1)
            )  # the first one ends it


async def test_blobs_are_fetched_and_sipped() -> None:
    """Blobs are fetched and sipped."""
    repository, image = next(placed(RELEASE))
    digest = image.manifest.body.decode().split('"digest":"')[-1].split('"')[0]

    def sip(address: str) -> int:
        head = containerd().blob.to(address, f"/v2/{repository}/blobs/{digest}")
        assert sockets.fetch(address, [head, head]) == 2000
        with sockets.slow_readers(address, head, 4, 1000) as sips:
            return sum(sips)

    async with registry() as address:
        assert await asyncio.to_thread(sip, address) == 4000


@pytest.mark.e2e
def test_a_contest_from_end_to_end() -> None:
    """A contest from end to end."""
    for peer in ("nginx", "wrk", "taskset"):
        command(peer)
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a load test needs two cores")
    line = [sys.executable, "-m", "loadtest.run", "--plan", "tiny", "--only", "logged"]
    environment = {**os.environ, "PYTHONPATH": "tests"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "| hot tag GET with metrics, access log and authentication" in done.stdout
