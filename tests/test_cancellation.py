"""People who leave: nothing they waited for is lost, nothing they used is left open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from conftest import Clock, StartProxy, until
from images import ARM, push_pair
from patience import HANGING
from proxy.app import serve
from proxy.settings.keys import Settings
from scripted import Origin, waits_for

TAG = "/v2/kimoqi/alpine/manifests/1.0"
HELD = 4  # questions before a source that doesn't answer: two manifests, the name itself, and the other one's config


async def test_the_first_of_many_leaves(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """When the client that began a cold tag disconnects, the others get their index from the same questions."""
    push_pair(origin.registry)
    gate = asyncio.Event()
    origin.fail("GET /v2/kimoqi/alpine-x86/manifests", waits_for(gate))
    proxy = await start(origin, rule=[rule])
    first = asyncio.create_task(proxy.get(TAG))
    await until(lambda: len(origin.requests) == HELD)
    others = [asyncio.create_task(proxy.get(TAG)) for _ in range(5)]
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.sleep(0.05)
    gate.set()

    answers = await asyncio.gather(*others)

    assert {answer.status for answer in answers} == {200}
    assert len(origin.requests) == 5


async def test_everybody_leaves(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """When all clients have left, the question still ends, and its answer is kept for the next."""
    push_pair(origin.registry)
    gate = asyncio.Event()
    origin.fail("GET /v2/kimoqi/alpine-x86/manifests", waits_for(gate))
    proxy = await start(origin, rule=[rule])
    client = asyncio.create_task(proxy.get(TAG))
    await until(lambda: len(origin.requests) == HELD)
    client.cancel()
    gate.set()
    await until(lambda: len(origin.requests) == 5)

    answer = await proxy.get(TAG)

    assert answer.status == 200
    assert len(origin.requests) == 5


async def test_a_client_that_leaves_mid_blob_frees_the_upstream(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """When a client disconnects in the middle of a blob, so do we."""
    left = asyncio.Event()

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(1 << 40)})
        await response.prepare(request)
        try:
            for _ in range(100_000):
                await response.write(b"x" * 65536)
        finally:
            left.set()
        return response

    digest = origin.registry.add_blob(ARM, b"a blob")
    origin.fail("GET .*/blobs/", endless)
    proxy = await start(origin, rule=[rule])
    async with proxy.session.get(f"{proxy.url}/v2/kimoqi/alpine/blobs/{digest}") as response:
        await response.content.readexactly(1 << 20)
        response.close()

    async with asyncio.timeout(HANGING):
        assert await left.wait()


async def test_stopping_in_the_middle_of_a_question(
    origin: Origin, rule: dict[str, Any], tmp_path: Any, clock: Clock
) -> None:
    """A service that stops while it asks leaves no task behind."""
    push_pair(origin.registry)
    gate = asyncio.Event()
    origin.fail("GET /v2/kimoqi/alpine-x86/manifests", waits_for(gate))
    before = asyncio.all_tasks()
    settings = Settings.model_validate(
        {
            "upstream": [{"name": "origin", "url": origin.url}],
            "rule": [rule],
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "cache": {"dir": tmp_path},
        }
    )
    async with serve(settings, clock) as running:
        asking = asyncio.create_task(running.site.manifest("kimoqi/alpine:1.0"))
        await until(lambda: len(origin.requests) == HELD)

    with pytest.raises(asyncio.CancelledError):
        await asking
    gate.set()
    await until(lambda: not [task for task in asyncio.all_tasks() - before if "RequestHandler" not in repr(task)])
