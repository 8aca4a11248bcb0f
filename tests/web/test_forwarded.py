"""Behind a reverse proxy: only a trusted one may say how clients address us."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from conftest import StartProxy
from images import push_pair
from proxy.web.forwarded import forwarded_for, is_host
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


@pytest.mark.parametrize(
    ("named", "client"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["198.51.100.7, 192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.1, 10.0.0.2"], "192.0.2.1"),
        (["198.51.100.7, 192.0.2.1", "10.0.0.1"], "192.0.2.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["192.0.2.1, unknown"], ""),
        (["10.0.0.1"], ""),
        (["192.0.2.1" + ", 10.0.0.1" * 20], ""),
        (["", ","], ""),
        ([], ""),
    ],
)
def test_the_client_is_the_last_that_is_no_proxy(named: list[str], client: str) -> None:
    """What stands in front of it is its own word."""
    headers = CIMultiDict([("X-Forwarded-For", each) for each in named])
    request = make_mocked_request("GET", "/", headers=headers)

    assert forwarded_for(request, [ip_network("10.0.0.0/8")]) == client


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        *((text, True) for text in ("a", "registry.example:5000", "127.0.0.1", "[::1]:80", "my_registry")),
        *((text, False) for text in ("", "a:", "a:b", "a@b", "a/b", "a b", "a, b", "[::1", "a:999999", "\u0430")),
    ],
)
def test_what_a_host_is(text: str, is_one: bool) -> None:
    """A name or an address, and perhaps a port."""
    assert is_host(text) == is_one
