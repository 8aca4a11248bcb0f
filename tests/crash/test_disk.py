"""Disks that are full or can't be written to, for real: the service goes on without keeping."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from conftest import Clock, StartProxy, until
from images import ARM, X86, push, push_pair
from proxy.oci.reference import Digest
from scripted import Origin

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


def files(folder: Path) -> list[Path]:
    """Return the files in *folder*."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


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
