"""access.mode = "upstream": an answer that shows nothing proves no right, whatever its status is (S8, S9)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson
import pytest
from aiohttp import web

from conftest import Clock, Proxy, StartProxy
from images import push_pair
from private import basic
from proxy.oci import mediatype
from proxy.oci.access import read_basic
from scripted import Origin

NAME = "/v2/kimoqi/alpine"
ALICE, BOB = basic("alice"), basic("bob")
ANSWERS: Mapping[str, tuple[int, str, str]] = {
    "a login page": (200, "text/html", "<!doctype html><title>Log in</title>"),
    "the way to one": (302, "text/html", ""),
    "an error that says 200": (200, "application/json", '{"error": "log in"}'),
    "a problem": (200, "application/problem+json", '{"title": "log in"}'),
    "a word": (200, "text/plain", "Log in"),
    "a picture": (200, "image/png", "\x89PNG"),
}


LISTS: Final = {
    "tags": (r"/tags/list", b'{"name": "x", "tags": []}', "application/json"),
    "no tags": (r"/tags/list", b'{"name": "x", "tags": null}', "application/json"),
    "referrers": (r"/referrers/", b'{"schemaVersion": 2, "manifests": []}', mediatype.OCI_INDEX),
}


@pytest.fixture(params=["stream", "cache", "redirect"])
async def proxy(request: pytest.FixtureRequest, origin: Origin, start: StartProxy, rule: dict[str, Any]) -> Proxy:
    """A proxy in front of a registry that asks for a login."""
    push_pair(origin.registry)
    upstream = {"credentials": "client", "blobs": request.param}
    return await start(origin, rule=[rule], upstream=upstream, access={"mode": "upstream"})


def guard(origin: Origin, answer: tuple[int, str, str], friends: Collection[str] = ("alice",)) -> None:
    """Give everybody but *friends* an *answer*."""
    status, kind, body = answer

    async def guarded(request: web.BaseRequest) -> web.StreamResponse | None:
        login = read_basic(request.headers.get("Authorization", ""))
        path = request.rel_url.path
        if login is None:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="registry"'})
        if login.username in friends or path == "/v2/":
            return None
        if path == "/login":
            return web.Response(text=ANSWERS["a login page"][2], content_type="text/html")
        return web.Response(status=status, text=body, content_type=kind, headers={"Location": "/login"})

    origin.fail("", guarded)


async def pulled(proxy: Proxy) -> list[str]:
    """Pull the image as alice, and return the paths of all that it is made of: manifests first, then blobs."""
    found = await proxy.get(f"{NAME}/manifests/1.0", Authorization=ALICE)
    manifests = [f"{NAME}/manifests/1.0", f"{NAME}/manifests/{found.headers['Docker-Content-Digest']}"]
    blobs = []
    for child in orjson.loads(found.body)["manifests"]:
        manifests.append(f"{NAME}/manifests/{child['digest']}")
        image = orjson.loads((await proxy.get(manifests[-1], Authorization=ALICE)).body)
        blobs += [f"{NAME}/blobs/{blob['digest']}" for blob in (image["config"], *image["layers"])]
    for blob in blobs:
        assert (await proxy.get(blob, Authorization=ALICE)).status in (200, 307)
    return manifests + blobs


@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_makes_no_sense_proves_nothing(proxy: Proxy, origin: Origin, answer: str) -> None:
    """It is no answer, however often it comes, and whatever is asked for first."""
    guard(origin, ANSWERS[answer])
    paths = await pulled(proxy)
    for path in (*paths, *reversed(paths)):
        for method in ("GET", "HEAD", "GET"):
            assert (await proxy.get(path, method, Authorization=BOB)).status in (502, 503), path


@pytest.mark.parametrize("kind", LISTS)
async def test_an_empty_list_proves_nothing(proxy: Proxy, origin: Origin, kind: str) -> None:
    """A registry that hides a repository may list nothing of it instead of saying that there is none."""
    pattern, body, media_type = LISTS[kind]

    async def hidden(request: web.BaseRequest) -> web.StreamResponse | None:
        login = read_basic(request.headers.get("Authorization", ""))
        if login is None:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="registry"'})
        if login.username == "alice" or request.rel_url.path == "/v2/":
            return None
        if re.search(pattern, request.rel_url.path):
            return web.Response(body=body, content_type=media_type)
        return web.Response(status=404)

    origin.fail("", hidden)
    paths = await pulled(proxy)
    lists = [f"{NAME}{source}/tags/list" for source in ("", "-x86", "-arm")]
    lists += [
        f"{NAME}{source}/referrers/{path.rpartition('/')[2]}" for source in ("-x86", "-arm") for path in paths[2:4]
    ]
    for _ in range(2):
        for path in lists:
            await proxy.get(path, Authorization=BOB)
        for path in paths:
            assert (await proxy.get(path, Authorization=BOB)).status == 404, path


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_right_that_ends_with_a_page_is_not_kept_by_it(
    proxy: Proxy, origin: Origin, clock: Clock, answer: str
) -> None:
    """Where a gateway begins to answer in the registry's place, no blob's HEAD goes on to prove what was."""
    friends = {"alice", "bob"}
    guard(origin, ANSWERS[answer], friends)
    paths = await pulled(proxy)
    for path in paths:
        assert (await proxy.get(path, Authorization=BOB)).status in (200, 307), path
    friends.remove("bob")
    for _ in range(4):
        clock.advance(20)
        for path in reversed(paths):
            await proxy.get(path, "HEAD", Authorization=BOB)

    assert {(await proxy.get(path, Authorization=BOB)).status for path in paths} <= {502, 503}
