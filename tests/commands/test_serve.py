"""How `manifuse serve` begins and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from commands.calls import listening, manifuse, started
from images import VIRTUAL, push, push_pair
from patience import HANGING
from ports import free_port
from scripted import Origin


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_service_well(number: signal.Signals, origin: Origin, merging: Path) -> None:
    """A service that was told to stop leaves with exit status 0, having said so."""
    push_pair(origin.registry)
    async with started("serve", "--config", merging) as process, aiohttp.ClientSession() as session:
        where = await listening(process)
        async with session.get(f"{where['registry']}/v2/{VIRTUAL}/manifests/1.0") as response:
            served = response.status
        async with session.get(f"{where['admin']}/readyz") as response:
            ready = response.status
        process.send_signal(number)
        async with asyncio.timeout(HANGING):
            out, err = await process.communicate()

    assert (served, ready) == (200, 200)
    assert (process.returncode, out) == (0, b"")
    assert [json.loads(line)["event"] for line in err.splitlines()][-2:] == ["stopping", "stopped"]


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.05, 0.1])
async def test_a_second_signal_changes_nothing(pause: float, merging: Path) -> None:
    """Whoever asks twice, while the process is already leaving, gets the same clean exit."""
    async with started("serve", "--config", merging) as process:
        await listening(process)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(pause)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)  # send_signal() may take the exit status from asyncio (gh-87744)
        async with asyncio.timeout(HANGING):
            await process.communicate()

    assert process.returncode == 0


async def test_flags_win_over_the_file(origin: Origin, config: Path) -> None:
    """`--upstream`, `--listen` and `--admin-listen` replace what the file says."""
    push(origin.registry, "kimoqi/alpine")
    ports = [free_port(), free_port()]
    flags = ["--listen", f"127.0.0.1:{ports[0]}", "--admin-listen", f"127.0.0.1:{ports[1]}", "--upstream", origin.url]
    async with started("serve", "--config", config, *flags) as process, aiohttp.ClientSession() as session:
        where = await listening(process)
        async with session.get(f"{where['registry']}/v2/{VIRTUAL}/manifests/1.0") as response:
            served = response.status

    assert (where["registry"], where["admin"]) == tuple(f"http://127.0.0.1:{port}" for port in ports)
    assert served == 200


@pytest.mark.parametrize("key", ["--listen", "--admin-listen"])
async def test_a_taken_port_is_one_sentence(key: str, config: Path) -> None:
    """An address that somebody else has: exit status 1, and a sentence that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = await manifuse("serve", "--config", config, key, address)

    assert (done.status, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("manifuse: ")
    assert address in done.err


async def test_a_host_that_is_none_is_one_sentence(config: Path) -> None:
    """A host name that doesn't exist can't be listened on: exit status 1."""
    done = await manifuse("serve", "--config", config, "--listen", "nowhere.invalid:5080")

    assert (done.status, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert "nowhere.invalid:5080" in done.err
