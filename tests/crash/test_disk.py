"""Disks that are full or can't be written to, for real: the service goes on without keeping."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from conftest import Clock, StartProxy, until
from crash.service import files, size
from images import ARM, X86, push, push_pair
from patience import HANGING
from proxy.app import serve
from proxy.oci.reference import Digest
from proxy.store import upkeep
from scripted import Fault, Origin, once
from test_reload import settings

TAG = "/v2/kimoqi/alpine/manifests/1.0"


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount something on *folder* while the block runs; skip where that isn't allowed."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"can't mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where the proxies of a test keep what they keep."""
    return tmp_path / "cache"


def held_back(data: bytes, size: int, gate: asyncio.Event) -> Fault:
    """Send *size* bytes of a blob without saying how many there are, and the others when *gate* opens."""

    async def fault(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, size, 100_000):
            await response.write(data[start : min(size, start + 100_000)])
        await gate.wait()
        await response.write(data[size:])
        return response

    return fault


def warnings(logs: list[Any]) -> list[str]:
    """Return what the store warned of."""
    return [log["event"] for log in logs if log["log_level"] != "info" and log["event"].startswith("cache folder")]


async def test_a_full_disk_costs_no_answer(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """When the disk runs full amid of pulls, they go on, by tag and by digest; one warning says so."""
    with mounted(cache, "-t", "tmpfs", "-o", "size=256k", "tmpfs"), capture_logs() as logs:
        proxy = await start(origin, rule=[rule])
        for n in range(100):
            x86 = push(origin.registry, X86, platform="linux/amd64", text=f"x86 {n}")
            arm = push(origin.registry, ARM, platform="linux/arm64", text=f"arm {n}")
            clock.advance(61)
            answer = await proxy.get(TAG)
            assert [each["digest"] for each in orjson.loads(answer.body)["manifests"]] == [x86.digest, arm.digest]
            told = answer.headers["Docker-Content-Digest"]
            assert Digest.of((await proxy.get(f"/v2/kimoqi/alpine/manifests/{told}")).body) == told
        await until(lambda: files(cache / "tmp") == [])
        assert os.statvfs(cache).f_bavail == 0

    assert warnings(logs) == ["cache folder unusable, going on without"]


async def test_a_folder_that_became_read_only_costs_no_answer(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """What was kept is served over a restart, new images are served without keeping them; one warning says so."""
    push_pair(origin.registry)
    before = await (await start(origin, rule=[rule])).get(TAG)
    await until(lambda: len(files(cache / "tags")) == 1 and files(cache / "tmp") == [])
    with mounted(cache, "--bind", "-o", "ro", str(cache)), capture_logs() as logs:
        proxy = await start(origin, rule=[rule])
        assert (await proxy.get(TAG)).body == before.body
        for n in range(20):
            push(origin.registry, X86, platform="linux/amd64", text=f"x86 {n}")
            clock.advance(61)
            told = (await proxy.get(TAG)).headers["Docker-Content-Digest"]
            assert told != before.headers["Docker-Content-Digest"]
            assert (await proxy.get(f"/v2/kimoqi/alpine/manifests/{told}")).status == 200
        old = before.headers["Docker-Content-Digest"]
        assert (await proxy.get(f"/v2/kimoqi/alpine/manifests/{old}")).body == before.body

    assert warnings(logs) == ["cache folder unusable, going on without"]


async def test_a_folder_that_never_was_writable_costs_no_answer(
    origin: Origin, start: StartProxy, rule: dict[str, Any], cache: Path
) -> None:
    """Where nothing can ever be kept, memory has to do; one warning says so."""
    push_pair(origin.registry)
    with mounted(cache, "-t", "tmpfs", "-o", "ro", "tmpfs"), capture_logs() as logs:
        proxy = await start(origin, rule=[rule])
        told = (await proxy.get(TAG)).headers["Docker-Content-Digest"]
        assert (await proxy.get(f"/v2/kimoqi/alpine/manifests/{told}")).status == 200

    assert len(warnings(logs)) == 1


BIG = bytes(range(256)) * 40_000  # 10 MB


async def test_a_disk_that_runs_full_costs_no_blob(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """Clients amid a blob that the disk doesn't take get all of it; one warning says so, and later it is kept."""
    digest = origin.registry.add_blob(ARM, BIG)
    path = f"/v2/kimoqi/alpine/blobs/{digest}"
    gate = asyncio.Event()
    with mounted(cache, "-t", "tmpfs", "-o", "size=16m", "tmpfs"), capture_logs() as logs:
        proxy = await start(origin, rule=[rule], upstream={"blobs": "cache"})
        origin.fail("GET .*/blobs/", once(held_back(BIG, 5_000_000, gate)))
        headers = [{}, {}, {"Range": "bytes=9000000-"}, {"Range": "bytes=-1"}]
        reading = [asyncio.create_task(proxy.get(path, **each)) for each in headers]
        await until(lambda: size(cache / "tmp") > 3_000_000)
        (cache / "somebody else's").write_bytes(bytes(10_000_000))
        gate.set()
        answers = await asyncio.gather(*reading)
        assert [answer.body for answer in answers] == [BIG, BIG, BIG[9_000_000:], BIG[-1:]]
        assert (await proxy.get(path)).body == BIG
        assert files(cache / "blobs") == files(cache / "tmp") == []
        (cache / "somebody else's").unlink()
        clock.advance(31)
        assert (await proxy.get(path)).body == BIG
        await until((cache / "blobs" / "sha256" / digest.hex).is_file)

    assert [log["event"] for log in logs if log["log_level"] != "info"] == ["blob cache unusable, streaming"]


async def test_a_disk_that_is_too_small_makes_what_room_it_can(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """Where the disk is smaller than `blobs_max`, what was not used for longest leaves for what comes."""
    blobs = [bytes([n]) * 3_000_000 for n in range(6)]
    with mounted(cache, "-t", "tmpfs", "-o", "size=8m", "tmpfs"), capture_logs() as logs:
        proxy = await start(origin, rule=[rule], upstream={"blobs": "cache"})
        for blob in blobs:
            digest = origin.registry.add_blob(ARM, blob)
            assert (await proxy.get(f"/v2/kimoqi/alpine/blobs/{digest}")).body == blob
            await until((cache / "blobs" / "sha256" / digest.hex).is_file)
            clock.advance(61)
        assert len(files(cache / "blobs")) == 2
        too_large = origin.registry.add_blob(ARM, BIG)
        assert (await proxy.get(f"/v2/kimoqi/alpine/blobs/{too_large}")).body == BIG
        assert len(files(cache / "blobs")) == 2

    assert [log["event"] for log in logs if log["log_level"] != "info"] == ["blob cache unusable, streaming"]


async def test_blobs_of_a_folder_that_became_read_only(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, cache: Path
) -> None:
    """What is kept is served, with its use not noted; what isn't is streamed."""
    kept, new = (origin.registry.add_blob(ARM, blob) for blob in (BIG, BIG[1:]))
    first = await start(origin, rule=[rule], upstream={"blobs": "cache"})
    await first.get(f"/v2/kimoqi/alpine/blobs/{kept}")
    await until((cache / "blobs" / "sha256" / kept.hex).is_file)
    with mounted(cache, "--bind", "-o", "ro", str(cache)):
        proxy = await start(origin, rule=[rule], upstream={"blobs": "cache"})
        clock.advance(3600)
        origin.requests.clear()
        assert (await proxy.get(f"/v2/kimoqi/alpine/blobs/{kept}")).body == BIG
        assert not [asked for asked in origin.asked if asked.startswith("GET")]
        assert (await proxy.get(f"/v2/kimoqi/alpine/blobs/{new}", Range="bytes=5-9")).body == BIG[6:11]


async def test_a_disk_that_hangs_stops_no_stop(
    origin: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits to be written behind the answers is given up when its time is over, and told."""
    push_pair(origin.registry)
    monkeypatch.setattr(upkeep, "_LAST", 0.01)
    answered, stopped = threading.Event(), threading.Event()
    fsync = os.fsync

    def hanging(descriptor: int) -> None:
        if answered.is_set():
            stopped.wait(HANGING)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", hanging)
    loaded = settings(origin, tmp_path / "cache", *rule["sources"]).model_copy(update={"drain": 0.01})
    with capture_logs() as logs:
        async with serve(loaded, clock) as running:
            async with aiohttp.ClientSession() as session:
                await session.get("http://{}:{}{}".format(*running.registry, TAG))
            answered.set()
        stopped.set()

    assert [log["event"] for log in logs if log["log_level"] == "warning"] == [
        "cache folder too slow, not everything is kept"
    ]
    await until(lambda: files(tmp_path / "cache" / "tmp") == [])
