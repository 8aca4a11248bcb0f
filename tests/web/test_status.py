"""The admin port."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from conftest import StartProxy
from images import push_pair
from scripted import Origin, status


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_and_readiness_ignore_the_upstream(origin: Origin, start: StartProxy, path: str) -> None:
    """A process that listens is healthy and ready, whatever its upstreams do."""
    origin.fail("", status(503))
    proxy = await start(origin)

    assert (await proxy.page(path)).status == 200


async def test_metrics_are_prometheus(origin: Origin, start: StartProxy) -> None:
    """`/metrics` has every counter from the start."""
    proxy = await start(origin)

    answer = await proxy.page("/metrics")

    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    for name in ("merges", "partial_merges", "platform_mismatches", "coalesced"):
        assert f"manifuse_{name}_total 0.0".encode() in answer.body


async def test_explain_is_json(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """`/explain/<repository>:<tag>` says what was decided."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])

    explanation = orjson.loads((await proxy.page("/explain/kimoqi/alpine:1.0")).body)

    assert explanation["verdict"] == "serve"
    assert explanation["platforms"] == ["linux/amd64", "linux/arm64/v8"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/explain/Bad:1", 400),
        ("/explain/a@sha256:" + "0" * 64, 400),
        ("/explain/", 400),
        ("/index.html", 404),
        ("/v2/", 404),
    ],
)
async def test_bad_pages(origin: Origin, start: StartProxy, path: str, expected: int) -> None:
    """What can't be explained, and what isn't there, is an error in words."""
    proxy = await start(origin)

    answer = await proxy.page(path)

    assert answer.status == expected
    assert orjson.loads(answer.body)["errors"][0]["message"]


async def test_only_reading(origin: Origin, start: StartProxy) -> None:
    """The admin port changes nothing."""
    proxy = await start(origin)

    async with proxy.session.post(proxy.admin + "/metrics") as response:
        assert response.status == 405


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("LocalHost:5081", 200),
        ("127.0.0.1:5081", 200),
        ("[::1]:5081", 200),
        ("[::1]", 200),
        ("10.0.0.7", 200),
        ("evil.example", 403),
        ("evil.example:5081", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.1", 403),
    ],
)
async def test_a_web_page_does_not_read_it(
    origin: Origin, start: StartProxy, rule: dict[str, Any], host: str, expected: int
) -> None:
    """Without a token: a browser here can be told that somebody's name is this machine's, but not to leave it out."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    for path, answered in (("/metrics", expected), ("/explain/kimoqi/alpine:1.0", expected), ("/healthz", 200)):
        async with proxy.session.get(proxy.admin + path, headers={"Host": host}) as response:
            assert response.status == answered
            if answered == 403:
                assert "admin_token" in (await response.json())["errors"][0]["message"]


async def test_with_a_token_it_has_any_name(origin: Origin, start: StartProxy) -> None:
    """No web page has the token; Prometheus may ask by name."""
    proxy = await start(origin, admin_token="open sesame")
    headers = {"Host": "manifuse.example", "Authorization": "Bearer open sesame"}

    async with proxy.session.get(proxy.admin + "/metrics", headers=headers) as response:
        assert response.status == 200
