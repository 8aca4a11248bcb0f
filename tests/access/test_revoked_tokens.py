"""access.mode = "upstream" in front of a token service: a right that it takes back ends within `access.ttl`."""

from __future__ import annotations

import orjson
import pytest
from aiohttp import web

from conftest import Clock, Proxy, StartProxy
from images import push_pair
from private import basic
from scripted import Origin
from upstream.peers import Tokens

NAME = "/v2/kimoqi/alpine"
ALICE = basic("alice")
PATHS = [f"{NAME}/manifests/1.0", f"{NAME}-x86/tags/list", f"{NAME}/tags/list"]


@pytest.fixture
async def proxy(origin: Origin, start: StartProxy, clock: Clock, rule: dict[str, object]) -> Proxy:
    """A proxy in front of a registry whose tokens last for an hour."""
    push_pair(origin.registry)
    Tokens(origin, seconds=3600)
    upstream = {"credentials": "client", "blobs": "cache"}
    return await start(origin, rule=[rule | {"tag_ttl": "1s"}], upstream=upstream, access={"mode": "upstream"})


async def statuses(proxy: Proxy, paths: list[str]) -> set[int]:
    """Ask for everything, more than once."""
    return {(await proxy.get(path, Authorization=ALICE)).status for path in paths for _ in range(3)}


async def test_a_token_and_what_it_proves_end_together(proxy: Proxy, origin: Origin, clock: Clock) -> None:
    """The registry goes on to believe the token, so it is used, and proofs are made with it, for `ttl` in all."""
    index = await proxy.get(PATHS[0], Authorization=ALICE)
    child = orjson.loads(index.body)["manifests"][0]["digest"]
    manifest = orjson.loads((await proxy.get(f"{NAME}/manifests/{child}", Authorization=ALICE)).body)
    paths = [f"{NAME}/manifests/{child}", f"{NAME}/blobs/{manifest['layers'][0]['digest']}", *PATHS]
    assert await statuses(proxy, paths) == {200}

    async def no(request: web.BaseRequest) -> web.StreamResponse | None:
        return web.Response(status=401) if request.rel_url.query.get("scope") else None

    origin.fail("GET /token", no)
    for _ in range(59):
        clock.advance(1)
        assert await statuses(proxy, ["/v2/"]) == {200}
        await statuses(proxy, paths)
    clock.advance(2)
    assert await statuses(proxy, paths) == {403}


async def test_an_answer_just_asked_for_ends_with_the_token(
    origin: Origin, start: StartProxy, clock: Clock, rule: dict[str, object]
) -> None:
    """It may be given again for as long as the right that an older token proves, and no longer."""
    for tag in ("1.0", "2.0"):
        push_pair(origin.registry, tag)
    Tokens(origin, seconds=3600)
    settings = {"rule": [rule | {"tag_ttl": "10m"}], "access": {"mode": "upstream"}}
    proxy = await start(origin, upstream={"credentials": "client"}, **settings)
    assert await statuses(proxy, ["/v2/"]) == {200}
    clock.advance(31)
    assert await statuses(proxy, [f"{NAME}/manifests/1.0"]) == {200}
    clock.advance(29)
    assert await statuses(proxy, [f"{NAME}/manifests/2.0"]) == {200}

    async def no(request: web.BaseRequest) -> web.StreamResponse | None:
        return web.Response(status=401) if request.rel_url.query.get("scope") else None

    origin.fail("GET /token", no)
    clock.advance(32)
    assert await statuses(proxy, [f"{NAME}/manifests/2.0"]) == {403}
