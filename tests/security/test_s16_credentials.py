"""S16: each upstream, and each repository, has its own credential alone, however requests are interleaved."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import orjson
from aiohttp import web

from conftest import until
from images import push
from scripted import Origin, Recorded
from security.conftest import StartProcess
from security.traps import PASSING
from upstream.peers import Tokens

_REPOSITORIES = [f"{team}/app{number}" for team in ("red", "blue", "open") for number in range(4)]


def who(request: Recorded) -> str:
    """Say in whose name a request came."""
    kind, _, value = request.headers.get("Authorization", "nobody").partition(" ")
    return base64.b64decode(value).decode() if kind == "Basic" else value.partition(".")[0] or kind


def team_of(request: Recorded) -> str:
    """Say which team's repository a request is about: its path's, or its scope's."""
    name = request.query.partition("repository:")[2] if request.path == "/token" else request.path.removeprefix("/v2/")
    return name.partition("/")[0]


async def test_no_credential_crosses_over(launch: StartProcess, origin: Origin, other: Origin, tmp_path: Path) -> None:
    """Two upstreams, five credentials of four kinds, three hundred requests at once, from two token services."""
    for each in (origin, other):
        Tokens(each)
        each.fail("GET /token", slowly)  # so that they overlap
        for repository in _REPOSITORIES:
            push(each.registry, repository)
    (tmp_path / "red").write_text("red-pw\n")
    docker = {"auths": {other.url: {"auth": base64.b64encode(b"docker:docker-pw").decode()}}}
    (tmp_path / "config.json").write_bytes(orjson.dumps(docker))
    process = await launch(
        f"""
[[upstream]]
name = "one"
url = "{origin.url}"
credentials = [
  {{ match = "red/*", username = "red", password_file = "{tmp_path / "red"}" }},
  {{ match = "blue/*", username = "blue", password_env = "BLUE" }},
]
[[upstream]]
name = "two"
url = "{other.url}"
credentials = [
  {{ match = "red/*", username = "red", password = "another-pw" }},
  {{ match = "blue/*", docker_config = "{tmp_path / "config.json"}" }},
]
{PASSING}""",
        {"BLUE": "blue-pw"},
    )
    paths = [f"/{name}/v2/{each}/manifests/1.0" for name in ("one", "two") for each in _REPOSITORIES]

    for _ in range(3):
        answers = await asyncio.gather(*(process.get(path, method) for path in paths * 4 for method in ("GET", "HEAD")))
        assert {answer.status for answer in answers} == {200}

    expected = {
        id(origin): {"red": ("red", "red:red-pw"), "blue": ("blue", "blue:blue-pw"), "open": ("anonymous", "nobody")},
        id(other): {
            "red": ("red", "red:another-pw"),
            "blue": ("docker", "docker:docker-pw"),
            "open": ("anonymous", "nobody"),
        },
    }
    for each in (origin, other):
        for request in each.requests:
            bearer, asking = expected[id(each)][team_of(request)]
            allowed = {asking} if request.path == "/token" else {bearer, "nobody"}
            assert who(request) in allowed, request
        assert {who(request) for request in each.requests if request.path == "/token"} == {
            asking for _, asking in expected[id(each)].values()
        }
    assert not [secret for secret in ("red-pw", "blue-pw", "another-pw", "docker-pw") if secret in process.log]


async def slowly(request: web.BaseRequest) -> None:
    """Let others come in between."""
    await asyncio.sleep(0.01)


async def test_a_credential_that_changes_leaves_nothing_behind(
    launch: StartProcess, origin: Origin, tmp_path: Path
) -> None:
    """After a password file has changed nothing is asked in the name of the old one: not its token either."""
    for repository in _REPOSITORIES:
        push(origin.registry, repository)
    Tokens(origin, seconds=3600)
    secret = tmp_path / "secret"
    secret.write_text("old-pw")
    process = await launch(
        f"""
[[upstream]]
name = "one"
url = "{origin.url}"
credentials = {{ username = "alice", password_file = "{secret}" }}
{PASSING}
[cache]
dir = "{tmp_path / "cache"}"
tag_ttl = "1ms"
stale_while_revalidate = "1ms"
""",
    )
    path = f"/v2/{_REPOSITORIES[0]}/manifests/1.0"
    assert (await process.get(path)).status == 200
    swapped = tmp_path / "new"
    swapped.write_text("new-pw")
    swapped.rename(secret)

    async def is_new() -> bool:
        await process.get(path)
        return "alice:new-pw" in {who(request) for request in origin.requests}

    await until(is_new)
    origin.requests.clear()

    for repository in _REPOSITORIES:
        assert (await process.get(f"/v2/{repository}/manifests/1.0")).status == 200
    asking = {who(request) for request in origin.requests if request.path == "/token"}
    assert asking == {"alice:new-pw"}
    assert "Bearer alice.1" not in {request.headers.get("Authorization") for request in origin.requests}
