"""Cached blobs of the real process: one transfer for all, whoever is slow, leaves, or is killed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from aiohttp import web

from conftest import until
from crash.service import Reader, files, serving, size
from proxy.oci.reference import Digest, Repository
from scripted import Fault, Origin

REPOSITORY = Repository("team/app")
MB = 1_000_000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Let the upstream, which runs in this process, say nothing of its requests."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where the services of a test keep what they keep."""
    return tmp_path / "cache"


def blob(origin: Origin, size: int) -> tuple[bytes, Digest, str]:
    """Push a blob; return its bytes, its digest and its path."""
    data = random.Random(size).randbytes(size)  # noqa: S311 # no secret
    digest = origin.registry.add_blob(REPOSITORY, data)
    return data, digest, f"/v2/{REPOSITORY}/blobs/{digest}"


def transfers(origin: Origin) -> int:
    """How often bytes of blobs were asked for."""
    return sum(asked.startswith("GET") and "/blobs/" in asked for asked in origin.asked)


def stops_at(data: bytes, size: int, gate: asyncio.Event) -> Fault:
    """Send *size* bytes of a blob, and the others when *gate* opens."""

    async def fault(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[:size])
        await gate.wait()
        await response.write(data[size:])
        return response

    return fault


@pytest.mark.parametrize("size", [20 * MB, pytest.param(200 * MB, marks=pytest.mark.slow)])
async def test_fifty_readers_of_a_cold_blob(origin: Origin, cache: Path, size: int) -> None:
    """At any mix of paces, ranges and departures: one upstream transfer, and every byte is right."""
    data, digest, path = blob(origin, size)
    dice = random.Random(size)  # noqa: S311 # no secret

    def reader() -> Reader:
        first = dice.choice([0, 0, 0, dice.randrange(size)])
        last = dice.choice([None, None, dice.randrange(first, size)])
        pause = dice.choice([0, 0, 0.001, 0.005])
        return Reader(path, data, first, last, pause, dice.choice([None, None, dice.randrange(1, size)]))

    async with serving(origin.url, cache) as service:
        await asyncio.gather(*(reader().read(service) for _ in range(49)), Reader(path, data).read(service))
        await until((cache / "blobs" / "sha256" / digest.hex).is_file)
        await asyncio.gather(*(reader().read(service) for _ in range(10)))

    assert transfers(origin) == 1
    assert [file.read_bytes() == data for file in files(cache / "blobs")] == [True]


async def test_killed_while_it_fills(origin: Origin, cache: Path) -> None:
    """Half a blob is no blob: after the kill it is cleared away, fetched anew, and right."""
    data, digest, path = blob(origin, 10 * MB)
    gate = asyncio.Event()
    origin.fail("GET .*/blobs/", stops_at(data, 5 * MB, gate))
    async with serving(origin.url, cache) as service:
        reading = asyncio.create_task(Reader(path, data).read(service))
        await until(lambda: size(cache / "tmp") > 3 * MB)
        await service.kill()
        with pytest.raises(AssertionError, match="of 10000000 bytes"):
            await reading
    gate.set()
    origin.heal()
    assert [file.stat().st_size > 3 * MB for file in files(cache / "tmp")] == [True]
    assert files(cache / "blobs") == []

    async with serving(origin.url, cache) as service:
        assert files(cache / "tmp") == []
        assert await Reader(path, data).read(service) == len(data)
        await until((cache / "blobs" / "sha256" / digest.hex).is_file)
        await service.kill()
    async with serving(origin.url, cache) as service:
        assert await Reader(path, data, 5, 10).read(service) == 6

    assert transfers(origin) == 2


async def test_two_processes_fill_the_same_blob(origin: Origin, cache: Path) -> None:
    """Processes that share a folder each have their own transfer; both are right, and one file is left."""
    data, digest, path = blob(origin, 10 * MB)
    gate = asyncio.Event()
    origin.fail("GET .*/blobs/", stops_at(data, 5 * MB, gate))
    async with serving(origin.url, cache) as one, serving(origin.url, cache) as other:
        reading = [asyncio.create_task(Reader(path, data).read(each)) for each in (one, other) * 5]
        await until(lambda: transfers(origin) == 2)
        gate.set()
        assert await asyncio.gather(*reading) == [len(data)] * 10
        await until(lambda: files(cache / "tmp") == [])
        for each in (one, other):
            assert await Reader(path, data, 7).read(each) == len(data) - 7

    assert transfers(origin) == 2
    assert [file.name for file in files(cache / "blobs")] == [digest.hex]
