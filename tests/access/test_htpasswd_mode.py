"""access.mode = "htpasswd": users of a file, with rights by repository, in front of all routes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import bcrypt
import orjson
import pytest

from conftest import Clock, Proxy, StartProxy
from images import push, push_pair
from private import basic
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Repository, Tag
from scripted import Origin
from swap import swap

TAG = "/v2/kimoqi/alpine/manifests/1.0"
ALICE, BOB, WRONG = basic("alice"), basic("bob"), basic("alice", "wrong")
ZEROS = "sha256:" + "0" * 64


def users(path: Path, *names: str, **passwords: str) -> Path:
    """Write a file of users, as `htpasswd -B` does but for the cost; each name and a 1 is a password."""
    passwords |= {name: f"{name}1" for name in names}
    lines = [f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}" for name, word in passwords.items()]
    swap(path, ("\n".join(lines) + "\n").encode())
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Alice and bob."""
    return users(tmp_path / "htpasswd", "alice", "bob")


@pytest.fixture
async def proxy(origin: Origin, start: StartProxy, rule: dict[str, Any], file: Path) -> Proxy:
    """Alice may push and delete kimoqi's, bob may pull the merged name alone."""
    push_pair(origin.registry)
    push(origin.registry, "other/app")
    allow = [
        {"users": ["alice"], "repositories": ["kimoqi/**"], "actions": ["pull", "push", "delete"]},
        {"users": ["b*"], "repositories": ["kimoqi/alpine"]},
    ]
    access = {"mode": "htpasswd", "htpasswd": file, "allow": allow, "realm": 'our "registry"'}
    return await start(origin, rule=[rule], upstream={"push": True}, access=access)


@pytest.mark.parametrize(
    "path", ["/v2/", TAG, "/v2/_catalog", f"/v2/kimoqi/alpine/blobs/{ZEROS}", "/v2/kimoqi/alpine/tags/list", "/x/v2/"]
)
@pytest.mark.parametrize("who", [None, WRONG, basic("eve"), "Basic !", "Bearer x", "Basic " + "QQ==" * 2000])
async def test_strangers_stay_outside(proxy: Proxy, origin: Origin, path: str, who: str | None) -> None:
    """Everywhere, with a challenge, and nobody is asked."""
    answer = await proxy.get(path, **({"Authorization": who} if who else {}))
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="our \\"registry\\"", charset="UTF-8"'
    assert orjson.loads(answer.body)["errors"][0]["code"] == "UNAUTHORIZED"
    assert origin.requests == []


async def test_two_authorizations_are_none(proxy: Proxy) -> None:
    """One of them could count here, the other behind."""
    headers = [("Authorization", ALICE), ("Authorization", WRONG)]
    async with proxy.session.get(proxy.url + TAG, headers=headers) as answer:
        assert answer.status == 400


async def test_rights_are_of_repositories(proxy: Proxy) -> None:
    """What is merged from sources can be pulled with the right to its own name; sources by theirs need theirs."""
    assert (await proxy.get(TAG, Authorization=ALICE)).status == 200
    assert (await proxy.get("/v2/kimoqi/alpine-x86/manifests/1.0", Authorization=ALICE)).status == 200
    merged = await proxy.get(TAG, Authorization=BOB)
    assert merged.status == 200
    for child in orjson.loads(merged.body)["manifests"]:
        found = await proxy.get(f"/v2/kimoqi/alpine/manifests/{child['digest']}", Authorization=BOB)
        assert found.status == 200
        config = orjson.loads(found.body)["config"]["digest"]
        assert (await proxy.get(f"/v2/kimoqi/alpine/blobs/{config}", Authorization=BOB)).status == 200
    for path in (
        "/v2/kimoqi/alpine-x86/manifests/1.0",
        "/v2/other/app/manifests/1.0",
        "/v2/origin0/other/app/tags/list",
    ):
        refused = await proxy.get(path, Authorization=BOB)
        assert refused.status == 403
        assert orjson.loads(refused.body)["errors"][0]["code"] == "DENIED"


async def test_a_right_to_pull_is_none_to_push(proxy: Proxy, origin: Origin) -> None:
    """Neither to upload, nor to ask how far an upload has come, nor to delete."""
    for method, path in (
        ("POST", "/v2/kimoqi/alpine/blobs/uploads/"),
        ("GET", "/v2/kimoqi/alpine/blobs/uploads/1"),
        ("PUT", TAG),
        ("DELETE", TAG),
        ("DELETE", f"/v2/kimoqi/alpine/blobs/{ZEROS}"),
    ):
        assert (await proxy.get(path, method, Authorization=BOB)).status == 403, (method, path)
    assert origin.requests == []
    assert (await proxy.get("/v2/kimoqi/alpine/blobs/uploads/", "POST", Authorization=ALICE)).status == 202


@pytest.mark.parametrize("name", ["from", "%66rom"])
async def test_nothing_is_mounted_from_where_one_may_not_read(proxy: Proxy, origin: Origin, name: str) -> None:
    """The registry would see our credentials, not the client's."""
    query = f"mount={ZEROS}&{name}=other%2Fapp"
    answer = await proxy.get(f"/v2/kimoqi/alpine/blobs/uploads/?{query}", "POST", Authorization=ALICE)
    assert answer.status == 202
    assert [request.query for request in origin.requests if request.method == "POST"] == [""]


@pytest.mark.parametrize(
    "query",
    [
        f"x=1;mount={ZEROS};from=other/app",
        f"x=1;mount={ZEROS};from=other/app&from=kimoqi/alpine",
        f"x=1&Mount={ZEROS}&From=other/app",
    ],
)
async def test_a_mount_is_seen_as_any_registry_may_read_it(proxy: Proxy, origin: Origin, query: str) -> None:
    """Older releases of Go separate fields by `;` as well."""
    answer = await proxy.get(f"/v2/kimoqi/alpine/blobs/uploads/?{query}", "POST", Authorization=ALICE)
    assert answer.status == 202
    assert [request.query for request in origin.requests if request.method == "POST"] == ["x=1"]


@pytest.mark.parametrize("rest", ["", "&from=", "&digest=" + ZEROS])
async def test_nothing_is_mounted_from_wherever_it_is(proxy: Proxy, origin: Origin, rest: str) -> None:
    """Some registries look in all repositories where a mount says no source: ours, not the client's."""
    path = f"/v2/kimoqi/alpine/blobs/uploads/?mount={ZEROS}{rest}"
    await proxy.get(path, "POST", Authorization=ALICE)
    sent = [request.query for request in origin.requests if request.method == "POST"]
    assert len(sent) == 1
    assert "mount" not in sent[0]


@pytest.mark.parametrize(
    ("path", "source", "mounted"),
    [
        ("/v2/kimoqi/alpine/blobs/uploads/?", "origin1/team/base", False),  # that is another registry's
        ("/v2/origin1/team/app/blobs/uploads/?", "origin1/team/base", True),
        ("/origin1/v2/team/app/blobs/uploads/?", "team/base", True),
        ("/v2/team/app/blobs/uploads/?ns=origin1&", "team/base", True),
        ("/v2/team/app/blobs/uploads/?ns=origin1&", "origin1/team/base", False),  # a repository of that whole name
    ],
)
async def test_a_mount_is_from_where_the_name_leads(
    origin: Origin, other: Origin, start: StartProxy, file: Path, path: str, source: str, mounted: bool
) -> None:
    """What the right is asked for is what the registry is told, and a registry mounts nothing of another one's."""
    allow = [{"repositories": ["kimoqi/*", "team/*"], "actions": ["pull", "push"]}]
    access = {"mode": "htpasswd", "htpasswd": file, "allow": allow}
    proxy = await start(origin, other, upstream={"push": True}, access=access)
    query = f"mount={ZEROS}&from={quote(source, safe='')}"
    assert (await proxy.get(f"{path}{query}", "POST", Authorization=ALICE)).status == 202
    sent = [unquote(request.query) for each in (origin, other) for request in each.requests if request.method == "POST"]
    assert sent == [f"mount={ZEROS}&from=team/base" if mounted else ""]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "Text/Plain"])
async def test_the_bytes_of_a_blob_are_no_form(proxy: Proxy, origin: Origin, kind: str) -> None:
    """Registries read a mount in one as they do behind the `?`, and in preference to it."""
    form = f"mount={ZEROS}&from=other/app"
    for method, path in (("POST", ""), ("PATCH", "1"), ("PUT", "1")):
        url = f"{proxy.url}/v2/kimoqi/alpine/blobs/uploads/{path}"
        headers = {"Authorization": ALICE, "Content-Type": kind}
        async with proxy.session.request(method, url, data=form.encode(), headers=headers):
            pass
    sent = [request for request in origin.requests if request.method != "GET"]
    assert [request.method for request in sent] == ["POST", "PATCH", "PUT"]
    assert {request.headers["Content-Type"] for request in sent} == {"application/octet-stream"}


async def test_a_catalog_of_which_one_sees_little_holds_up_nobody(proxy: Proxy, origin: Origin) -> None:
    """All that is hidden is gone through for it, and others are answered meanwhile."""
    manifest = await origin.registry.manifest(Repository("other/app"), Tag("1.0"), ANYTHING)
    for number in range(5_000):
        origin.registry.add_manifest(Repository(f"hidden/app{number}"), manifest)
    await proxy.get("/v2/_catalog", Authorization=BOB)
    await proxy.get("/v2/", Authorization=BOB)
    answered: list[str] = []

    async def ask(path: str) -> None:
        await proxy.get(path, Authorization=BOB)
        answered.append(path)

    await asyncio.gather(ask("/v2/_catalog"), ask("/v2/"))
    assert answered == ["/v2/", "/v2/_catalog"]


async def test_a_catalog_shows_what_one_may_pull(proxy: Proxy) -> None:
    """And where the next page begins tells of nothing else."""
    shown = orjson.loads((await proxy.get("/v2/_catalog", Authorization=BOB)).body)
    assert shown == {"repositories": ["kimoqi/alpine"]}
    page = await proxy.get("/v2/_catalog?n=1", Authorization=BOB)
    assert "Link" not in page.headers
    first = await proxy.get("/v2/_catalog?n=1", Authorization=ALICE)
    assert first.headers["Link"] == '</v2/_catalog?n=1&last=kimoqi%2Falpine>; rel="next"'


async def test_the_file_is_read_again(proxy: Proxy, file: Path, clock: Clock) -> None:
    """A user who has left stays outside, hot or not; a new password counts."""
    for _ in range(3):
        assert (await proxy.get(TAG, Authorization=ALICE)).status == 200
    users(file, bob="another")
    clock.advance(1.1)
    assert (await proxy.get(TAG, Authorization=BOB)).status == 401
    assert (await proxy.get(TAG, Authorization=basic("bob", "another"))).status == 200
    assert (await proxy.get(TAG, Authorization=ALICE)).status == 401


async def test_a_hot_answer_is_for_who_asked(proxy: Proxy) -> None:
    """The same head with other credentials isn't the same head."""
    for _ in range(3):
        assert (await proxy.get(TAG, Authorization=ALICE)).status == 200
        assert (await proxy.get(TAG, Authorization=WRONG)).status == 401
        assert (await proxy.get(TAG)).status == 401


async def test_without_rights_everybody_may_pull(origin: Origin, start: StartProxy, file: Path) -> None:
    """And nobody push."""
    push(origin.registry, "other/app")
    access = {"mode": "htpasswd", "htpasswd": file}
    proxy = await start(origin, upstream={"push": True}, access=access)
    assert (await proxy.get("/v2/other/app/manifests/1.0", Authorization=BOB)).status == 200
    assert (await proxy.get("/v2/other/app/blobs/uploads/", "POST", Authorization=BOB)).status == 403


async def test_a_right_may_be_for_one_upstream(origin: Origin, other: Origin, start: StartProxy, file: Path) -> None:
    """The same name elsewhere is another repository."""
    push(origin.registry, "other/app")
    push(other.registry, "other/app")
    access = {"mode": "htpasswd", "htpasswd": file, "allow": [{"upstream": "origin1"}]}
    proxy = await start(origin, other, access=access)
    assert (await proxy.get("/v2/other/app/manifests/1.0?ns=origin1", Authorization=BOB)).status == 200
    assert (await proxy.get("/v2/origin1/other/app/manifests/1.0", Authorization=BOB)).status == 200
    assert (await proxy.get("/v2/other/app/manifests/1.0", Authorization=BOB)).status == 403


async def test_a_config_that_was_just_merged_is_asked_for_once(proxy: Proxy, origin: Origin) -> None:
    """Its source has brought it: nobody has to see again that it is there."""
    index = orjson.loads((await proxy.get(TAG, Authorization=BOB)).body)
    child = await proxy.get(f"/v2/kimoqi/alpine/manifests/{index['manifests'][0]['digest']}", Authorization=BOB)
    origin.requests.clear()
    config = orjson.loads(child.body)["config"]["digest"]
    assert (await proxy.get(f"/v2/kimoqi/alpine/blobs/{config}", Authorization=BOB)).status == 200
    assert origin.asked == []
