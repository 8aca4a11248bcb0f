"""Behind a reverse proxy: only a trusted one may say how clients address us."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import StartProxy
from images import push_pair
from scripted import Origin

PATH = "/v2/kimoqi/alpine-arm/blobs/uploads/"
TAG = "/v2/kimoqi/alpine/manifests/1.0"


async def test_a_trusted_proxy_makes_locations_absolute(origin: Origin, start: StartProxy) -> None:
    """Of several values the first counts: it is the one that the client sees."""
    proxy = await start(origin, upstream={"push": True}, trusted_proxies=["127.0.0.0/8"])

    answer = await proxy.get(
        PATH, "POST", X_Forwarded_Proto="https, http", X_Forwarded_Host="registry.example:8443, inner"
    )

    assert answer.headers["Location"].startswith("https://registry.example:8443/v2/kimoqi/alpine-arm/blobs/uploads/")


@pytest.mark.parametrize("trusted", [[], ["192.0.2.0/24"]])
async def test_anybody_else_is_not_believed(origin: Origin, start: StartProxy, trusted: list[str]) -> None:
    """A client can't choose where others are sent: the Location stays a path."""
    proxy = await start(origin, upstream={"push": True}, trusted_proxies=trusted)

    answer = await proxy.get(PATH, "POST", X_Forwarded_Proto="https", X_Forwarded_Host="evil.example")

    assert answer.headers["Location"].startswith("/v2/")


@pytest.mark.parametrize(
    "headers",
    [{}, {"X_Forwarded_Host": "a b"}, {"X_Forwarded_Host": "a/b"}, {"X_Forwarded_Proto": "javascript"}],
)
async def test_nonsense_is_not_repeated(origin: Origin, start: StartProxy, headers: dict[str, str]) -> None:
    """What can't be a host or a scheme leaves the path as it is."""
    proxy = await start(origin, upstream={"push": True}, trusted_proxies=["127.0.0.1"])

    assert (await proxy.get(PATH, "POST", **headers)).headers["Location"].startswith("/v2/")


async def test_the_forwarded_host_selects_the_registry(
    origin: Origin, other: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """One address in front, several registries behind: the name that the client used tells which."""
    push_pair(other.registry)
    proxy = await start(origin, other, rule=[rule], trusted_proxies=["127.0.0.1"])
    host = other.url.removeprefix("http://")

    assert (await proxy.get(TAG)).status == 404
    assert (await proxy.get(TAG, X_Forwarded_Host=host)).status == 200
