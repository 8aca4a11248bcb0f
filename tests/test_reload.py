"""A new configuration without dropping a connection."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import orjson
import pytest

from conftest import Clock, until
from images import ARM, push_pair
from proxy.app import Running, serve
from proxy.settings.keys import Settings
from proxy.settings.load import Problem, SettingsInvalid
from scripted import Origin, once, waits_for
from test_cli import listening, started

TAG = "/v2/kimoqi/alpine/manifests/1.0"


def settings(origin: Origin, folder: Path, *sources: dict[str, Any]) -> Settings:
    """Return settings that merge *sources* under kimoqi/*."""
    return Settings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "upstream": [{"name": "origin", "url": origin.url}],
            "rule": [{"match": "kimoqi/*", "sources": sources}],
            "cache": {"dir": folder},
        }
    )


async def platforms(running: Running) -> int:
    """Return how many entries the index has."""
    url = "http://{}:{}".format(*running.registry)
    async with aiohttp.ClientSession() as session, session.get(url + TAG) as response:
        return len(orjson.loads(await response.read())["manifests"])


async def test_the_next_request_goes_by_the_new_rules(
    origin: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock
) -> None:
    """After a reload the same name is made of what the new configuration says, on the same port."""
    push_pair(origin.registry)
    async with serve(settings(origin, tmp_path, *rule["sources"]), clock) as running:
        before = await platforms(running)

        await running.reload(lambda: settings(origin, tmp_path, rule["sources"][0]))

        assert (before, await platforms(running)) == (2, 1)


async def test_a_cached_blob_is_fetched_to_its_end(
    origin: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock
) -> None:
    """A transfer goes on while a client follows it that began by the old configuration; the new one has its own."""
    data = bytes(range(256)) * 10_000
    digest = origin.registry.add_blob(ARM, data)
    gate = asyncio.Event()

    async def slow(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        response = aiohttp.web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[:500_000])
        await response.write(data[500_000:1_000_000])
        await gate.wait()
        await response.write(data[1_000_000:])
        return response

    def caching() -> Settings:
        plain = settings(origin, tmp_path, *rule["sources"])
        return plain.model_copy(update={"upstream": (plain.upstream[0].model_copy(update={"blobs": "cache"}),)})

    origin.fail("GET .*/blobs/", once(slow))
    async with serve(caching(), clock) as running, aiohttp.ClientSession() as session:
        url = "http://{}:{}/v2/kimoqi/alpine/blobs/{}".format(*running.registry, digest)
        async with session.get(url) as old:
            assert await old.content.readexactly(1_000) == data[:1_000]
            await running.reload(caching)
            async with session.get(url) as new:
                assert await new.read() == data
            gate.set()
            assert await old.read() == data[1_000:]
        await until(lambda: list((tmp_path / "tmp").iterdir()) == [])

    assert (tmp_path / "blobs" / "sha256" / digest.hex).read_bytes() == data


async def test_a_bad_configuration_is_refused(
    origin: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock
) -> None:
    """The old one stays, whether the new one can't be read or can't be used."""
    push_pair(origin.registry)
    good = settings(origin, tmp_path, *rule["sources"])
    missing = {"username": "me", "password_file": tmp_path / "none"}

    def unreadable() -> Settings:
        raise SettingsInvalid([Problem("manifuse.toml", "listen", "host:port was expected")])

    def unusable() -> Settings:
        upstream = {"name": "origin", "url": origin.url, "credentials": missing}
        return Settings.model_validate({"upstream": [upstream], "cache": {"dir": tmp_path}})

    async with serve(good, clock) as running:
        await running.reload(unreadable)
        await running.reload(unusable)

        assert await platforms(running) == 2


async def test_a_download_outlives_a_reload(origin: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock) -> None:
    """What is in flight ends by the old configuration, whole."""
    data = b"0123456789" * 300_000
    digest = origin.registry.add_blob(ARM, data)
    gate = asyncio.Event()
    async with serve(settings(origin, tmp_path, *rule["sources"]), clock) as running:
        origin.fail("GET .*/blobs/", waits_for(gate))
        url = "http://{}:{}/v2/kimoqi/alpine/blobs/{}".format(*running.registry, digest)
        async with aiohttp.ClientSession() as session:
            download = asyncio.create_task(_read(session, url))
            while not any(request.method == "GET" for request in origin.requests):  # noqa: ASYNC110 - bounded by the test's time limit
                await asyncio.sleep(0.01)
            await running.reload(lambda: settings(origin, tmp_path, rule["sources"][0]))
            gate.set()

            assert await download == data


async def _read(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as response:
        return await response.read()


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "SIGHUP"])
async def test_the_process_loads_its_file_again(origin: Origin, tmp_path: Path, *, watched: bool) -> None:
    """SIGHUP, or a changed file that is watched, gives the running process its new rules; a bad file gives nothing."""
    push_pair(origin.registry)
    file = tmp_path / "manifuse.toml"
    start = (
        f'listen = "127.0.0.1:0"\nadmin_listen = "127.0.0.1:0"\nwatch = {str(watched).lower()}\n'
        f'upstream = [{{ name = "origin", url = "{origin.url}" }}]\n'
    )
    one = '[[rule]]\nmatch = "**"\nsources = [{ image = "kimoqi/alpine-x86:{tag}" }]\n'
    file.write_text(start)
    async with started("serve", "--config", file) as process:
        url = (await listening(process))["registry"] + TAG
        async with aiohttp.ClientSession() as session:
            before = len(orjson.loads(await _read(session, url))["manifests"])
            file.write_text("listen = 5")
            if not watched:
                process.send_signal(signal.SIGHUP)
            file.write_text(start + one)
            if not watched:
                process.send_signal(signal.SIGHUP)
            for _ in range(100):
                after = len(orjson.loads(await _read(session, url))["manifests"])
                if after == 1:
                    break
                await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)

        assert (before, after) == (2, 1)
        assert await process.wait() == 0
