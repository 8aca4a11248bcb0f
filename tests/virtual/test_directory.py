"""Which upstream a request speaks of, over the wire: S4."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
import pytest

from conftest import StartProxy
from images import push_pair
from scripted import Origin

PATH = "/v2/kimoqi/alpine/manifests/1.0"


@pytest.mark.parametrize(
    "namespace",
    [
        "169.254.169.254",
        "a@b",
        "x/../y",
        "registry.example:22",
        "registry.example\r\nX: y",
        "localhost",
        "evil.example",
    ],
)
async def test_a_namespace_that_is_none_of_ours_is_unknown(
    origin: Origin, start: StartProxy, rule: dict[str, Any], namespace: str
) -> None:
    """`?ns=` only ever selects a configured upstream; anything else is a 404 without a question to anyone."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], upstream={"aliases": ["registry.example"]})

    answer = await proxy.get(f"{PATH}?ns={quote(namespace, safe='')}")

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
    assert origin.requests == []


@pytest.mark.parametrize(
    "path", ["/evil.example/v2/kimoqi/alpine/manifests/1.0", "/v2/evil.example/kimoqi/alpine/manifests/1.0"]
)
async def test_an_alias_that_is_none_of_ours_is_unknown(
    origin: Origin, start: StartProxy, rule: dict[str, Any], path: str
) -> None:
    """A path that names another registry isn't sent to the default one."""
    proxy = await start(origin, rule=[rule])

    assert (await proxy.get(path)).status == 404
    assert origin.requests == []


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        f"{PATH}?ns=registry.example",
        f"{PATH}?ns=REGISTRY.example",
        f"{PATH}?ns=",
        "/registry.example/v2/kimoqi/alpine/manifests/1.0",
        "/v2/registry.example/kimoqi/alpine/manifests/1.0",
        "/v2/registry.example/kimoqi/alpine/manifests/1.0?ns=registry.example",
        "/origin0/v2/kimoqi/alpine/manifests/1.0",
    ],
)
async def test_every_way_to_name_an_upstream(
    origin: Origin, start: StartProxy, rule: dict[str, Any], path: str
) -> None:
    """Prefix, `?ns=`, first component and none at all lead to the same merge."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], upstream={"aliases": ["registry.example"]})

    assert (await proxy.get(path)).status == 200


async def test_the_host_header_names_an_upstream(origin: Origin, other: Origin, start: StartProxy) -> None:
    """A client that speaks to the proxy under a registry's name means that registry."""
    push_pair(other.registry)
    proxy = await start(origin, other)

    default = await proxy.get(PATH)
    named = await proxy.get(PATH, Host=other.url.removeprefix("http://"))

    assert (default.status, named.status) == (404, 200)


async def test_the_namespace_is_echoed(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A mirror's client is told which registry it got an answer of."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], upstream={"aliases": ["registry.example"]})

    answer = await proxy.get(f"{PATH}?ns=registry.example")

    assert answer.headers["OCI-Namespace"] == "registry.example"
