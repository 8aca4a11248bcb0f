"""S9: what is cached for one client isn't thereby another's (CVE-2024-39897, CVE-2026-35172).

Knowing a digest is no permission: tag, index digest, child digest and blob digest, cold or hot, with blobs streamed or
kept, after a permission was revoked and while the upstream is down.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import bcrypt
import orjson
import pytest

from images import push_pair
from private import Private, basic
from process import Process
from scripted import Origin, status
from security.conftest import StartProcess

NAME = "/v2/kimoqi/alpine"
TAG = f"{NAME}/manifests/1.0"
ALICE, BOB = basic("alice"), basic("bob")
_TTL = 0.002  # seconds: longer than what was found counts where that is "1ms"; an answer may take less
CONFIG = """
[access]
mode = "upstream"
ttl = "{ttl}"
[[upstream]]
name = "registry"
url = "{url}"
credentials = "client"
blobs = "{blobs}"
retries = 0
breaker = 0
[[rule]]
match = "kimoqi/alpine"
sources = [{{ image = "{{repository}}-x86:{{tag}}" }}, {{ image = "{{repository}}-arm:{{tag}}" }}]
"""


@pytest.fixture
def private(origin: Origin) -> Private:
    """Alice may read what bob may not."""
    push_pair(origin.registry)
    private = Private({"alice": ("",), "bob": ("other/",)})
    private.guard(origin)
    return private


async def pulled(process: Process, who: str) -> list[str]:
    """Pull the image, twice so that it is hot, and return the paths of all that it is made of."""
    found = await process.get(TAG, Authorization=who)
    assert found.status == 200, found.body
    paths = [TAG, f"{NAME}/manifests/{found.headers['Docker-Content-Digest']}"]
    for child in orjson.loads(found.body)["manifests"]:
        paths.append(f"{NAME}/manifests/{child['digest']}")
        manifest = orjson.loads((await process.get(paths[-1], Authorization=who)).body)
        paths += [f"{NAME}/blobs/{blob['digest']}" for blob in (manifest["config"], *manifest["layers"])]
    assert await statuses(process, paths, who) == {200}
    return paths


async def statuses(process: Process, paths: list[str], who: str) -> set[int]:
    """Ask for everything, more than once."""
    return {
        (await process.get(path, method, Authorization=who)).status
        for path in paths
        for method in ("GET", "HEAD", "GET", "GET")
    }


@pytest.mark.parametrize("says", [403, 404])
@pytest.mark.parametrize("blobs", ["stream", "cache"])
async def test_digests_are_no_permission(
    launch: StartProcess, origin: Origin, private: Private, blobs: str, says: int
) -> None:
    """With a cache that holds everything."""
    private.says = says
    process = await launch(CONFIG.format(ttl="1h", url=origin.url, blobs=blobs))
    paths = await pulled(process, ALICE)
    assert await statuses(process, paths, BOB) == {says}
    assert {(await process.get(path)).status for path in paths} == {401}
    assert {(await process.get(path, Authorization=basic("alice", "guessed"))).status for path in paths} == {401}


async def test_revoked_and_down(launch: StartProcess, origin: Origin, private: Private) -> None:
    """Without a recent permission nothing that is kept is answered: 403 after it was revoked, 503 while nobody says."""
    process = await launch(CONFIG.format(ttl="1ms", url=origin.url, blobs="cache"))
    paths = await pulled(process, ALICE)
    private.rights["alice"] = ("other/",)
    await asyncio.sleep(_TTL)
    assert await statuses(process, paths, ALICE) == {403}
    private.rights["alice"] = ("",)
    assert await statuses(process, paths, ALICE) == {200}
    origin.fail("", status(503))
    await asyncio.sleep(_TTL)
    assert await statuses(process, paths, ALICE) == {503}


async def test_a_recent_permission_counts_while_it_is_down(
    launch: StartProcess, origin: Origin, private: Private
) -> None:
    """For the one who had it."""
    process = await launch(CONFIG.format(ttl="1h", url=origin.url, blobs="cache"))
    paths = await pulled(process, ALICE)
    assert (await process.get("/v2/", Authorization=BOB)).status == 200
    origin.fail("", status(503))
    assert await statuses(process, paths, ALICE) == {200}
    assert await statuses(process, paths, BOB) == {503}


TWICE = """
[access]
mode = "htpasswd"
htpasswd = "{users}"
[[access.allow]]
users = ["alice"]
[[access.allow]]
users = ["bob"]
upstream = "public"
[[upstream]]
name = "private"
url = "{url}"
credentials = {{ username = "alice", password = "alice1" }}
blobs = "{blobs}"
default = true
[[upstream]]
name = "public"
url = "{url}"
credentials = {{ username = "bob", password = "bob1" }}
blobs = "{blobs}"
[[rule]]
match = "kimoqi/alpine"
sources = [{{ image = "{{repository}}-x86:{{tag}}" }}, {{ image = "{{repository}}-arm:{{tag}}" }}]
"""


@pytest.mark.parametrize("blobs", ["stream", "cache"])
async def test_one_registry_under_two_names(
    launch: StartProcess, origin: Origin, private: Private, tmp_path: Path, blobs: str
) -> None:
    """What was asked for with the credentials of one is no answer of the other one, whose credentials may do less."""
    users = tmp_path / "users"
    hashes = {name: bcrypt.hashpw(f"{name}1".encode(), bcrypt.gensalt(4)).decode() for name in ("alice", "bob")}
    users.write_text("".join(f"{name}:{hashed}\n" for name, hashed in hashes.items()))
    process = await launch(TWICE.format(users=users, url=origin.url, blobs=blobs))
    paths = [f"{path}?ns=public" for path in await pulled(process, ALICE)]
    assert await statuses(process, paths, BOB) == {403}
