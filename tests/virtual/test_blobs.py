"""Blobs under the virtual name, through the whole service."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import aiohttp.web
import orjson
import pytest
from multidict import CIMultiDict

from conftest import Proxy, StartProxy
from images import VIRTUAL, X86, push, push_pair
from proxy.oci.reference import Digest, Repository
from scripted import Origin, html, once, running, status, truncated
from virtual.bigblob import BIG, arrives, blob_path

TAG = "/v2/kimoqi/alpine/manifests/1.0"


async def test_blobs_come_from_the_source_that_owns_them(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """After its manifest passed by, a layer is asked of its own source alone."""
    _, arm = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    manifest = await proxy.get(f"/v2/kimoqi/alpine/manifests/{arm.digest}")
    layer = orjson.loads(manifest.body)["layers"][0]
    origin.requests.clear()

    answer = await proxy.get(blob_path(layer["digest"]))

    assert Digest.of(answer.body) == layer["digest"]
    assert len(answer.body) == layer["size"] == int(answer.headers["Content-Length"])
    assert origin.asked == [f"GET kimoqi/alpine-arm/blobs/{layer['digest']}"]


async def test_an_unknown_blob_is_looked_for_in_every_source(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """A blob never seen costs one HEAD per source, once."""
    proxy = await start(origin, rule=[rule])

    answers = [await proxy.get(blob_path(big)) for _ in range(2)]

    assert [answer.body == BIG for answer in answers] == [True, True]
    assert sum(asked.startswith("HEAD") for asked in origin.asked) == 3


async def test_what_was_learned_hides_no_blob(origin: Origin, start: StartProxy) -> None:
    """What other tags have shown of the names says where to look first, and not where to stop."""
    push_pair(origin.registry)
    digest = origin.registry.add_blob(Repository(f"{VIRTUAL}-aarch64"), BIG)
    proxy = await start(origin)
    await proxy.get(TAG)

    assert (await proxy.get(blob_path(digest))).body == BIG
    assert (await proxy.get(blob_path(Digest.of(b"nowhere")))).status == 404


async def test_head_is_exact(origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest) -> None:
    """HEAD of a blob has the size and digest of GET, and no body."""
    proxy = await start(origin, rule=[rule])

    answer = await proxy.head(blob_path(big))

    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(BIG))
    assert answer.headers["Docker-Content-Digest"] == big


@pytest.mark.parametrize("ranges", [True, False])
async def test_head_is_exact_where_the_upstream_is_not(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, ranges: bool
) -> None:
    """When HEAD upstream says no length, one byte is asked for to learn it."""

    async def silent(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        response = aiohttp.web.StreamResponse(headers={"Transfer-Encoding": "chunked"})
        await response.prepare(request)
        return response

    proxy = await start(origin, rule=[rule])
    await proxy.head(blob_path(big))
    origin.fail("HEAD .*/blobs/", silent)
    if not ranges:
        origin.fail("GET .*/blobs/", status(200, BIG))

    answer = await proxy.head(blob_path(big))

    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, str(len(BIG)), b"")
    assert [request.headers["Range"] for request in origin.requests if request.method == "GET"] == ["bytes=0-0"]


async def test_a_blob_of_another_repository_is_unknown(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """What no source of this name has isn't served under it, whoever else has it."""
    secret = origin.registry.add_blob(Repository("private/vault"), b"secret")
    proxy = await start(origin, rule=[rule])
    await proxy.get(f"/v2/private/vault/blobs/{secret}")

    answer = await proxy.get(blob_path(secret))

    assert answer.status == 404
    assert orjson.loads(answer.body)["errors"][0]["code"] == "BLOB_UNKNOWN"


@pytest.mark.parametrize(
    ("header", "expected", "content_range"),
    [
        ("bytes=0-9", BIG[:10], "bytes 0-9/1600000"),
        ("bytes=100-", BIG[100:], "bytes 100-1599999/1600000"),
        ("bytes=-16", BIG[-16:], "bytes 1599984-1599999/1600000"),
        ("bytes=1599990-9999999", BIG[1599990:], "bytes 1599990-1599999/1600000"),
    ],
)
async def test_a_single_range_is_passed_on(
    origin: Origin,
    start: StartProxy,
    rule: dict[str, Any],
    big: Digest,
    header: str,
    expected: bytes,
    content_range: str,
) -> None:
    """One range of bytes is a 206 with exactly these bytes."""
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(blob_path(big), Range=header)

    assert (answer.status, answer.headers["Content-Range"]) == (206, content_range)
    assert answer.body == expected


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "lines=1-2", "bytes=x"])
async def test_other_ranges_get_the_whole_blob(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, header: str
) -> None:
    """Several ranges, or none that can be read, are answered with a full 200."""
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(blob_path(big), Range=header)

    assert (answer.status, answer.body == BIG) == (200, True)


async def test_a_range_behind_the_end_is_416(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """A range that starts behind the end says how long the blob is."""
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(blob_path(big), Range="bytes=1600000-")

    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */1600000")


@pytest.mark.parametrize("header", ["bytes=500-0", "bytes=-0"])
async def test_a_range_of_no_bytes_is_416(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, header: str
) -> None:
    """A range that no blob could have is refused with the blob's size, without fetching anything."""
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(blob_path(big), Range=header)

    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */1600000")
    assert not [asked for asked in origin.asked if asked.startswith("GET")]


async def test_a_range_of_a_blob_that_does_not_exist_is_404(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Whether the range makes sense is only said of what is there."""
    proxy = await start(origin, rule=[rule])

    assert (await proxy.get(blob_path(Digest.of(b"nowhere")), Range="bytes=500-0")).status == 404


async def test_a_range_counts_for_its_own_bytes(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """`If-Range` with our `ETag` lets the range count; with anything else the answer is the whole blob."""
    proxy = await start(origin, rule=[rule])

    same = await proxy.get(blob_path(big), Range="bytes=0-9", If_Range=f'"{big}"')
    other = await proxy.get(blob_path(big), Range="bytes=0-9", If_Range="Wed, 21 Oct 2015 07:28:00 GMT")

    assert (same.status, same.body) == (206, BIG[:10])
    assert (other.status, other.body == BIG) == (200, True)


async def test_range_is_ignored_on_head(origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest) -> None:
    """HEAD speaks of the whole blob, whatever range it names."""
    proxy = await start(origin, rule=[rule])

    for header in ("bytes=0-9", "bytes=500-0", "bytes=99999999-"):
        answer = await proxy.head(blob_path(big), Range=header)
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(BIG)))


async def test_a_blob_that_the_client_has_is_304(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """`If-None-Match` with the blob's digest needs no bytes, but it doesn't make up a blob."""
    proxy = await start(origin, rule=[rule])

    for method in ("GET", "HEAD"):
        known = await proxy.get(blob_path(big), method, If_None_Match=f'"{big}"')
        assert (known.status, known.body, known.headers["ETag"]) == (304, b"", f'"{big}"')
        assert "Content-Length" not in known.headers
        assert (await proxy.get(blob_path(big), method, If_None_Match='"sha256:other"')).status == 200
        nowhere = Digest.of(b"nowhere")
        assert (await proxy.get(blob_path(nowhere), method, If_None_Match="*")).status == 404


@pytest.mark.parametrize(
    "fault",
    [
        status(200, BIG[:-1] + b"X", Content_Type="application/octet-stream"),
        truncated(BIG[:1_500_000], len(BIG)),
    ],
    ids=["wrong last byte", "truncated"],
)
async def test_a_wrong_blob_never_ends_cleanly(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, fault: Any
) -> None:
    """A blob that turns out wrong breaks the connection: the client can't take it for whole."""
    proxy = await start(origin, rule=[rule])
    origin.fail("GET .*/blobs/", fault)

    with pytest.raises(aiohttp.ClientError):
        await proxy.get(blob_path(big))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(truncated(BIG[:1000], len(BIG)), 503), (status(200, b"short"), 502), (html(), 502)],
    ids=["truncated", "another blob", "html"],
)
async def test_a_small_wrong_blob_is_an_error(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, fault: Any, expected: int
) -> None:
    """What is seen to be wrong before the first chunk left is an error in words."""
    proxy = await start(origin, rule=[rule])
    origin.fail("GET .*/blobs/", fault)

    assert (await proxy.get(blob_path(big))).status == expected


async def test_a_broken_transfer_is_resumed(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """When the upstream breaks off in the middle, the rest is asked for and the client doesn't notice."""
    proxy = await start(origin, rule=[rule])
    origin.fail("GET .*/blobs/", once(truncated(BIG[:900_000], len(BIG))))

    answer = await proxy.get(blob_path(big))

    resumed = [request.headers["Range"] for request in origin.requests if "Range" in request.headers]
    assert answer.body == BIG
    assert resumed == ["bytes=900000-1599999"]


@pytest.mark.parametrize("code", [500, 429, 403])
async def test_an_error_before_the_first_byte_is_an_error(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, code: int
) -> None:
    """What goes wrong before the headers is told in words, with the right status."""
    proxy = await start(origin, rule=[rule])
    origin.fail("GET .*/blobs/", status(code, b"<html>"))

    answer = await proxy.get(blob_path(big))

    assert answer.status == (403 if code == 403 else 503)
    assert answer.headers["Content-Type"] == "application/json"


async def test_redirects_are_followed_inside(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """The client gets the bytes where the upstream sends us elsewhere, and the credential stays behind."""
    elsewhere = Origin()
    elsewhere.fail("/signed", status(200, BIG))
    async with running(elsewhere):
        location = f"{elsewhere.url}/signed/a%2Fb?X-Signature=a%2Fb%7E"
        origin.fail("GET .*/blobs/", status(307, Location=location))
        credentials = {"username": "me", "password": "secret"}
        proxy = await start(origin, rule=[rule], upstream={"credentials": credentials})

        answer = await proxy.get(blob_path(big))

    (asked,) = elsewhere.requests
    assert answer.body == BIG
    assert (asked.path, asked.query) == ("/signed/a%2Fb", "X-Signature=a%2Fb%7E")
    assert "Authorization" not in asked.headers


async def test_a_blob_that_moved_is_found_again(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """When the learned source has lost a blob, the others are asked."""
    proxy = await start(origin, rule=[rule])
    await proxy.get(blob_path(big))
    origin.fail("/v2/kimoqi/alpine-arm/blobs/", status(404))
    origin.registry.add_blob(X86, BIG)

    assert (await proxy.get(blob_path(big))).body == BIG


async def test_an_empty_blob(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A blob of no bytes is a whole blob."""
    empty = origin.registry.add_blob(VIRTUAL, b"")
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(blob_path(empty))

    assert (answer.status, answer.body) == (200, b"")


async def test_blobs_flow_while_they_come(origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest) -> None:
    """The first bytes reach the client before the upstream has sent the last."""
    gate = asyncio.Event()
    origin.fail("GET .*/blobs/", arrives(gate))
    proxy = await start(origin, rule=[rule])

    assert await _first_and_rest(proxy, big, gate) == BIG


async def test_a_client_that_does_not_read_stops_the_upstream(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """Nothing is read ahead but what fits into buffers: neither memory nor bandwidth goes to who doesn't take it."""
    piece, sent = bytes(1 << 20), list[int]()

    async def endless(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        response = aiohttp.web.StreamResponse(headers=CIMultiDict({"Content-Length": str(len(piece) << 10)}))
        await response.prepare(request)
        while len(sent) < 1 << 10:
            await response.write(piece)
            sent.append(len(piece))
        return response

    origin.fail("GET .*/blobs/", endless)
    proxy = await start(origin, rule=[rule])
    async with proxy.session.get(proxy.url + blob_path(big)) as response:
        await response.content.readexactly(1000)
        before = -1
        while before < len(sent) < 1 << 10:
            before = len(sent)
            await asyncio.sleep(0.2)
        response.close()

    assert len(sent) < 100


async def _first_and_rest(proxy: Proxy, digest: Digest, gate: asyncio.Event) -> bytes:
    """Read something, only then let the upstream finish, and read the rest."""
    async with proxy.session.get(proxy.url + blob_path(digest)) as response:
        first = await response.content.readexactly(1000)
        gate.set()
        return first + await response.content.read()


async def test_a_plain_push_is_served_to_pull_by_name(origin: Origin, start: StartProxy) -> None:
    """Without any rule a plain image's layers are served under its own name."""
    pushed = push(origin.registry, "team/tool")
    proxy = await start(origin)
    manifest = await proxy.get(f"/v2/team/tool/manifests/{pushed.digest}")
    layer = orjson.loads(manifest.body)["layers"][0]["digest"]

    answer = await proxy.get(f"/v2/team/tool/blobs/{layer}")

    assert Digest.of(answer.body) == layer
