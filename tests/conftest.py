"""Fixtures: a clock that is moved by hand, upstreams that are scripted, and the whole proxy in front of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import settings
from yarl import URL

from patience import HANGING
from proxy.app import Site, serve
from proxy.settings.keys import Settings
from scripted import Origin, running
from together import pytest_xdist_make_scheduler  # noqa: F401 - pytest looks for it here

# A loaded machine is no reason for a property to be wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Everything must hold with hot answers and without: MANIFUSE_TEST_HOT=0 turns them off.
HOT = os.environ.get("MANIFUSE_TEST_HOT", "1") != "0"
if not HOT:
    os.environ["MANIFUSE_HOT"] = "false"  # in the processes that tests start


@dataclass
class Clock:
    """Seconds since the epoch that pass only when a test says so."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got."""

    status: int
    headers: Any
    body: bytes


@dataclass(frozen=True, slots=True)
class Proxy:
    """The whole service, listening."""

    url: str
    admin: str
    site: Site
    session: aiohttp.ClientSession

    async def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask for *path* as it is written, without any requoting. Header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, headers=named, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())

    async def head(self, path: str, **headers: str) -> Answer:
        """Ask for the headers of *path*."""
        return await self.get(path, "HEAD", **headers)

    async def page(self, path: str) -> Answer:
        """Ask the admin port for *path*."""
        async with self.session.get(self.admin + path) as response:
            return Answer(response.status, response.headers, await response.read())


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until *condition*, which may have to be awaited, holds; fail where it never does."""
    end = time.monotonic() + HANGING
    while not await _holds(condition):
        assert time.monotonic() < end, "what the test waits for didn't happen"
        await asyncio.sleep(0.01)


async def _holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    found = condition()
    return found if isinstance(found, bool) else await found


async def settled(folder: Path) -> None:
    """Wait until what is written behind the answers is on disk: no line of writes is at work, nothing changes any more.

    On a slow disk nothing can be seen for a while of what is at work, as it syncs folders.
    """
    seen: list[set[Path]] = []
    while (
        len(seen) < 10
        or seen[-1] != seen[-10]
        or any(path.parent.name == "tmp" for path in seen[-1])
        or any("Behind._run" in repr(task.get_coro()) for task in asyncio.all_tasks())
    ):
        await asyncio.sleep(0.01)
        seen.append(_files(folder))
        assert len(seen) < 6000, "the folder never came to rest"


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


StartProxy = Callable[..., Coroutine[Any, Any, Proxy]]


@pytest.fixture
def clock() -> Clock:
    """A clock at rest."""
    return Clock()


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of our variables, which would lie over every configuration: whoever runs the tests may have set some."""
    for name in [name for name in os.environ if name.startswith("MANIFUSE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An upstream."""
    async with running(Origin()) as one:
        yield one


@pytest.fixture
async def other() -> AsyncIterator[Origin]:
    """Another upstream."""
    async with running(Origin()) as one:
        yield one


@pytest.fixture
async def start(tmp_path: Path, clock: Clock) -> AsyncIterator[StartProxy]:
    """Start proxies in front of upstreams; they stop with the test.

    `await start(origin, other, rule=[...], cache={...})`: upstreams are called `origin0`, `origin1`…; the
    first is the default. Without a word each is asked once, and always.
    """
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # else no more than a hundred clients at once
                auto_decompress=False,
                skip_auto_headers=["Accept", "Accept-Encoding"],
            )
        )

        async def begin(*origins: Origin, upstream: dict[str, Any] | None = None, **settings: Any) -> Proxy:
            upstreams = [
                {"name": f"origin{n}", "url": each.url, "default": n == 0, **RESTLESS, **(upstream or {})}
                for n, each in enumerate(origins)
            ]
            cache = {"dir": tmp_path / "cache", "stale_while_revalidate": "0s", **settings.pop("cache", {})}
            ports = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "drain": "1s", "hot": HOT}
            if _files(tmp_path):  # else no proxy was here before
                await settled(tmp_path)
            loaded = Settings.model_validate({"upstream": upstreams, "cache": cache, **ports, **settings})
            service = await stack.enter_async_context(serve(loaded, clock, clock))
            return Proxy(
                url="http://{}:{}".format(*service.registry),
                admin="http://{}:{}".format(*service.admin),
                site=service.site,
                session=session,
            )

        yield begin
    # Connections of the scripted upstreams may still be ending: they are not ours.
    mine = before | {asyncio.current_task()}
    await until(lambda: not [task for task in asyncio.all_tasks() - mine if not _is_a_connection(task)])


def _is_a_connection(task: asyncio.Task[Any]) -> bool:
    return "RequestHandler" in repr(task.get_coro())


RESTLESS: dict[str, Any] = {"retries": 0, "breaker": 0}

RULE: dict[str, Any] = {
    "match": "kimoqi/*",
    "sources": [
        {"image": "{repository}-x86:{tag}", "platform": "linux/amd64"},
        {"image": "{repository}-arm:{tag}", "platform": "linux/arm64"},
    ],
}


@pytest.fixture
def rule() -> dict[str, Any]:
    """The explicit rule that most tests merge by."""
    return deepcopy(RULE)
