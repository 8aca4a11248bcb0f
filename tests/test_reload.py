"""A new configuration without dropping a connection."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import orjson
import pytest
import structlog
from pydantic import SecretStr

from commands.calls import listening, started
from conftest import Clock, settled, until
from images import ARM, push_pair
from patience import HANGING
from private import Private, basic
from proxy.app import Running, serve
from proxy.oci.access import read_basic
from proxy.oci.reference import Digest
from proxy.serving import reload_when
from proxy.settings.keys import RuleSettings, Settings, TlsSettings, UpstreamSettings
from proxy.settings.load import Problem, SettingsInvalid
from scripted import Origin, hang, once, status, waits_for

TAG = "/v2/kimoqi/alpine/manifests/1.0"


def settings(origin: Origin, folder: Path, *sources: dict[str, Any], **upstream: Any) -> Settings:
    """Return settings that merge *sources* under kimoqi/*."""
    return Settings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "upstream": [{"name": "origin", "url": origin.url, **upstream}],
            "rule": [{"match": "kimoqi/*", "sources": sources}],
            "cache": {"dir": folder},
            "access": {"mode": "upstream" if "credentials" in upstream else "open"},
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


async def test_a_rule_in_front_of_another_costs_nobody_the_last_good_answer(
    origin: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock
) -> None:
    """What a name is made of is what it was, and the registry is down (law 4)."""
    push_pair(origin.registry)
    before = settings(origin, tmp_path, *rule["sources"])
    first = RuleSettings.model_validate({"match": "other/*", "conventions": []})
    async with serve(before, clock) as running:
        assert await platforms(running) == 2
        await settled(tmp_path)
        origin.fail("", status(503))
        clock.advance(3600)
        await running.reload(lambda: before.model_copy(update={"rule": (first, *before.rule)}))

        assert await platforms(running) == 2


@pytest.mark.parametrize("behind", [True, False])
async def test_another_name_for_a_registry_costs_nobody_an_index(
    origin: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock, behind: bool
) -> None:
    """What was advertised stays pullable under the name that it was advertised by, which is the default (law 3)."""
    push_pair(origin.registry)
    before = settings(origin, tmp_path, *rule["sources"])
    default = before.upstream[0].model_copy(update={"default": True})
    guest = UpstreamSettings.model_validate({"name": "guest", "url": origin.url})
    both = before.model_copy(update={"upstream": (default, guest) if behind else (guest, default)})
    async with serve(before, clock) as running, aiohttp.ClientSession() as session:
        url = "http://{}:{}{}".format(*running.registry, TAG)
        async with session.get(url) as response:
            pinned = url.replace("1.0", Digest.of(await response.read()))
        await settled(tmp_path)

        async def found(loaded: Settings, asked: str = "") -> int:
            await running.reload(lambda: loaded)
            async with session.get(pinned + asked) as response:
                return response.status

        assert [await found(both), await found(both, "?ns=guest"), await found(before)] == [200, 404, 200]


async def test_the_admin_port_goes_by_the_new_token(origin: Origin, tmp_path: Path, clock: Clock) -> None:
    """And a certificate that can't be used is a reason to refuse the new configuration."""

    def tell(token: str, **more: Any) -> Settings:
        return settings(origin, tmp_path).model_copy(update={"admin_token": SecretStr(token), **more})

    async def status(token: str) -> int:
        url = "http://{}:{}/metrics".format(*running.admin)
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
            return response.status

    async with serve(tell("one"), clock) as running:
        assert [await status("one"), await status("two")] == [200, 401]
        await running.reload(lambda: tell("two"))
        assert [await status("one"), await status("two")] == [401, 200]
        absent = TlsSettings(certificate=tmp_path / "absent", key=tmp_path / "absent")
        await running.reload(lambda: tell("three", tls=absent))
        assert [await status("two"), await status("three")] == [200, 401]


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


async def test_a_bug_while_loading_costs_that_configuration_alone(
    origin: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock
) -> None:
    """What nobody thought of is told with its trace, the old configuration stays, and the next one is taken."""
    push_pair(origin.registry)
    reload = asyncio.Event()
    wanted: list[Exception | Settings] = [RuntimeError("a bug"), settings(origin, tmp_path, rule["sources"][0])]

    def load() -> Settings:
        next_one = wanted.pop(0)
        if isinstance(next_one, Exception):
            raise next_one
        return next_one

    async with serve(settings(origin, tmp_path, *rule["sources"]), clock) as running:
        with structlog.testing.capture_logs() as logs:
            reloading = asyncio.create_task(reload_when(running, load, reload, None))
            reload.set()
            await until(lambda: len(wanted) == 1 and bool(logs))
            between = await platforms(running)
            reload.set()
            await until(lambda: logs[-1]["event"] == "configuration loaded")
            after = await platforms(running)
            reloading.cancel()

    assert (between, after) == (2, 1)
    assert [log["event"] for log in logs if log.get("exc_info")] == ["configuration can't be loaded, the old one stays"]


@pytest.mark.parametrize(
    ("key", "value"), [("workers", 3), ("listen", ("127.0.0.1", 1)), ("drain", 1.0), ("hot", False)]
)
async def test_a_key_that_is_read_once_is_named(
    origin: Origin, tmp_path: Path, clock: Clock, key: str, value: object
) -> None:
    """Whoever changes it learns that it needs a restart, and everything else of the new configuration counts."""
    plain = settings(origin, tmp_path)
    async with serve(plain, clock) as running:
        with structlog.testing.capture_logs() as logs:
            await running.reload(lambda: plain.model_copy(update={key: value}))

    assert [log["key"] for log in logs if log["event"] == "this key needs a restart"] == [key]
    assert logs[-1]["event"] == "configuration loaded"


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
            await until(lambda: any(request.method == "GET" for request in origin.requests))
            await running.reload(lambda: settings(origin, tmp_path, rule["sources"][0]))
            gate.set()

            assert await download == data


async def test_an_upstream_that_has_moved_is_shown_as_it_is_there(
    origin: Origin, other: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock
) -> None:
    """Requests that are in flight to where it was say nothing of it: an alarm would never end."""
    origin.fail("", hang())
    dead = settings(origin, tmp_path, *rule["sources"], timeouts={"header": "300ms"}, breaker=1)
    async with serve(dead, clock) as running, aiohttp.ClientSession() as session:
        late = asyncio.create_task(_read(session, "http://{}:{}".format(*running.registry) + TAG))
        await until(lambda: bool(origin.requests))
        await running.reload(lambda: settings(other, tmp_path, *rule["sources"]))
        answer = await late

        assert b"UNAVAILABLE" in answer
        assert await open_breakers(running) == {"origin": False}


async def test_an_upstream_that_was_removed_is_not_shown_as_left_alone(
    origin: Origin, other: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock
) -> None:
    """Nobody asks it any more, so nobody will find it well again."""
    origin.fail("", status(503))
    dead = settings(origin, tmp_path, *rule["sources"], breaker=1, retries=0)
    async with serve(dead, clock) as running, aiohttp.ClientSession() as session:
        await _read(session, "http://{}:{}".format(*running.registry) + TAG)
        before = await open_breakers(running)
        await running.reload(lambda: settings(other, tmp_path, *rule["sources"], name="other"))

        assert before == {"origin": True}
        assert await open_breakers(running) == {"origin": False, "other": False}


async def open_breakers(running: Running) -> dict[str, bool]:
    """Return which upstreams are said to be left alone."""
    async with aiohttp.ClientSession() as session:
        metrics = (await _read(session, "http://{}:{}/metrics".format(*running.admin))).decode()
    found = re.findall(r'^manifuse_upstream_breaker_open\{upstream="(.*)"\} (\S+)$', metrics, re.MULTILINE)
    return {name: float(value) > 0 for name, value in found}


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

            async def is_new() -> bool:
                return len(orjson.loads(await _read(session, url))["manifests"]) == 1

            await until(is_new)
        process.send_signal(signal.SIGTERM)

        assert before == 2
        assert await process.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_signal_counts_from_the_first_moment_on(origin: Origin, tmp_path: Path, workers: int) -> None:
    """SIGHUP before anything listens to it ends nothing: it waits, and then the configuration is loaded anew."""
    file = tmp_path / "manifuse.toml"
    text = (
        f'listen = "127.0.0.1:0"\nadmin_listen = "127.0.0.1:0"\nworkers = {workers}\n'
        f'upstream = [{{ name = "origin", url = "{origin.url}" }}]\ncache.dir = "{tmp_path / "cache"}"\n'
    )
    os.mkfifo(file)
    async with started("serve", "--config", file) as process:
        pipe = await asyncio.to_thread(os.open, file, os.O_WRONLY)  # and there is somebody now who reads it
        process.send_signal(signal.SIGHUP)
        file.unlink()
        file.write_text(text)
        os.write(pipe, text.encode())
        os.close(pipe)
        events: list[str] = []
        # Workers that start after the signal have the new file anyhow.
        while events.count("listening") < workers or (workers == 1 and "configuration loaded" not in events):
            events.append(await event(process))
        process.send_signal(signal.SIGTERM)

        assert set(events) <= {"supervising", "listening", "configuration loaded"}
        assert await process.wait() == 0


async def event(process: asyncio.subprocess.Process) -> str:
    """Return the next event of the log."""
    assert process.stderr is not None
    line = await asyncio.wait_for(process.stderr.readline(), HANGING)
    return str(orjson.loads(line)["event"])


async def test_who_came_in_late_gets_nothing_again(
    origin: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock
) -> None:
    """A caller whose login is looked at during a reload is answered by the old rules once, and then by the new ones."""
    push_pair(origin.registry)
    Private({"alice": ("",), "bob": ("",)}).guard(origin)

    def private(*sources: dict[str, Any]) -> Settings:
        return settings(origin, tmp_path, *sources, credentials="client")

    gates = {"bob": asyncio.Event(), "alice": asyncio.Event()}

    async def wait(request: aiohttp.web.BaseRequest) -> None:
        login = read_basic(request.headers.get("Authorization", ""))
        await gates[login.username].wait() if login else None

    origin.fail("GET /v2/$", wait)
    async with serve(private(*rule["sources"]), clock) as running, aiohttp.ClientSession() as session:
        url = "http://{}:{}".format(*running.registry)

        async def entries(who: str) -> int:
            async with session.get(url + TAG, headers={"Authorization": basic(who)}) as response:
                return len(orjson.loads(await response.read())["manifests"])

        late, longest = asyncio.create_task(entries("alice")), asyncio.create_task(entries("bob"))
        await until(lambda: len([each for each in origin.requests if each.headers.get("Authorization")]) == 2)
        await running.reload(lambda: private(rule["sources"][0]))
        gates["alice"].set()
        assert (await late, await entries("alice")) == (2, 1)
        gates["bob"].set()
        await longest


@pytest.mark.parametrize("blobs", ["stream", "cache"])
async def test_what_clients_had_is_not_everybodys_when_nobody_is_asked_any_more(
    origin: Origin, rule: dict[str, Any], tmp_path: Path, clock: Clock, blobs: str
) -> None:
    """What was found with a client's own credentials is theirs: whoever knows its digest gets what ours may read.

    It is there again for those who may read it when they are asked again, and an index of ours with it (law 3).
    """
    push_pair(origin.registry)
    Private({"alice": ("",)}).guard(origin)
    personal = settings(origin, tmp_path, *rule["sources"], credentials="client", blobs=blobs)
    async with serve(personal, clock) as running, aiohttp.ClientSession() as session:
        url = "http://{}:{}".format(*running.registry)

        async def get(path: str, who: str | None = None) -> tuple[int, bytes]:
            headers = {"Authorization": who} if who else {}
            async with session.get(url + path, headers=headers) as response:
                return response.status, await response.read()

        alice, name = basic("alice"), TAG.removesuffix("manifests/1.0")
        _, index = await get(TAG, alice)
        paths = [f"{name}manifests/{Digest.of(index)}"]
        for child in orjson.loads(index)["manifests"]:
            paths.append(f"{name}manifests/{child['digest']}")
            manifest = orjson.loads((await get(paths[-1], alice))[1])
            paths += [f"{name}blobs/{blob['digest']}" for blob in (manifest["config"], *manifest["layers"])]
        assert {(await get(path, alice))[0] for path in paths} == {200}

        await running.reload(lambda: settings(origin, tmp_path, *rule["sources"], blobs=blobs))
        assert {(await get(path))[0] for path in [TAG, *paths]} == {403}

        await running.reload(lambda: personal)
        assert await get(paths[0], alice) == (200, index)


async def test_a_configuration_that_is_loaded_often_lets_the_folder_be_pruned(
    origin: Origin, tmp_path: Path, clock: Clock
) -> None:
    """What is due goes by the time since the process began, and not since the last reload."""
    old = tmp_path / "content/blobs/sha256" / ("0" * 64)
    old.parent.mkdir(parents=True)
    old.touch()
    os.utime(old, (0, 0))
    ticks = Clock()
    async with serve(settings(origin, tmp_path), clock, ticks) as running:
        for _ in range(3):
            ticks.advance(101)
            await running.reload(lambda: settings(origin, tmp_path))

        await until(lambda: not old.exists())
