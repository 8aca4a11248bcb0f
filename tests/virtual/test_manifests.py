"""Freshness, trouble and restarts, through the whole service, with a clock that is moved by hand."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from conftest import Clock, Proxy, StartProxy, settled, until
from images import ARM, V1, X86, entry, push, push_index, push_pair
from proxy.oci.reference import Digest
from scripted import Fault, Origin, endless, hang, html, once, reset, status, truncated

TAG = "/v2/kimoqi/alpine/manifests/1.0"
ARM_TAG = "GET /v2/kimoqi/alpine-arm/manifests/1.0"
NO_ANSWERS: dict[str, Fault] = {
    "500": status(500),
    "503": status(503),
    "429": status(429, b"{}", Retry_After="7"),
    "reset": reset(),
    "html": html(),
    "empty": status(200, b"", Content_Type="application/json"),
    "schema 1": status(
        200, b'{"schemaVersion":1}', Content_Type="application/vnd.docker.distribution.manifest.v1+json"
    ),
    "truncated": truncated(b'{"schemaVersion":2,', 4000, Content_Type="application/vnd.oci.image.manifest.v1+json"),
    "wrong digest": status(200, b'{"schemaVersion":2}', Docker_Content_Digest="sha256:" + "0" * 64),
    "endless": endless(Content_Type="application/vnd.oci.image.manifest.v1+json"),
    "partial": status(206, b"{}", Content_Range="bytes 0-1/2"),
    "gzip": status(200, b"{}", Content_Encoding="gzip"),
    "confused": status(
        200,
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"layers":[]}',
        Content_Type="application/vnd.oci.image.index.v1+json",
    ),
}


def message(body: bytes) -> str:
    """Return an error's sentence."""
    return str(orjson.loads(body)["errors"][0]["message"])


@pytest.mark.parametrize("fault", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_no_answer_on_first_sight_is_503(
    origin: Origin, start: StartProxy, rule: dict[str, Any], fault: Fault
) -> None:
    """With nothing to fall back on, a source that gives no answer makes a 503, never a smaller index."""
    push_pair(origin.registry)
    origin.fail(ARM_TAG, fault)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG)

    assert answer.status == 503
    assert "kimoqi/alpine-arm:1.0" in message(answer.body)


@pytest.mark.parametrize("fault", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_nothing_of_a_bad_answer_is_kept(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, fault: Fault
) -> None:
    """After a bad answer the next good one heals: nothing was remembered of the bad one."""
    x86, arm = push_pair(origin.registry)
    origin.fail(ARM_TAG, once(fault))
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    clock.advance(7)  # one of them says when to come back

    answer = await proxy.get(TAG)

    assert [each["digest"] for each in orjson.loads(answer.body)["manifests"]] == [x86.digest, arm.digest]


@pytest.mark.parametrize("fault", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_trouble_never_shrinks_an_index(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, fault: Fault
) -> None:
    """Once served, an index outlives a source that gives no answer, and says that it is stale."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    before = await proxy.get(TAG)
    clock.advance(3600)
    origin.fail("(GET|HEAD) /v2/kimoqi/alpine-arm/manifests", fault)

    answer = await proxy.get(TAG)

    assert (answer.status, answer.body) == (200, before.body)
    assert answer.headers["X-Manifuse-Cache"] == "stale"
    assert answer.headers["Age"] == "3600"
    assert "stale for 3600 s" in answer.headers["Warning"]


async def test_the_last_good_index_ends_with_stale_if_error(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """After `stale_if_error` no answer is a 503 again."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], cache={"stale_if_error": "1h"})
    await proxy.get(TAG)
    clock.advance(3600 + 61)
    origin.fail("kimoqi", status(500))

    assert (await proxy.get(TAG)).status == 503


@pytest.mark.parametrize("code", [401, 403])
async def test_a_refusal_counts_after_stale_if_refused(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, code: int
) -> None:
    """A refused source is held for minutes, then it is a 403: a revoked permission must count."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    origin.fail("kimoqi/alpine-arm", status(code))
    clock.advance(100)
    held = await proxy.get(TAG)
    clock.advance(300)

    with capture_logs() as logs:
        answer = await proxy.get(TAG)

    assert held.headers["X-Manifuse-Cache"] == "stale"
    assert answer.status == 403
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["refused"]
    assert orjson.loads(answer.body)["errors"][0]["code"] == "DENIED"


async def test_a_dead_upstream_is_not_asked_by_everyone(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """A failed check moves the clock, too: within `negative_ttl` nobody else waits for the same failure."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    clock.advance(61)
    origin.fail("kimoqi", status(500))
    await proxy.get(TAG)
    asked = len(origin.requests)

    answers = [await proxy.get(TAG) for _ in range(5)]

    assert {answer.headers["X-Manifuse-Cache"] for answer in answers} == {"stale"}
    assert len(origin.requests) == asked


async def test_only_a_404_removes_an_architecture(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """A source that is gone by the upstream's own word leaves the index."""
    x86, _ = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    clock.advance(61)
    origin.registry.remove(ARM, V1)

    answer = await proxy.get(TAG)

    assert [each["digest"] for each in orjson.loads(answer.body)["manifests"]] == [x86.digest]


async def test_a_deleted_tag_is_gone(origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock) -> None:
    """When every source says 404 the tag is a 404, also within the time that a stale answer would be served."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], cache={"stale_while_revalidate": "1h"})
    await proxy.get(TAG)
    for repository in (X86, ARM):
        origin.registry.remove(repository, V1)
    clock.advance(61)
    stale = await proxy.get(TAG)
    await until(lambda: len(origin.requests) >= 8)

    statuses = {(await proxy.get(TAG)).status for _ in range(3)}

    assert stale.status == 200
    assert 404 in statuses


async def test_a_stale_answer_is_given_at_once_and_refreshed_behind(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """Within `stale_while_revalidate` nobody waits, and the next caller gets the new index."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], cache={"stale_while_revalidate": "1h"})
    before = await proxy.get(TAG)
    changed = push(origin.registry, ARM, "1.0", "linux/arm64", text="rebuilt")
    clock.advance(61)

    stale = await proxy.get(TAG)

    assert (stale.headers["X-Manifuse-Cache"], stale.body) == ("stale", before.body)
    await _served(proxy, changed.digest)


async def _served(proxy: Proxy, digest: Digest) -> None:
    """Wait until the tag's index names *digest*."""

    async def is_served() -> bool:
        return digest.encode() in (await proxy.get(TAG)).body

    await until(is_served)


async def test_an_old_generation_stays_pullable(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """After the tag moved, the digest that was advertised is served still, and its children."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    old = await proxy.get(TAG)
    push(origin.registry, ARM, "1.0", "linux/arm64", text="rebuilt")
    clock.advance(61)
    new = await proxy.get(TAG)

    again = await proxy.get(f"/v2/kimoqi/alpine/manifests/{old.headers['Docker-Content-Digest']}")
    children = [each["digest"] for each in orjson.loads(old.body)["manifests"]]

    assert new.body != old.body
    assert again.body == old.body
    assert [(await proxy.head(f"/v2/kimoqi/alpine/manifests/{child}")).status for child in children] == [200, 200]


async def test_a_restart_forgets_nothing(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A second process on the same folder serves the advertised digest with the upstream down."""
    push_pair(origin.registry)
    first = await (await start(origin, rule=[rule])).get(TAG)
    second = await start(origin, rule=[rule])
    origin.fail("", status(503))

    by_tag = await second.get(TAG)
    by_digest = await second.get(f"/v2/kimoqi/alpine/manifests/{first.headers['Docker-Content-Digest']}")

    assert by_tag.body == by_digest.body == first.body


async def test_two_proxies_agree(origin: Origin, start: StartProxy, rule: dict[str, Any], tmp_path: Path) -> None:
    """Separate caches, the same sources: the same bytes."""
    push_pair(origin.registry)
    proxies = [await start(origin, rule=[rule], cache={"dir": tmp_path / name}) for name in "ab"]

    digests = {(await proxy.get(TAG)).headers["Docker-Content-Digest"] for proxy in proxies}

    assert len(digests) == 1


async def test_another_rule_makes_another_index(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """After the configuration changed, what the old rule made isn't served for the tag."""
    push_pair(origin.registry)
    await (await start(origin, rule=[rule])).get(TAG)
    changed = await start(origin, rule=[{**rule, "sources": rule["sources"][:1]}])

    answer = await changed.get(TAG)

    assert len(orjson.loads(answer.body)["manifests"]) == 1


async def test_a_corrupt_file_is_fetched_again(
    origin: Origin, start: StartProxy, rule: dict[str, Any], tmp_path: Path
) -> None:
    """A kept file that doesn't hash to its name is discarded, and the upstream is asked."""
    x86, _ = push_pair(origin.registry)
    await (await start(origin, rule=[rule])).get(TAG)
    await settled(tmp_path)
    (tmp_path / "cache/content/blobs/sha256" / x86.digest.hex).write_bytes(b"rotten")
    second = await start(origin, rule=[rule])

    answer = await second.get(f"/v2/kimoqi/alpine/manifests/{x86.digest}")

    assert Digest.of(answer.body) == x86.digest


async def test_a_digest_of_another_repository_is_unknown(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Knowing a digest is not a permission: what this name doesn't merge isn't served under it."""
    push_pair(origin.registry)
    secret = push(origin.registry, "private/vault", "1.0")
    proxy = await start(origin, rule=[rule])
    await proxy.get("/v2/private/vault/manifests/1.0")

    answer = await proxy.get(f"/v2/kimoqi/alpine/manifests/{secret.digest}")

    assert answer.status == 404
    assert orjson.loads(answer.body)["errors"][0]["code"] == "MANIFEST_UNKNOWN"


async def test_an_unknown_digest_is_looked_for_in_every_source(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """A digest never seen is looked for in all sources of the name, and its place is learned."""
    _, arm = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    path = f"/v2/kimoqi/alpine/manifests/{arm.digest}"

    first = await proxy.get(path)
    asked = len(origin.requests)
    second = await proxy.get(path)

    assert (first.status, second.status) == (200, 200)
    assert len(origin.requests) == asked


async def test_a_source_that_advertises_a_missing_child_is_no_answer(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """No index is made of children that can't be pulled."""
    image = push(origin.registry, X86, "inner", "linux/amd64")
    push_index(origin.registry, X86, "1.0", [{**entry(image, "linux/amd64"), "digest": "sha256:" + "1" * 64}])
    push(origin.registry, ARM, platform="linux/arm64")
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG)

    assert answer.status == 503
    assert "broken" in message(answer.body)


async def test_headers_come_within_the_budget(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """An upstream that hangs costs the client the budget, and the answer is a 503."""
    push_pair(origin.registry)
    origin.fail(ARM_TAG, hang())
    proxy = await start(origin, rule=[rule], request_budget="200ms")

    answer = await proxy.get(TAG)

    assert answer.status == 503
    assert "within 0.2 s" in message(answer.body)


async def test_over_budget_the_last_good_index_is_served(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """When the budget ends, what was good before is better than nothing."""
    push_pair(origin.registry)
    before = await (await start(origin, rule=[rule])).get(TAG)
    hurried = await start(origin, rule=[rule], request_budget="200ms")
    clock.advance(61)
    origin.fail("alpine-arm", hang())

    answer = await hurried.get(TAG)

    assert answer.body == before.body
    assert answer.headers["X-Manifuse-Cache"] == "stale"


@pytest.mark.parametrize("base_status", [401, 403])
async def test_a_refused_virtual_name_is_no_obstacle(
    origin: Origin, start: StartProxy, rule: dict[str, Any], base_status: int
) -> None:
    """Registries that refuse what doesn't exist refuse the virtual name: the sources are merged all the same."""
    push_pair(origin.registry)
    origin.fail("HEAD /v2/kimoqi/alpine/manifests", status(base_status))
    proxy = await start(origin, rule=[rule])

    assert (await proxy.get(TAG)).status == 200


async def test_statuses_can_mean_missing(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Where the operator says so, a 401 is an authoritative no, as Docker Hub means it."""
    push(origin.registry, X86, platform="linux/amd64")
    origin.fail("alpine-arm", status(401))
    proxy = await start(origin, rule=[rule], upstream={"missing_status": [401]})

    answer = await proxy.get(TAG)

    assert len(orjson.loads(answer.body)["manifests"]) == 1


async def test_retry_after_is_passed_on(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """What an upstream says about when to come back reaches the client."""
    push_pair(origin.registry)
    origin.fail(ARM_TAG, status(429, b"", Retry_After="17"))
    proxy = await start(origin, rule=[rule])

    assert (await proxy.get(TAG)).headers["Retry-After"] == "17"


async def test_a_client_without_indexes_gets_one_child(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A client that accepts single images alone gets the default platform's child, HEAD and GET alike."""
    x86, _ = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    narrow = "application/vnd.docker.distribution.manifest.v2+json"

    answers = [await proxy.get(TAG, method, Accept=narrow) for method in ("GET", "HEAD")]

    assert [answer.headers["Docker-Content-Digest"] for answer in answers] == [x86.digest] * 2


@pytest.mark.parametrize("accept", ["*/*", "application/vnd.oci.image.index.v1+json", "application/json", None])
async def test_everyone_else_gets_the_index(
    origin: Origin, start: StartProxy, rule: dict[str, Any], accept: str | None
) -> None:
    """Any index type, a wildcard or no Accept at all gets the index, whose type follows its children."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(TAG, **({"Accept": accept} if accept else {}))

    assert answer.headers["Content-Type"] == "application/vnd.docker.distribution.manifest.list.v2+json"


async def test_explain_tells_the_whole_story(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """`/explain` names the rule, every source with what came of it, and the decision."""
    push(origin.registry, X86, platform="linux/amd64")
    origin.fail(ARM_TAG, status(500))
    proxy = await start(origin, rule=[rule])

    explanation = orjson.loads((await proxy.page("/explain/kimoqi/alpine:1.0")).body)

    results = {q["source"]: q["result"] for q in explanation["questions"]}
    assert results == {
        "origin0/kimoqi/alpine-x86:1.0": "found",
        "origin0/kimoqi/alpine-arm:1.0": "no answer",
        "origin0/kimoqi/alpine:1.0": "absent",
    }
    assert (explanation["verdict"], explanation["rule"]) == ("refuse", "rule[0]")


async def test_the_virtual_name_as_seen_by_everyone(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """HEAD says what GET says, header for header (law 6)."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])

    get, head = await proxy.get(TAG), await proxy.head(TAG)

    names = ("Content-Type", "Content-Length", "Docker-Content-Digest", "ETag", "Vary")
    assert {name: get.headers[name] for name in names} == {name: head.headers[name] for name in names}
    assert get.headers["Docker-Content-Digest"] == Digest.of(get.body)
    assert get.headers["ETag"] == f'"{Digest.of(get.body)}"'
    assert head.body == b""


async def test_a_no_that_is_remembered_keeps_no_request(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Ten thousand are remembered, and a request may have 64 KB."""
    proxy = await start(origin, rule=[rule])
    marks = [f"mark {n}" for n in range(3)]
    for mark in marks:
        answer = await proxy.get(f"/v2/kimoqi/alpine/manifests/{mark[-1]}", X_Mark=mark)
        assert answer.status == 404
    await proxy.get("/v2/")
    gc.collect()
    requests = [each for each in gc.get_objects() if isinstance(each, web.BaseRequest)]
    assert not {each.headers.get("X-Mark") for each in requests} & set(marks)


async def test_an_index_of_ours_costs_no_question_though_its_children_are_lost(
    origin: Origin, start: StartProxy, rule: dict[str, Any], tmp_path: Path
) -> None:
    """Where all see the same, nobody has to know whose the children are before the index is answered."""
    push_pair(origin.registry)
    first = await start(origin, rule=[rule])
    digest = (await first.get(TAG)).headers["Docker-Content-Digest"]
    await settled(tmp_path)
    for path in (tmp_path / "cache" / "locations").iterdir():
        if orjson.loads(path.read_bytes())["upstream"]:
            path.unlink()
    second = await start(origin, rule=[rule])
    origin.requests.clear()
    assert (await second.get(TAG.replace("1.0", digest))).status == 200
    assert origin.asked == []
