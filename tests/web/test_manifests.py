"""Manifests over the wire: what a client has already isn't sent again."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Clock, Proxy, StartProxy
from images import X86, push, push_pair
from scripted import Origin

TAG = "/v2/kimoqi/alpine/manifests/1.0"
NOWHERE = "/v2/kimoqi/alpine/manifests/nowhere"


@pytest.fixture
async def proxy(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> Proxy:
    """A proxy in front of an upstream with the usual pair."""
    push_pair(origin.registry)
    return await start(origin, rule=[rule])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("written", ['"{}"', "{}", 'W/"{}"', '"other", "{}"', "*"])
async def test_what_the_client_has_is_304(proxy: Proxy, method: str, written: str) -> None:
    """By tag and by digest, GET and HEAD: no body, and the headers that say what it is."""
    digest = (await proxy.get(TAG)).headers["Docker-Content-Digest"]

    for path in (TAG, f"/v2/kimoqi/alpine/manifests/{digest}"):
        answer = await proxy.get(path, method, If_None_Match=written.format(digest))
        assert (answer.status, answer.body) == (304, b"")
        assert (answer.headers["ETag"], answer.headers["Docker-Content-Digest"]) == (f'"{digest}"', digest)
        assert "Content-Length" not in answer.headers
        assert answer.headers["X-Manifuse-Cache"] == "hit"
    assert (await proxy.get(TAG, If_None_Match=written.format(digest))).headers["Vary"] == "Accept"


async def test_what_has_changed_is_sent(origin: Origin, proxy: Proxy, clock: Clock) -> None:
    """A tag that moved is no longer what the client has."""
    digest = (await proxy.get(TAG)).headers["Docker-Content-Digest"]
    push(origin.registry, X86, text="another")
    clock.advance(61)

    answer = await proxy.get(TAG, If_None_Match=f'"{digest}"')

    assert answer.status == 200
    assert answer.headers["Docker-Content-Digest"] != digest
    assert int(answer.headers["Content-Length"]) == len(answer.body)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_is_not_there_is_404_whatever_the_client_has(proxy: Proxy, method: str) -> None:
    """A condition makes nothing up."""
    assert (await proxy.get(NOWHERE, method, If_None_Match="*")).status == 404


async def test_range_means_nothing_for_manifests(proxy: Proxy) -> None:
    """A manifest is always whole."""
    answer = await proxy.get(TAG, Range="bytes=0-9")

    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) == len(answer.body)
