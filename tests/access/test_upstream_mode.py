"""access.mode = "upstream": each client sees what its own credentials may read, whatever is kept (S9)."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from aiohttp import web

from conftest import Answer, Clock, Proxy, StartProxy, until
from images import push, push_pair
from private import Private, basic
from scripted import Origin, hang, status, waits_for
from upstream.peers import Tokens

TAG = "/v2/kimoqi/alpine/manifests/1.0"
ALICE, BOB, CAROL = basic("alice"), basic("bob"), basic("carol")


@pytest.fixture
def private(origin: Origin) -> Private:
    """Alice may read everything, bob other things, carol one of the two sources."""
    push_pair(origin.registry)
    push(origin.registry, "other/app")
    private = Private({"alice": ("",), "bob": ("other/",), "carol": ("kimoqi/alpine-x86",)})
    private.guard(origin)
    return private


@pytest.fixture(params=["stream", "cache"])
def blobs(request: pytest.FixtureRequest) -> str:
    """Both ways in which blobs come through us."""
    return str(request.param)


@pytest.fixture
async def proxy(private: Private, origin: Origin, start: StartProxy, rule: dict[str, Any], blobs: str) -> Proxy:
    """A proxy in front of the private registry."""
    upstream = {"credentials": "client", "blobs": blobs}
    return await start(origin, rule=[rule], upstream=upstream, access={"mode": "upstream"})


async def everything(proxy: Proxy, who: str, tag: str = TAG) -> list[str]:
    """Pull as *who*, and return the paths of all that makes the image: tag, index, child, config and layer."""
    found = await proxy.get(tag, Authorization=who)
    assert found.status == 200, found.body
    index = orjson.loads(found.body)
    name = tag.partition("/manifests/")[0]
    paths = [tag, f"{name}/manifests/{found.headers['Docker-Content-Digest']}"]
    for child in index["manifests"]:
        paths.append(f"{name}/manifests/{child['digest']}")
        manifest = orjson.loads((await proxy.get(paths[-1], Authorization=who)).body)
        for blob in (manifest["config"], *manifest["layers"]):
            paths.append(f"{name}/blobs/{blob['digest']}")
            assert (await proxy.get(paths[-1], Authorization=who)).status == 200
    return paths


async def patiently(proxy: Proxy, path: str) -> Answer:
    """Ask as alice until she gets it: what a test leaves too little time for goes on, and is there the next time."""
    answers: list[Answer] = []

    async def is_there() -> bool:
        answers.append(await proxy.get(path, Authorization=ALICE))
        return answers[-1].status == 200

    await until(is_there)
    return answers[-1]


async def statuses(proxy: Proxy, paths: list[str], who: str) -> set[int]:
    """Ask for all of them, twice and with both methods."""
    asked = [await proxy.get(path, method, Authorization=who) for path in paths * 2 for method in ("GET", "HEAD")]
    return {answer.status for answer in asked}


async def test_nobody_comes_in_without_a_login(proxy: Proxy, origin: Origin) -> None:
    """The answer says how to log in, on every route, and the upstream isn't asked."""
    for path in ("/v2/", TAG, "/v2/_catalog", "/v2/kimoqi/alpine/tags/list"):
        answer = await proxy.get(path)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith('Basic realm="manifuse"')
        assert orjson.loads(answer.body)["errors"][0]["code"] == "UNAUTHORIZED"
    assert origin.requests == []


async def test_a_login_is_what_the_upstream_takes(proxy: Proxy, origin: Origin) -> None:
    """`docker login` asks for /v2/ alone."""
    assert (await proxy.get("/v2/", Authorization=ALICE)).status == 200
    wrong = await proxy.get("/v2/", Authorization=basic("alice", "wrong"))
    assert (wrong.status, b"configured" in wrong.body) == (401, False), "it is the client's own login"
    asked = len(origin.requests)
    assert (await proxy.get("/v2/", Authorization=ALICE)).status == 200
    assert (await proxy.get("/v2/", Authorization=basic("alice", "wrong"))).status == 401
    assert len(origin.requests) == asked, "both are known now"


async def test_a_login_counts_where_it_is_one(
    private: Private, origin: Origin, other: Origin, start: StartProxy
) -> None:
    """Each upstream has its own users; what is asked of one isn't asked with what counts at another."""
    push(other.registry, "other/app")
    Private({"dave": ("",)}).guard(other)
    proxy = await start(origin, other, upstream={"credentials": "client"}, access={"mode": "upstream"})
    here, there = "/v2/other/app/manifests/1.0", "/v2/origin1/other/app/manifests/1.0"
    for who, path, wanted in ((ALICE, here, 200), (ALICE, there, 401), (basic("dave"), there, 200)):
        assert (await proxy.get(path, Authorization=who)).status == wanted
    assert (await proxy.get(here, Authorization=basic("dave"))).status == 401
    for path in (f"{here}?ns=origin1", f"/origin1{here}"):
        assert (await proxy.get(path, Authorization=ALICE)).status == 401
        assert (await proxy.get(path, Authorization=basic("dave"))).status == 200


async def test_guesses_of_one_client_do_not_reach_the_upstream_all_at_once(proxy: Proxy, origin: Origin) -> None:
    """They would take all of its connections, and everybody else would wait."""
    gate = asyncio.Event()
    origin.fail("GET /v2/$", waits_for(gate))
    asking = [asyncio.create_task(proxy.get("/v2/", Authorization=basic(f"guess{n}"))) for n in range(300)]
    await until(lambda: sum(task.done() for task in asking) == 44 and len(origin.requests) == 8)
    gate.set()
    answers = [await task for task in asking]
    assert sorted(answer.status for answer in answers) == [401] * 256 + [503] * 44
    assert {answer.headers.get("Retry-After") for answer in answers} == {None, "1"}


async def test_a_login_is_answered_in_time(private: Private, origin: Origin, start: StartProxy) -> None:
    """Law 11: what a login is asked about counts for the time that a request may take."""
    origin.fail("GET /v2/$", hang())
    upstream, access = {"credentials": "client"}, {"mode": "upstream"}
    proxy = await start(origin, upstream=upstream, access=access, request_budget="200ms")
    answer = await proxy.get("/v2/", Authorization=ALICE)
    assert answer.status == 503
    assert b"no answer on the login" in answer.body


@pytest.mark.parametrize("kept", ["tag", "index", "child"])
async def test_a_proof_is_answered_in_time(
    private: Private, origin: Origin, start: StartProxy, clock: Clock, kept: str
) -> None:
    """Law 11: so does the right to read what is kept; the upstream itself would have longer for an answer."""
    upstream, access = {"credentials": "client"}, {"mode": "upstream", "ttl": "20s"}
    proxy = await start(origin, upstream=upstream, access=access, request_budget="200ms")
    tag = await patiently(proxy, TAG)
    digests = (tag.headers["Docker-Content-Digest"], orjson.loads(tag.body)["manifests"][0]["digest"])
    paths = {"tag": TAG, **dict(zip(("index", "child"), (TAG.replace("1.0", each) for each in digests), strict=True))}
    clock.advance(15)
    await patiently(proxy, "/v2/")
    origin.fail("/manifests/", hang())
    clock.advance(10)
    answer = await proxy.get(paths[kept], Authorization=ALICE)
    assert answer.status == 503
    assert b"within 0.2 s" in answer.body


async def test_a_held_answer_is_given_where_the_time_is_over(
    private: Private, origin: Origin, start: StartProxy, clock: Clock
) -> None:
    """Law 4: the merge has taken all the time that there was, and the right to read is proven already."""
    upstream, access = {"credentials": "client"}, {"mode": "upstream", "ttl": "1h"}
    cache = {"stale_while_revalidate": "0s"}
    proxy = await start(origin, upstream=upstream, access=access, request_budget="200ms", cache=cache)
    await patiently(proxy, TAG)
    clock.advance(90)
    origin.fail("/manifests/", hang())
    answer = await proxy.get(TAG, Authorization=ALICE)
    assert answer.status == 200, answer.body
    assert answer.headers["X-Manifuse-Cache"] == "stale"


async def test_a_proof_has_what_the_merge_has_left(
    private: Private, origin: Origin, start: StartProxy, clock: Clock
) -> None:
    """Law 11: both together have the time of one request, so nobody asks for a proof when it is over."""
    upstream, access = {"credentials": "client"}, {"mode": "upstream", "ttl": "20s"}
    cache = {"tag_ttl": "1s", "stale_while_revalidate": "0s"}
    proxy = await start(origin, upstream=upstream, access=access, request_budget="200ms", cache=cache)
    await patiently(proxy, TAG)
    clock.advance(15)
    await patiently(proxy, "/v2/")
    origin.fail("/manifests/1.0", hang())
    clock.advance(10)
    answer = await proxy.get(TAG, Authorization=ALICE)
    assert answer.status == 503
    assert b"no answer on the right to read it" in answer.body


async def test_what_one_has_pulled_is_not_another_ones(proxy: Proxy) -> None:
    """By tag, index digest, child digest and blob digest, however hot it is."""
    paths = await everything(proxy, ALICE)
    assert await statuses(proxy, paths, ALICE) == {200}
    assert await statuses(proxy, paths, BOB) == {403}
    assert await statuses(proxy, paths, ALICE) == {200}


async def test_whoever_may_read_one_source_does_not_see_the_whole(proxy: Proxy) -> None:
    """The index is of both; what is of the one source can be pulled."""
    paths = await everything(proxy, ALICE)
    answers = {path: (await proxy.get(path, Authorization=CAROL)).status for path in paths}
    assert [answers[path] for path in paths[:2]] == [403, 403]
    assert list(answers.values()).count(200) == 3, "one child, its config and its layer"


async def test_a_registry_that_hides_what_is_private(
    private: Private, proxy: Proxy, origin: Origin, start: StartProxy
) -> None:
    """Where the upstream says 404 instead of 403, so do we."""
    private.says = 404
    paths = await everything(proxy, ALICE)
    assert await statuses(proxy, paths, BOB) == {404}


async def test_a_permission_that_is_revoked_ends(proxy: Proxy, private: Private, clock: Clock) -> None:
    """After `access.ttl`, also for what is fresh, by digest and hot."""
    paths = await everything(proxy, ALICE)
    assert await statuses(proxy, paths, ALICE) == {200}
    private.rights["alice"] = ("other/",)
    clock.advance(61)
    assert await statuses(proxy, paths, ALICE) == {403}


async def test_a_permission_does_not_outlive_the_upstream(proxy: Proxy, origin: Origin, clock: Clock) -> None:
    """The last permission counts for `access.ttl`, then nothing that is kept is answered."""
    paths = await everything(proxy, ALICE)
    kept = [path for path in paths if "/manifests/" in path]
    origin.fail("", status(503))
    clock.advance(30)
    assert await statuses(proxy, kept, ALICE) == {200}
    clock.advance(31)
    assert await statuses(proxy, kept, ALICE) == {503}
    origin.faults.pop(0)
    clock.advance(60)
    assert await statuses(proxy, kept, ALICE) == {200}


async def test_a_refusal_is_one_callers_own(proxy: Proxy, private: Private) -> None:
    """Whoever comes first and is refused spoils nothing for others, nor do their tags."""
    private.says = 404
    assert (await proxy.get(TAG, Authorization=BOB)).status == 404
    assert (await proxy.get(TAG, Authorization=ALICE)).status == 200
    assert (await proxy.get(TAG, Authorization=BOB)).status == 404


async def test_a_password_that_has_changed_counts_no_more(proxy: Proxy, private: Private, clock: Clock) -> None:
    """Not even for what is hot."""
    paths = await everything(proxy, ALICE)
    private.passwords["alice"] = "another"
    clock.advance(61)
    assert await statuses(proxy, [*paths, "/v2/"], ALICE) == {401}
    assert await statuses(proxy, [*paths, "/v2/"], basic("alice", "another")) == {200}


async def test_lists_are_each_callers_own(proxy: Proxy) -> None:
    """Tags of a merged repository are remembered, but not for others."""
    path = "/v2/kimoqi/alpine/tags/list"
    assert orjson.loads((await proxy.get(path, Authorization=ALICE)).body)["tags"] == ["1.0"]
    assert (await proxy.get(path, Authorization=BOB)).status == 403


async def test_a_hot_answer_ends_with_the_permission(
    private: Private, origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """Also where the login was asked about later, and the tag is fresh for longer."""
    upstream, cache = {"credentials": "client"}, {"tag_ttl": "10m"}
    proxy = await start(origin, rule=[rule], upstream=upstream, cache=cache, access={"mode": "upstream"})
    assert (await proxy.get("/v2/", Authorization=ALICE)).status == 200
    clock.advance(30)
    paths = [path for path in await everything(proxy, ALICE) if "/manifests/" in path]
    clock.advance(31)
    assert await statuses(proxy, paths, ALICE) == {200}
    private.rights["alice"] = ("other/",)
    clock.advance(30)
    for path in paths:
        assert (await proxy.get(path, Authorization=ALICE)).status == 403, path


@pytest.mark.parametrize("path", ["/v2/kimoqi/alpine/tags/list", "/v2/_catalog"])
async def test_lists_do_not_outlive_a_permission(
    private: Private, origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, path: str
) -> None:
    """However long tags and catalogs are remembered otherwise."""
    upstream, cache = {"credentials": "client"}, {"tag_ttl": "10m"}
    proxy = await start(origin, rule=[rule], upstream=upstream, cache=cache, access={"mode": "upstream"})
    assert (await proxy.get(path, Authorization=ALICE)).status == 200
    origin.fail(f"GET {path.replace('alpine', 'alpine-x86')}", status(403))
    clock.advance(59)
    assert (await proxy.get("/v2/", Authorization=ALICE)).status == 200
    clock.advance(2)
    assert (await proxy.get(path, Authorization=ALICE)).status in (403, 404)


async def test_an_index_of_ours_is_found_after_a_restart(
    proxy: Proxy, origin: Origin, start: StartProxy, rule: dict[str, Any], blobs: str
) -> None:
    """Law 3: where digests are is kept for all; what somebody may see of it is asked for anew."""
    paths = await everything(proxy, ALICE)
    upstream = {"credentials": "client", "blobs": blobs}
    again = await start(origin, rule=[rule], upstream=upstream, access={"mode": "upstream"})
    assert (await again.get(paths[1], Authorization=BOB)).status == 403
    assert (await again.get(paths[1], Authorization=ALICE)).status == 200


async def test_a_push_shows_to_everybody(
    private: Private, origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """What one caller changes is asked for anew for all."""
    private.rights["dave"] = ("",)
    upstream = {"credentials": "client", "push": True}
    proxy = await start(origin, rule=[rule], upstream=upstream, access={"mode": "upstream"})
    before = [(await proxy.get(TAG, Authorization=who)).body for who in (ALICE, basic("dave"))]
    child = orjson.loads(before[0])["manifests"][1]
    there = await proxy.get(f"/v2/kimoqi/alpine-arm/manifests/{child['digest']}", Authorization=ALICE)
    document = orjson.loads(there.body) | {"annotations": {"another": "one"}}
    async with proxy.session.put(
        proxy.url + "/v2/kimoqi/alpine-arm/manifests/1.0",
        data=orjson.dumps(document),
        headers={"Authorization": ALICE, "Content-Type": child["mediaType"]},
    ) as pushed:
        assert pushed.status == 201, await pushed.read()
    after = [(await proxy.get(TAG, Authorization=who)).body for who in (ALICE, basic("dave"))]
    assert before[0] == before[1] != after[0] == after[1]


async def test_a_push_is_made_with_the_callers_own_credentials(
    private: Private, origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Whom the upstream doesn't let write doesn't write."""
    upstream = {"credentials": "client", "push": True}
    proxy = await start(origin, rule=[rule], upstream=upstream, access={"mode": "upstream"})
    headers = {"Authorization": BOB}
    async with proxy.session.post(proxy.url + "/v2/kimoqi/alpine/blobs/uploads/", headers=headers) as refused:
        assert refused.status in (401, 403)


async def test_one_flight_for_each_caller(proxy: Proxy, origin: Origin) -> None:
    """The same caller again costs nothing more; another one asks for themselves."""
    await proxy.get(TAG, Authorization=ALICE)
    asked = len(origin.requests)
    await proxy.get(TAG, Authorization=ALICE)
    assert len(origin.requests) == asked


@pytest.mark.parametrize("tokens", [False, True])
async def test_a_rate_limit_is_one_callers_own(
    private: Private, origin: Origin, start: StartProxy, rule: dict[str, Any], tokens: bool
) -> None:
    """Whoever has used up what they may ask for, or guesses passwords, holds up nobody else."""

    async def lock(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.headers.get("Authorization") == BOB:
            return web.Response(status=429, headers={"Retry-After": "60"})
        return None

    if tokens:
        origin.heal()
        Tokens(origin)
    origin.fail("", lock)
    upstream = {"credentials": "client"}
    proxy = await start(origin, rule=[rule], upstream=upstream, access={"mode": "upstream"})
    assert (await proxy.get("/v2/", Authorization=ALICE)).status == 200
    bobs = await proxy.get("/v2/", Authorization=BOB)
    assert (bobs.status, bobs.headers["Retry-After"]) == (503, "60")
    assert (await proxy.get(TAG, Authorization=ALICE)).status == 200


async def test_where_one_found_it_is_not_where_all_look(
    private: Private, origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """What two sources hold is each caller's where they may read, whoever came first; also after a restart."""
    held = push(origin.registry, "kimoqi/alpine-x86", "2.0", text="same")
    push(origin.registry, "kimoqi/alpine-arm", "2.0", text="same")
    private.rights["dave"] = ("kimoqi/alpine-arm",)
    path = f"/v2/kimoqi/alpine/manifests/{held.digest}"
    for _ in range(2):
        proxy = await start(origin, rule=[rule], upstream={"credentials": "client"}, access={"mode": "upstream"})
        for who, wanted in ((CAROL, 200), (basic("dave"), 200), (BOB, 403), (CAROL, 200)):
            assert await statuses(proxy, [path], who) == {wanted}


async def test_an_index_is_each_callers_wherever_they_may_read_its_children(
    private: Private, origin: Origin, start: StartProxy
) -> None:
    """What a caller was told of can be pulled, also where others have found its children in places of their own."""
    for suffix in ("x86", "amd64"):
        push(origin.registry, f"kimoqi/alpine-{suffix}", text="same")
    private.rights |= {"dave": ("kimoqi/alpine-amd64", "kimoqi/alpine-arm"), "erin": ("kimoqi/alpine-arm",)}
    rule = {"match": "kimoqi/*", "conventions": ["repository-suffix"]}
    proxy = await start(origin, rule=[rule], upstream={"credentials": "client"}, access={"mode": "upstream"})
    dave, erin = basic("dave"), basic("erin")
    told = {(await proxy.get(TAG, Authorization=who)).headers["Docker-Content-Digest"] for who in (dave, ALICE)}
    (digest,) = told
    for who, wanted in ((dave, 200), (ALICE, 200), (erin, 403), (dave, 200)):
        assert await statuses(proxy, [f"/v2/kimoqi/alpine/manifests/{digest}"], who) == {wanted}
