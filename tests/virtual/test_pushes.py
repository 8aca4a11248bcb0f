"""Pushes through the whole service: streamed to the upstream, and seen at once."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pytest

from conftest import Answer, Clock, Proxy, StartProxy
from images import ARM, X86, entry, push, push_index, push_pair
from proxy.oci import mediatype
from proxy.oci.reference import Digest, Repository
from scripted import Origin, status
from virtual.pushing import OPEN, VIRTUAL_TAG, Pusher, manifest


def platforms(answer: Answer) -> list[str]:
    """Return the architectures of an index."""
    return [entry["platform"]["architecture"] for entry in orjson.loads(answer.body)["manifests"]]


async def test_what_is_pushed_is_merged_at_once(pusher: Pusher) -> None:
    """`docker push …-x86`, `docker push …-arm`, `docker pull …`: every pull sees what was pushed before it."""
    seen = []
    for repository, architecture in ((X86, "amd64"), (ARM, "arm64")):
        pushed = await pusher.image(repository, "1.0", architecture)
        seen.append(platforms(await pusher.proxy.get(VIRTUAL_TAG)))
        assert pushed.status == 201

    assert seen == [["amd64"], ["amd64", "arm64"]]


async def test_a_rebuild_is_seen_at_once(origin: Origin, pusher: Pusher) -> None:
    """A fresh entry doesn't outlive a push to one of its sources."""
    push_pair(origin.registry)
    before = await pusher.proxy.get(VIRTUAL_TAG)
    await pusher.image(ARM, "1.0", "arm64", "rebuilt")

    after = await pusher.proxy.get(VIRTUAL_TAG)

    assert platforms(before) == platforms(after) == ["amd64", "arm64"]
    assert before.body != after.body


async def test_a_push_to_another_tag_costs_this_one_nothing(origin: Origin, pusher: Pusher, clock: Clock) -> None:
    """Only the tags that a push belongs to are asked for anew."""
    push_pair(origin.registry)
    await pusher.proxy.get(VIRTUAL_TAG)
    await pusher.image(ARM, "2.0", "arm64")
    origin.requests.clear()

    answer = await pusher.proxy.get(VIRTUAL_TAG)

    assert answer.headers["X-Manifuse-Cache"] == "hit"
    assert origin.requests == []


async def test_trouble_after_a_push_serves_the_last_good_index(origin: Origin, pusher: Pusher) -> None:
    """The new index can't be made while the registry fails: the last one is better than none (law 4)."""
    push_pair(origin.registry)
    before = await pusher.proxy.get(VIRTUAL_TAG)
    await pusher.image(ARM, "1.0", "arm64", "rebuilt")
    origin.fail("(HEAD|GET) ", status(503))

    during = await pusher.proxy.get(VIRTUAL_TAG)

    assert during.body == before.body
    assert during.headers["X-Manifuse-Cache"] == "stale"


async def test_pushes_are_off_unless_allowed(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Without `push = true` nothing is written and nobody upstream hears of it."""
    pusher = Pusher(await start(origin, rule=[rule]))
    digest = Digest.of(b"")
    answers = [
        await pusher.begin(ARM),
        await pusher.send("GET", f"/v2/{ARM}/blobs/uploads/1"),
        await pusher.send("PATCH", f"/v2/{ARM}/blobs/uploads/1", b"data"),
        await pusher.put(ARM, "1.0", b"{}"),
        await pusher.send("DELETE", f"/v2/{ARM}/manifests/1.0"),
        await pusher.send("DELETE", f"/v2/{ARM}/blobs/{digest}"),
    ]

    assert [(a.status, orjson.loads(a.body)["errors"][0]["code"]) for a in answers] == [(405, "UNSUPPORTED")] * 6
    assert {a.headers["Allow"] for a in answers} == {"GET, HEAD"}
    assert origin.requests == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", f"/v2/{ARM}/manifests/1.0", "GET, HEAD, PUT, DELETE"),
        ("PUT", f"/v2/{ARM}/blobs/{Digest.of(b'')}", "GET, HEAD, DELETE"),
        ("PUT", f"/v2/{ARM}/blobs/uploads/", "POST"),
        ("POST", f"/v2/{ARM}/blobs/uploads/1", "GET, PATCH, PUT, DELETE"),
        ("DELETE", f"/v2/{ARM}/tags/list", "GET, HEAD"),
        ("OPTIONS", f"/v2/{ARM}/manifests/1.0", "GET, HEAD"),
    ],
)
async def test_other_methods_are_not_allowed(
    origin: Origin, pusher: Pusher, method: str, path: str, allowed: str
) -> None:
    """What writes nothing is 405 with what would, and isn't passed on; no header overrides the method (S11)."""
    answer = await pusher.send(method, path, X_HTTP_Method_Override="PUT")

    assert (answer.status, answer.headers["Allow"]) == (405, allowed)
    assert origin.requests == []


async def test_what_clients_were_told_is_there_is_brought_along(origin: Origin, pusher: Pusher) -> None:
    """An image pushed to the virtual name, whose layers only a source has: HEAD said they are there."""
    _, arm = push_pair(origin.registry)
    await pusher.proxy.get(VIRTUAL_TAG)
    body = (await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{arm.digest}")).body

    pushed = await pusher.put("kimoqi/alpine", "copy", body, mediatype.DOCKER_MANIFEST)

    assert pushed.status == 201
    assert (await pusher.proxy.get("/v2/kimoqi/alpine/manifests/copy")).body == body


async def test_an_index_of_children_that_sources_have(origin: Origin, pusher: Pusher) -> None:
    """The merged index can be pushed to its own name: its children come along, the bytes stay."""
    push_pair(origin.registry)
    index = await pusher.proxy.get(VIRTUAL_TAG)

    pushed = await pusher.put("kimoqi/alpine", "frozen", index.body, index.headers["Content-Type"])
    frozen = await pusher.proxy.get("/v2/kimoqi/alpine/manifests/frozen")

    assert pushed.status == 201
    assert frozen.body == index.body
    assert pushed.headers["Docker-Content-Digest"] == index.headers["Docker-Content-Digest"]


async def nested(origin: Origin, pusher: Pusher, depth: int, times: int) -> bytes:
    """Return an index of indexes, each of which names the next one so many *times*, as clients know them by digest."""
    _, child = push_pair(origin.registry)
    for _ in range(depth):
        await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{child.digest}")
        child = push_index(origin.registry, ARM, None, [entry(child, "linux/arm64")] * times)
    return (await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{child.digest}")).body


async def test_what_is_named_again_and_again_is_brought_along_once(origin: Origin, pusher: Pusher) -> None:
    """Three indexes that name the next one a thousand times each would be a push that never ends."""
    body = await nested(origin, pusher, depth=3, times=4)
    origin.requests.clear()

    pushed = await pusher.put("kimoqi/alpine", "copy", body, mediatype.OCI_INDEX)

    assert pushed.status == 201
    written = [request.path for request in origin.requests if request.method == "PUT" and "/manifests/" in request.path]
    assert len(written) == len(set(written)) + 1 == 5, "what was pushed comes twice"


async def test_indexes_too_deep_are_the_registrys_to_refuse(origin: Origin, pusher: Pusher) -> None:
    """Nobody follows them for ever."""
    body = await nested(origin, pusher, depth=6, times=1)

    answer = await pusher.put("kimoqi/alpine", "copy", body, mediatype.OCI_INDEX)

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")


async def test_a_manifest_with_unknown_parts_is_the_registrys_to_refuse(pusher: Pusher) -> None:
    """What nobody has can't be brought along."""
    body = manifest(Digest.of(b"config"), 6, Digest.of(b"layer"), b"layer")

    answer = await pusher.put(ARM, "1.0", body)

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")


async def test_a_manifest_of_5_mb_is_too_large(origin: Origin, pusher: Pusher) -> None:
    """The interoperable limit holds for what is pushed, too."""
    answer = await pusher.put(ARM, "1.0", io.BytesIO(b" " * (5 << 20)))

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (413, "SIZE_INVALID")
    assert origin.requests == []


async def test_a_deleted_tag_is_gone_at_once(origin: Origin, pusher: Pusher) -> None:
    """Deleting a source's tag takes its architecture out of the index; deleting the last one, the index."""
    push_pair(origin.registry)
    seen = [platforms(await pusher.proxy.get(VIRTUAL_TAG))]
    for repository in (ARM, X86):
        deleted = await pusher.send("DELETE", f"/v2/{repository}/manifests/1.0")
        answer = await pusher.proxy.get(VIRTUAL_TAG)
        seen.append(platforms(answer) if answer.status == 200 else [str(answer.status)])
        assert deleted.status == 202

    assert seen == [["amd64", "arm64"], ["amd64"], ["404"]]


async def test_a_deleted_digest_takes_its_tags_along(origin: Origin, pusher: Pusher) -> None:
    """Nobody says which tags a deleted manifest had: all that the repository is part of are asked for anew."""
    _, arm = push_pair(origin.registry)
    await pusher.proxy.get(VIRTUAL_TAG)
    direct = f"/v2/{ARM}/manifests/{arm.digest}"
    before = await pusher.proxy.get(direct)
    deleted = await pusher.send("DELETE", direct)
    after = [await pusher.proxy.get(path) for path in (direct, f"/v2/{ARM}/manifests/1.0")]

    assert (before.status, deleted.status, [a.status for a in after]) == (200, 202, [404, 404])
    assert platforms(await pusher.proxy.get(VIRTUAL_TAG)) == ["amd64"]


async def test_a_deleted_blob_is_gone(origin: Origin, pusher: Pusher) -> None:
    """Also one whose place was known."""
    digest = await pusher.blob(ARM, b"data")
    path = f"/v2/{ARM}/blobs/{digest}"
    statuses = [(await pusher.proxy.get(path)).status]
    statuses += [(await pusher.send("DELETE", path)).status, (await pusher.proxy.get(path)).status]

    assert statuses == [200, 202, 404]


async def test_an_upstream_that_is_down_is_503(origin: Origin, pusher: Pusher) -> None:
    """No answer to a push is no answer, said as such."""
    origin.fail("POST ", status(500))

    answer = await pusher.begin(ARM)

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (503, "UNAVAILABLE")


async def test_locations_keep_the_way_of_addressing(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A prefix and `?ns=` of the request are in the Location, or the next request would go to another registry."""
    pusher = Pusher(
        await start(origin, rule=[rule], upstream={"push": True, "aliases": ["registry.example:5000", "elsewhere"]})
    )
    by_prefix = await pusher.send("POST", f"/registry.example:5000/v2/{ARM}/blobs/uploads/")
    by_component = await pusher.send("POST", f"/v2/elsewhere/{ARM}/blobs/uploads/")
    by_namespace = await pusher.send("POST", f"/v2/{ARM}/blobs/uploads/?ns=registry.example%3A5000")
    done = [
        await pusher.send("PUT", f"{begun.headers['Location']}&digest={Digest.of(b'data')}", b"data")
        for begun in (by_prefix, by_component, by_namespace)
    ]

    assert by_prefix.headers["Location"].startswith(f"/registry.example:5000/v2/{ARM}/")
    assert by_component.headers["Location"].startswith(f"/v2/elsewhere/{ARM}/")
    assert by_namespace.headers["Location"].endswith("&ns=registry.example%3A5000")
    assert [answer.status for answer in done] == [201, 201, 201]
    assert not [request for request in origin.requests if "ns=" in request.query]


async def test_a_push_to_another_registrys_source_is_seen_too(
    origin: Origin, other: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """A source on another upstream is part of the virtual name, whichever of them is pushed to."""
    rule["sources"][1] |= {"upstream": "origin1"}
    push(origin.registry, X86, "1.0", "linux/amd64")
    pusher = Pusher(await start(origin, other, rule=[rule], upstream=OPEN))
    before = platforms(await pusher.proxy.get(VIRTUAL_TAG))
    await pusher.image(f"origin1/{ARM}", "1.0", "arm64")

    assert (before, platforms(await pusher.proxy.get(VIRTUAL_TAG))) == (["amd64"], ["amd64", "arm64"])
    assert Repository("kimoqi/alpine-arm") == ARM


async def names(proxy: Proxy, path: str) -> list[str]:
    """Return what a list holds."""
    document = orjson.loads((await proxy.get(path)).body)
    found: list[str] = document.get("tags", document.get("repositories"))
    return found


async def test_a_push_shows_in_lists_at_once(pusher: Pusher) -> None:
    """A source's new tag is in the list of its virtual name, and a new repository in the catalog."""
    tags, catalog = "/v2/kimoqi/alpine/tags/list", "/v2/_catalog"
    await pusher.image(X86, "1.0", "amd64")
    before = await names(pusher.proxy, tags), await names(pusher.proxy, catalog)
    await pusher.image(ARM, "2.0", "arm64")
    await pusher.image("other/tool", "1.0", "arm64")

    assert before == (["1.0"], ["kimoqi/alpine", X86])
    assert await names(pusher.proxy, tags) == ["1.0", "2.0"]
    assert await names(pusher.proxy, catalog) == ["kimoqi/alpine", ARM, X86, "other/tool"]
