"""The five reads over HTTP: what is asked, what is believed, and what every failure is called."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from aiohttp import web
from yarl import URL

from conftest import until
from images import V1, VIRTUAL, X86, push, push_index
from proxy.oci import mediatype
from proxy.oci.byterange import ByteRange, Nothing, Part, SuffixRange, Whole
from proxy.oci.content import Blob, Descriptor, Manifest, Resolved
from proxy.oci.errors import (
    BadAnswer,
    BlobUnknown,
    ManifestUnknown,
    NameUnknown,
    NoAnswer,
    NotFound,
    Overloaded,
    RangeInvalid,
    Refused,
    RegistryError,
    TimedOut,
    Unreachable,
)
from proxy.oci.mediatype import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from proxy.oci.reference import Digest, Repository, Tag
from proxy.oci.referrers import render
from proxy.telemetry import Metrics
from proxy.upstream.auth import Authorizer
from proxy.upstream.client import Upstream
from proxy.upstream.transport import Limits, Transport
from scripted import Fault, Origin, endless, hang, html, once, reset, status, truncated
from upstream.peers import ALICE, BOB, Connect, basic_door, drips, sent

Read = Callable[[Upstream], Awaitable[object]]

OTHER = Digest.of(b"something else")
DATA = bytes(range(256)) * 4096  # 1 MiB
BLOB = Digest.of(DATA)
CONFIG = {"mediaType": mediatype.DOCKER_CONFIG, "size": 2, "digest": Digest.of(b"{}")}
BODY = b'{"schemaVersion":2,"mediaType":"%s","config":%s}' % (DOCKER_MANIFEST.encode(), json.dumps(CONFIG).encode())


def bad(body: bytes, content_type: str = DOCKER_MANIFEST, code: int = 200, **headers: str) -> Fault:
    """Answer something that can't be used."""
    return status(code, body, Content_Type=content_type, **headers)


def manifest(**fields: object) -> bytes:
    """Write a manifest of *fields*."""
    return json.dumps({"schemaVersion": 2, **fields}).encode()


async def a_blob(upstream: Upstream, part: Part | None = None) -> bytes:
    """Return the bytes of `BLOB`, or a part of them."""
    async with upstream.blob(X86, BLOB, part or Whole()) as blob:
        return b"".join([chunk async for chunk in blob.chunks])


async def a_part(upstream: Upstream, part: Part) -> tuple[Blob, bytes]:
    """Return a part of `BLOB`, and its bytes."""
    async with upstream.blob(X86, BLOB, part) as blob:
        return blob, b"".join([chunk async for chunk in blob.chunks])


async def a_head(upstream: Upstream) -> Blob:
    """Return what HEAD says of `BLOB`."""
    async with upstream.blob(X86, BLOB, Nothing()) as blob:
        return blob


READS: dict[str, Read] = {
    "resolve": lambda upstream: upstream.resolve(X86, V1),
    "manifest": lambda upstream: upstream.manifest(X86, V1),
    "blob": a_blob,
    "blob HEAD": a_head,
    "tags": lambda upstream: upstream.tags(X86, None, ""),
}
read_by_each = pytest.mark.parametrize("read", READS.values(), ids=READS)


# What is asked


async def test_every_kind_of_manifest_is_accepted(origin: Origin, connect: Connect) -> None:
    """Upstreams are asked for everything: ghcr.io, Docker Hub and Harbor answer 404 to a partial list."""
    push(origin.registry, X86)
    upstream = await connect(origin)
    await upstream.resolve(X86, V1)
    await upstream.manifest(X86, V1)

    for request in origin.requests:
        accepted = {kind.strip() for kind in request.headers["Accept"].split(",")}
        assert accepted >= {OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, "*/*"}
        assert request.headers["Accept-Encoding"] == "identity"
        assert "Cookie" not in request.headers


async def test_an_upstream_may_live_below_a_path(origin: Origin, connect: Connect) -> None:
    """An URL with a path, as artifact managers have, stands in front of `/v2/`."""
    upstream = await connect(origin, path="/artifacts/docker/")

    with pytest.raises(ManifestUnknown):
        await upstream.resolve(X86, V1)
    assert [request.path for request in origin.requests] == ["/artifacts/docker/v2/kimoqi/alpine-x86/manifests/1.0"]


@pytest.mark.parametrize(
    ("url", "asked", "remote"),
    [
        ("https://registry-1.docker.io", "alpine", "library/alpine"),
        ("https://docker.io", "alpine", "library/alpine"),
        ("https://registry-1.docker.io", "kimoqi/alpine", "kimoqi/alpine"),
        ("https://registry.example.com", "alpine", "alpine"),
    ],
)
def test_docker_hub_keeps_official_images_under_library(url: str, asked: str, remote: str) -> None:
    """Docker Hub alone puts `library/` in front of a single word."""
    transport = Transport("hub", URL(url), Limits(), Metrics())
    upstream = Upstream(transport, Authorizer(transport, None, (), lambda: 0.0))

    assert upstream._asker.remote(Repository(asked)) == remote


# Resolving


async def test_resolving_costs_one_head(origin: Origin, connect: Connect) -> None:
    """A HEAD that says digest, length and type is enough."""
    pushed = push(origin.registry, X86)
    upstream = await connect(origin)

    found = await upstream.resolve(X86, V1)

    assert found.descriptor == pushed
    assert origin.asked == ["HEAD kimoqi/alpine-x86/manifests/1.0"]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(status(200, BODY, Content_Type=DOCKER_MANIFEST), id="no digest"),
        pytest.param(status(200, BODY, Content_Type=DOCKER_MANIFEST, Docker_Content_Digest="md5:1"), id="bad digest"),
        pytest.param(status(200, Content_Type=DOCKER_MANIFEST, Docker_Content_Digest=OTHER), id="no length"),
        pytest.param(status(200, BODY, Docker_Content_Digest=OTHER), id="no type"),
        pytest.param(status(200, BODY, Content_Type="text/html", Docker_Content_Digest=OTHER), id="other type"),
        pytest.param(status(405, Allow="GET"), id="405"),
    ],
)
async def test_a_head_that_says_too_little_is_followed_by_a_get(origin: Origin, connect: Connect, fault: Fault) -> None:
    """Where HEAD leaves something open, or isn't allowed, the manifest itself is fetched and measured."""
    pushed = push(origin.registry, X86)
    origin.fail("HEAD", fault)
    upstream = await connect(origin)

    found = await upstream.resolve(X86, V1)

    assert found.descriptor == pushed
    assert origin.asked == [f"{method} kimoqi/alpine-x86/manifests/1.0" for method in ("GET", "HEAD")]


async def test_a_head_for_a_digest_must_answer_that_digest(origin: Origin, connect: Connect) -> None:
    """Who asks for one digest and is told of another has no answer."""
    origin.fail("HEAD", bad(BODY, Docker_Content_Digest=Digest.of(BODY)))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match=f"hub answered {Digest.of(BODY)} for {OTHER}"):
        await upstream.resolve(X86, OTHER)


async def test_a_manifest_is_resolved_and_fetched_alike(origin: Origin, connect: Connect) -> None:
    """HEAD and GET say the same of a manifest, by tag and by digest."""
    pushed = push(origin.registry, X86, media_type=OCI_MANIFEST)
    upstream = await connect(origin)

    for reference in (V1, pushed.digest):
        resolved: Resolved = await upstream.resolve(X86, reference)
        fetched: Manifest = await upstream.manifest(X86, reference)

        assert resolved.descriptor == fetched.descriptor == pushed
        assert pushed.digest.matches(fetched.body)


# Manifests


@pytest.mark.parametrize(
    ("media_type", "written"),
    [
        ("application/json", DOCKER_MANIFEST),
        ("text/plain; charset=utf-8", DOCKER_MANIFEST),
        (f"{DOCKER_MANIFEST}; charset=utf-8", DOCKER_MANIFEST),
        (DOCKER_MANIFEST, None),
    ],
)
async def test_a_vague_content_type_is_made_precise(
    origin: Origin, connect: Connect, media_type: str, written: str | None
) -> None:
    """The media type comes out bare, from the body where the header says nothing."""
    origin.fail("/manifests/", bad(manifest(mediaType=written, config=CONFIG, layers=[]), media_type))
    upstream = await connect(origin)

    assert (await upstream.manifest(X86, V1)).descriptor.media_type == DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(html(), "not JSON, it starts with '<!doctype html>", id="login page"),
        pytest.param(bad(b""), "not JSON", id="nothing"),
        pytest.param(bad(b"[]"), "not a JSON object", id="no object"),
        pytest.param(bad(BODY[:-5]), "not JSON", id="half a manifest"),
        pytest.param(bad(BODY, Docker_Content_Digest=OTHER), f"for {OTHER} that hash to", id="other digest"),
        pytest.param(bad(BODY, Docker_Content_Digest="sha256:x"), "unusable Docker-Content-Digest", id="bad digest"),
        pytest.param(bad(gzip.compress(BODY), Content_Encoding="gzip"), "Content-Encoding 'gzip'", id="gzip"),
        pytest.param(bad(BODY, code=206, Content_Range="bytes 0-9/10"), "answered 206", id="206"),
        pytest.param(bad(BODY, OCI_INDEX), "says mediaType .* its Content-Type says", id="two types"),
        pytest.param(bad(BODY, "application/xml"), "its Content-Type says", id="other type"),
        pytest.param(bad(manifest(config=CONFIG, manifests=[])), "ambiguous", id="image and index"),
        pytest.param(bad(manifest(layers=[], manifests=[]), OCI_INDEX), "ambiguous", id="index and image"),
        pytest.param(bad(manifest(), "application/json"), "neither", id="neither"),
        pytest.param(bad(b'{"schemaVersion": 1, "fsLayers": []}'), "schema 1", id="schema 1"),
        pytest.param(bad(BODY, "application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1", id="signed"),
        pytest.param(bad(manifest(manifests=[{}] * 1025), OCI_INDEX), "1025 descriptors", id="descriptors"),
        pytest.param(bad(b"[" * 100_000), "not JSON", id="deep"),
        pytest.param(bad(b" " * (5 << 20)), "a manifest of 5242880 bytes, at most 4194304", id="5 MiB"),
        pytest.param(endless(Content_Type=DOCKER_MANIFEST), "a manifest of more than 4194304 bytes", id="endless"),
    ],
)
async def test_what_is_no_manifest_is_a_bad_answer(origin: Origin, connect: Connect, fault: Fault, words: str) -> None:
    """Nothing that can't be used is believed; the sentence says why; the next good answer heals (S7, S8, S14)."""
    pushed = push(origin.registry, X86)
    origin.fail("GET /v2/.*/manifests/", once(fault))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match=f"^hub.*{words}"):
        await upstream.manifest(X86, V1)
    assert (await upstream.manifest(X86, V1)).descriptor == pushed


async def test_a_manifest_must_hash_to_the_digest_that_was_asked_for(origin: Origin, connect: Connect) -> None:
    """The digest in the question counts, whatever the headers of the answer say."""
    origin.fail("/manifests/", bad(BODY, Docker_Content_Digest=Digest.of(BODY)))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match=f"hub sent {len(BODY)} bytes for {OTHER} that hash to {Digest.of(BODY)}"):
        await upstream.manifest(X86, OTHER)


async def test_sha512_is_verified_as_well(origin: Origin, connect: Connect) -> None:
    """A digest is verified with its own algorithm."""
    right = Digest(f"sha512:{hashlib.sha512(BODY).hexdigest()}")
    origin.fail("/manifests/", bad(BODY))
    upstream = await connect(origin)

    assert (await upstream.manifest(X86, right)).descriptor.digest == right
    with pytest.raises(BadAnswer, match="that hash to"):
        await upstream.manifest(X86, Digest(f"sha512:{'0' * 128}"))


async def test_a_truncated_manifest_is_no_answer(origin: Origin, connect: Connect) -> None:
    """A manifest that ends before its announced length was not received."""
    origin.fail("/manifests/", truncated(BODY, len(BODY) + 1, Content_Type=DOCKER_MANIFEST))
    upstream = await connect(origin)

    with pytest.raises(Unreachable, match="broke off"):
        await upstream.manifest(X86, V1)


async def test_layers_elsewhere_are_not_fetched(origin: Origin, other: Origin, connect: Connect) -> None:
    """`urls` of a layer are never followed (CVE-2020-15157)."""
    layer = {**CONFIG, "urls": [f"{other.url}/layer"]}
    origin.fail("/manifests/", bad(manifest(config=CONFIG, layers=[layer])))
    upstream = await connect(origin, credential=ALICE)

    await upstream.manifest(X86, V1)

    assert other.requests == []


async def test_a_manifest_behind_a_redirect_is_verified(origin: Origin, other: Origin, connect: Connect) -> None:
    """Wherever a manifest comes from in the end, it must be what was asked for."""
    pushed = push(other.registry, X86)
    origin.fail("/manifests/", status(307, Location=f"{other.url}/v2/{X86}/manifests/1.0"))
    upstream = await connect(origin)

    assert (await upstream.manifest(X86, pushed.digest)).descriptor == pushed
    with pytest.raises(BadAnswer, match="that hash to"):
        await upstream.manifest(X86, OTHER)


# Failures


@read_by_each
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(status(404), NotFound, id="404"),
        pytest.param(status(401), Refused, id="401"),
        pytest.param(status(403), Refused, id="403"),
        pytest.param(status(429), Overloaded, id="429"),
        pytest.param(status(500), Overloaded, id="500"),
        pytest.param(status(502), Overloaded, id="502"),
        pytest.param(status(503), Overloaded, id="503"),
        pytest.param(status(599), Overloaded, id="599"),
        pytest.param(status(204), BadAnswer, id="204"),
        pytest.param(status(300), BadAnswer, id="300"),
        pytest.param(status(304), BadAnswer, id="304"),
        pytest.param(status(400), BadAnswer, id="400"),
        pytest.param(status(418), BadAnswer, id="418"),
        pytest.param(status(451), BadAnswer, id="451"),
        pytest.param(reset(), Unreachable, id="reset"),
        pytest.param(hang(), TimedOut, id="hang"),
    ],
)
async def test_every_failure_has_its_class(
    origin: Origin, connect: Connect, read: Read, fault: Fault, error: type[RegistryError]
) -> None:
    """404 alone says that something doesn't exist; 401 and 403 refuse; all else says nothing (law 4)."""
    origin.fail("", fault)
    upstream = await connect(origin, limits=Limits(header=0.2))

    with pytest.raises(error, match="hub"):
        await read(upstream)


@pytest.mark.parametrize(
    ("read", "error"), [("manifest", ManifestUnknown), ("blob", BlobUnknown), ("tags", NameUnknown)]
)
async def test_what_is_missing_has_its_code(
    origin: Origin, connect: Connect, read: str, error: type[RegistryError]
) -> None:
    """A 404 becomes the OCI code of what was asked for."""
    upstream = await connect(origin)

    with pytest.raises(error, match="kimoqi/alpine-x86"):
        await READS[read](upstream)


@read_by_each
@pytest.mark.parametrize("code", [401, 403, 404, 410])
async def test_an_upstream_can_be_told_what_means_missing(
    origin: Origin, connect: Connect, read: Read, code: int
) -> None:
    """`missing_status` names statuses that mean "does not exist"; 404 always does."""
    origin.fail("", status(code))
    upstream = await connect(origin, missing=(401, 403, 410))

    with pytest.raises(NotFound):
        await read(upstream)


async def test_a_refusal_means_missing_only_where_it_was_told_so(origin: Origin, connect: Connect) -> None:
    """Docker Hub says 401 of a missing repository, after authenticating: there alone it is a 404."""
    basic_door(origin, ALICE)
    hub, registry = await connect(origin, credential=BOB, missing=(401,)), await connect(origin, credential=BOB)

    with pytest.raises(ManifestUnknown):
        await hub.manifest(X86, V1)
    with pytest.raises(Refused):
        await registry.manifest(X86, V1)


@read_by_each
@pytest.mark.parametrize("wait", ["120", "Wed, 21 Oct 2026 07:28:00 GMT"])
@pytest.mark.parametrize("code", [429, 503])
async def test_an_overloaded_upstream_says_when_to_come_back(
    origin: Origin, connect: Connect, read: Read, wait: str, code: int
) -> None:
    """`Retry-After` is kept as it came, seconds or a date."""
    origin.fail("", status(code, Retry_After=wait))
    upstream = await connect(origin)

    with pytest.raises(Overloaded, match=str(code)) as caught:
        await read(upstream)
    assert caught.value.retry_after == wait


# Blobs


async def test_a_blob_comes_whole(origin: Origin, connect: Connect) -> None:
    """A blob's bytes come as they are, with its size."""
    origin.registry.add_blob(X86, DATA)
    upstream = await connect(origin)

    async with upstream.blob(X86, BLOB, Whole()) as blob:
        chunks = [chunk async for chunk in blob.chunks]

    assert b"".join(chunks) == DATA
    assert (blob.size, blob.part) == (len(DATA), None)
    assert "Range" not in origin.requests[0].headers


async def test_an_empty_blob_is_a_blob(origin: Origin, connect: Connect) -> None:
    """No bytes hash to something too."""
    empty = origin.registry.add_blob(X86, b"")
    upstream = await connect(origin)

    async with upstream.blob(X86, empty, Whole()) as blob:
        assert b"".join([chunk async for chunk in blob.chunks]) == b""


@pytest.mark.parametrize("wrong", [DATA[:-1] + b"?", b"?" + DATA[1:], DATA[:-1], DATA + b"?", b"", b"login, please"])
async def test_a_wrong_blob_never_ends_cleanly(origin: Origin, connect: Connect, wrong: bytes) -> None:
    """When the bytes don't hash to the digest, it raises with the last chunk still in hand (law 9)."""
    origin.fail("/blobs/", status(200, wrong))
    upstream = await connect(origin)
    handed_out = 0

    async def read() -> None:
        nonlocal handed_out
        async with upstream.blob(X86, BLOB, Whole()) as blob:
            async for chunk in blob.chunks:
                handed_out += len(chunk)

    with pytest.raises(BadAnswer, match=f"hub sent a blob that doesn't hash to {BLOB}"):
        await read()
    assert handed_out < max(1, len(wrong))


async def test_a_blob_that_breaks_off_raises(origin: Origin, connect: Connect) -> None:
    """Fewer bytes than announced are no answer."""
    origin.fail("/blobs/", truncated(DATA[:1000], len(DATA)))
    upstream = await connect(origin)

    with pytest.raises(Unreachable, match="broke off"):
        await a_blob(upstream)


def breaks(data: bytes, *, after: int, silently: bool = False) -> Fault:
    """Send the first bytes of a blob, then close the connection, or say nothing more."""

    async def fault(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[:after])
        if silently:
            await asyncio.sleep(20)
        assert request.transport is not None
        request.transport.close()
        return response

    return fault


@pytest.mark.parametrize("silently", [False, True], ids=["closed", "silent"])
async def test_a_blob_that_breaks_off_is_resumed(origin: Origin, connect: Connect, silently: bool) -> None:
    """A transfer that stops in the middle goes on where it stopped, even if the pool has one connection."""
    origin.registry.add_blob(X86, DATA)
    origin.fail("/blobs/", once(breaks(DATA, after=500_000, silently=silently)))
    upstream = await connect(origin, limits=Limits(idle=0.1, connections=1))

    assert await a_blob(upstream) == DATA
    assert [request.headers.get("Range") for request in origin.requests] == [None, f"bytes=500000-{len(DATA) - 1}"]


async def test_a_resumed_blob_is_verified_as_a_whole(origin: Origin, connect: Connect) -> None:
    """Two halves that don't belong together are no blob."""
    origin.registry.add_blob(X86, DATA)
    origin.fail("/blobs/", once(breaks(b"?" * len(DATA), after=500_000)))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="doesn't hash"):
        await a_blob(upstream)


async def test_a_reader_that_leaves_a_resumed_blob_frees_both_connections(origin: Origin, connect: Connect) -> None:
    """Leaving in the middle of the second half leaves nothing open."""
    origin.registry.add_blob(X86, DATA)
    origin.fail("/blobs/", once(breaks(DATA, after=1000)))
    upstream = await connect(origin, limits=Limits(connections=1))

    async with upstream.blob(X86, BLOB, Whole()) as blob:
        chunks = aiter(blob.chunks)
        assert len(await anext(chunks) + await anext(chunks)) > 1000
    assert await a_blob(upstream) == DATA


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(html(), id="login page"),
        pytest.param(bad(gzip.compress(DATA), Content_Encoding="gzip"), id="gzip"),
        pytest.param(bad(DATA[:10], code=206, Content_Range=f"bytes 0-9/{len(DATA)}"), id="206"),
    ],
)
async def test_a_blob_that_is_not_what_was_asked_for_is_not_opened(
    origin: Origin, connect: Connect, fault: Fault
) -> None:
    """A login page, a coding or a part that nobody asked for is seen before a byte is handed out."""
    origin.fail("/blobs/", fault)
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match=r"asked for|doesn't hash"):
        async with upstream.blob(X86, BLOB, Whole()):
            raise AssertionError("opened")


PARTS = pytest.mark.parametrize(
    ("part", "header", "first", "last"),
    [
        pytest.param(ByteRange(100, 199), "bytes=100-199", 100, 199, id="within"),
        pytest.param(ByteRange(0, 0), "bytes=0-0", 0, 0, id="one byte"),
        pytest.param(ByteRange(500_000), "bytes=500000-", 500_000, len(DATA) - 1, id="open end"),
        pytest.param(ByteRange(10, 1 << 40), f"bytes=10-{1 << 40}", 10, len(DATA) - 1, id="beyond the end"),
        pytest.param(SuffixRange(5), "bytes=-5", len(DATA) - 5, len(DATA) - 1, id="suffix"),
        pytest.param(SuffixRange(1 << 40), f"bytes=-{1 << 40}", 0, len(DATA) - 1, id="long suffix"),
    ],
)


@PARTS
async def test_a_range_is_passed_on(
    origin: Origin, connect: Connect, part: Part, header: str, first: int, last: int
) -> None:
    """One range goes to the upstream as it was asked for, and its part comes back."""
    origin.registry.add_blob(X86, DATA)
    upstream = await connect(origin)

    blob, data = await a_part(upstream, part)

    assert data == DATA[first : last + 1]
    assert str(blob.part) == f"bytes {first}-{last}/{len(DATA)}"
    assert origin.requests[0].headers["Range"] == header


@PARTS
async def test_an_upstream_that_ignores_ranges_is_cut(
    origin: Origin, connect: Connect, part: Part, header: str, first: int, last: int
) -> None:
    """Where the whole blob comes instead of a part, the part is cut out of it."""
    origin.fail("/blobs/", status(200, DATA))
    upstream = await connect(origin)

    blob, data = await a_part(upstream, part)

    assert header
    assert data == DATA[first : last + 1]
    assert str(blob.part) == f"bytes {first}-{last}/{len(DATA)}"


async def test_what_lies_in_front_of_a_part_may_take_its_time(origin: Origin, connect: Connect) -> None:
    """A download of a large blob can be resumed near its end, though the upstream begins at the beginning."""
    data = b"0123456789" * 10
    origin.fail("/blobs/", drips(10, 0.03, b"0123456789"))
    upstream = await connect(origin, limits=Limits(header=0.1))

    async with upstream.blob(X86, Digest.of(data), SuffixRange(3)) as blob:
        assert b"".join([chunk async for chunk in blob.chunks]) == b"789"


async def test_a_small_blob_is_verified_before_it_is_opened(origin: Origin, connect: Connect) -> None:
    """Nobody is told of a small blob that turns out wrong."""
    origin.fail("/blobs/", status(200, b"login, please"))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="doesn't hash"):
        async with upstream.blob(X86, BLOB, Whole()):
            raise AssertionError("opened")


async def test_a_blob_that_does_not_begin_is_given_up(origin: Origin, connect: Connect) -> None:
    """Headers without a body behind them are no answer after `header` seconds."""
    origin.fail("/blobs/", drips(2, 20))
    upstream = await connect(origin, limits=Limits(header=0.1))

    with pytest.raises(TimedOut, match="hub didn't begin to send"):
        await a_blob(upstream)


async def test_a_part_that_was_cut_is_verified_too(origin: Origin, connect: Connect) -> None:
    """The rest of a blob that was sent instead of a part is read for its hash."""
    origin.fail("/blobs/", status(200, DATA[:-1] + b"?"))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="doesn't hash"):
        await a_part(upstream, ByteRange(0, 9))


@pytest.mark.parametrize("fault", [status(416, Content_Range=f"bytes */{len(DATA)}"), status(200, DATA)])
async def test_a_range_behind_the_end_is_invalid(origin: Origin, connect: Connect, fault: Fault) -> None:
    """416, from the upstream or from us where it ignores ranges, tells the blob's size."""
    origin.fail("/blobs/", fault)
    upstream = await connect(origin)

    with pytest.raises(RangeInvalid) as caught:
        await a_part(upstream, ByteRange(len(DATA)))
    assert caught.value.size == len(DATA)


@pytest.mark.parametrize("content_range", ["", "bytes */*", f"bytes */{len(DATA)}"])
@pytest.mark.parametrize("part", [ByteRange(5), ByteRange(5, 10**6), SuffixRange(10)])
async def test_a_416_of_bytes_that_are_there_is_not_believed(
    origin: Origin, connect: Connect, part: ByteRange | SuffixRange, content_range: str
) -> None:
    """go-containerregistry's registry says it of open ranges: all of the blob is read, verified and cut."""

    async def wrong(request: web.BaseRequest) -> web.StreamResponse | None:
        headers = {"Content-Range": content_range}
        return web.Response(status=416, headers=headers) if "Range" in request.headers else None

    origin.registry.add_blob(X86, DATA)
    origin.fail("GET .*/blobs/", wrong)
    upstream = await connect(origin)
    wanted = part.within(len(DATA))

    assert (await a_part(upstream, part))[1] == DATA[wanted.first : wanted.last + 1]


@pytest.mark.parametrize("content_range", ["", "bytes */*", "bytes */x", "bytes */²"])
async def test_a_416_may_leave_the_size_out(origin: Origin, connect: Connect, content_range: str) -> None:
    """What the upstream doesn't say of the size isn't guessed."""
    origin.fail("/blobs/", status(416, Content_Range=content_range))
    upstream = await connect(origin)

    with pytest.raises(RangeInvalid) as caught:
        await a_part(upstream, ByteRange(5))
    assert caught.value.size is None


@pytest.mark.parametrize(
    ("part", "content_range"),
    [
        pytest.param(ByteRange(10, 19), "bytes 0-9/100", id="elsewhere"),
        pytest.param(ByteRange(10, 19), "bytes 10-29/100", id="too long"),
        pytest.param(ByteRange(10), "bytes 10-19/100", id="not to the end"),
        pytest.param(SuffixRange(10), "bytes 0-9/100", id="not the end"),
        pytest.param(ByteRange(10, 19), "", id="not said"),
        pytest.param(ByteRange(10, 19), "bytes 10-19", id="no size"),
        pytest.param(ByteRange(10, 19), "bytes 19-10/100", id="backwards"),
        pytest.param(ByteRange(10, 19), "items 10-19/100", id="other unit"),
    ],
)
async def test_another_part_than_asked_for_is_a_bad_answer(
    origin: Origin, connect: Connect, part: Part, content_range: str
) -> None:
    """A 206 must hold the bytes that were asked for."""
    origin.fail("/blobs/", status(206, DATA[:10], Content_Range=content_range))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer):
        await a_part(upstream, part)


@pytest.mark.parametrize(("sent_bytes", "error"), [(DATA[:9], Unreachable), (DATA[:11], BadAnswer), (b"", Unreachable)])
async def test_a_part_is_measured(
    origin: Origin, connect: Connect, sent_bytes: bytes, error: type[RegistryError]
) -> None:
    """A part can't be hashed, but it is as long as its `Content-Range` says."""
    origin.fail("/blobs/", status(206, sent_bytes, Content_Range=f"bytes 0-9/{len(DATA)}"))
    upstream = await connect(origin)

    with pytest.raises(error, match="hub"):
        await a_part(upstream, ByteRange(0, 9))


async def test_head_of_a_blob_brings_its_size_alone(origin: Origin, connect: Connect) -> None:
    """HEAD of a blob asks with HEAD and brings no bytes."""
    origin.registry.add_blob(X86, DATA)
    upstream = await connect(origin)

    blob, data = await a_part(upstream, Nothing())

    assert (blob.size, blob.part, data) == (len(DATA), None, b"")
    assert origin.asked == [f"HEAD kimoqi/alpine-x86/blobs/{BLOB}"]


async def test_a_blob_s_redirect_is_followed_inside(origin: Origin, other: Origin, connect: Connect) -> None:
    """Blobs that live at another host are fetched from there, without our credentials, and verified."""
    other.fail("/signed", status(200, DATA))
    basic_door(origin, ALICE)

    async def redirect(request: web.BaseRequest) -> web.StreamResponse | None:
        location = {"Location": f"{other.url}/signed?X-Sig=a%2Fb"}
        return web.Response(status=307, headers=location) if "Authorization" in request.headers else None

    origin.fail("/blobs/", redirect)
    upstream = await connect(origin, credential=ALICE)

    assert await a_blob(upstream) == DATA
    assert sent(origin) == [None, ALICE.basic]
    assert sent(other) == [None]


async def test_a_reader_that_leaves_frees_the_connection(origin: Origin, connect: Connect) -> None:
    """Blobs that are left in the middle don't fill the pool."""
    origin.fail("/blobs/", endless())
    upstream = await connect(origin, limits=Limits(connections=1))

    for _ in range(3):
        async with upstream.blob(X86, BLOB, Whole()) as blob:
            assert await anext(aiter(blob.chunks))


async def test_a_reader_that_is_cancelled_frees_the_connection(origin: Origin, connect: Connect) -> None:
    """A client that goes away in the middle of a blob takes nothing with it."""
    origin.fail("/blobs/", once(hang()))
    origin.registry.add_blob(X86, DATA)
    upstream = await connect(origin, limits=Limits(connections=1))
    reader = asyncio.create_task(a_blob(upstream))
    await until(lambda: bool(origin.requests))

    reader.cancel()

    assert await a_blob(upstream) == DATA


# Tags


def pages(origin: Origin, tags: list[str], link: Callable[[str], str], size: int = 2) -> None:
    """Let *origin* list *tags*, *size* at a time; *link* writes the header from the next page's query."""

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        rest = [tag for tag in tags if tag > request.query.get("last", "")]
        headers = {"Link": link(f"n={size}&last={rest[size - 1]}")} if len(rest) > size else {}
        return web.json_response({"name": X86, "tags": rest[:size]}, headers=headers)

    origin.fail("/tags/list", page)


@pytest.mark.parametrize(
    "link",
    [
        pytest.param(f'</v2/{X86}/tags/list?%s>; rel="next"', id="relative"),
        pytest.param(f'<https://registry.invalid/v2/{X86}/tags/list?%s>; rel="next"', id="absolute"),
        pytest.param("</tags?%s>; rel=next", id="unquoted"),
        pytest.param("<?%s>;rel='next'", id="query alone"),
        pytest.param('<?%s>; type="x"; rel="next"', id="other parameters"),
        pytest.param('</v2/_opaque?next_page=ab%%2Fc&x=%.0s>; rel="next"', id="opaque"),
    ],
)
async def test_tags_come_page_by_page(origin: Origin, connect: Connect, link: str) -> None:
    """`Link` says that there is more and behind which tag, in any of the ways registries write it (RFC 8288)."""
    tags = ["1.0", "1.1", "2.0", "edge", "latest"]
    pages(origin, tags, lambda query: link % query)
    upstream = await connect(origin)

    page = await upstream.tags(X86, None, "")

    assert (page.tags, page.more) == (tuple(tags), False)
    assert [request.query for request in origin.requests] == ["n=1000", "n=1000&last=1.1", "n=1000&last=edge"]


async def test_a_link_to_another_host_is_never_followed(origin: Origin, other: Origin, connect: Connect) -> None:
    """Whatever host a `Link` names, the next page is asked of the upstream."""
    pages(origin, ["a", "b", "c"], lambda query: f'<{other.url}/v2/evil/tags/list?{query}>; rel="next"')
    upstream = await connect(origin)

    page = await upstream.tags(X86, None, "")

    assert page.tags == ("a", "b", "c")
    assert other.requests == []


@pytest.mark.parametrize(
    ("limit", "last", "tags", "more"),
    [
        (2, "", ("a", "b"), True),
        (3, "", ("a", "b", "c"), True),
        (5, "", ("a", "b", "c", "d", "e"), False),
        (9, "c", ("d", "e"), False),
        (1, "d", ("e",), False),
        (None, "zz", (), False),
    ],
)
async def test_tags_are_limited(
    origin: Origin, connect: Connect, limit: int | None, last: str, tags: tuple[str, ...], more: bool
) -> None:
    """No more tags come than were asked for, and whether others follow is said."""
    pages(origin, ["a", "b", "c", "d", "e"], lambda query: f'<?{query}>; rel="next"')
    upstream = await connect(origin)

    page = await upstream.tags(X86, limit, last)

    assert (page.tags, page.more) == (tags, more)


async def test_an_upstream_that_ignores_the_limit_is_cut(origin: Origin, connect: Connect) -> None:
    """When all tags come at once, those beyond the limit are left out, and there are more."""
    origin.fail("/tags/list", status(200, b'{"tags": ["a", "b", "c"]}'))
    upstream = await connect(origin)

    page = await upstream.tags(X86, 2, "")

    assert (page.tags, page.more) == (("a", "b"), True)


async def test_tags_without_end_are_left(origin: Origin, connect: Connect) -> None:
    """An upstream whose pages lead in a circle is left after a bounded number of them."""
    origin.fail("/tags/list", status(200, b'{"tags": ["a"]}', Link='<?last=a>; rel="next"'))
    upstream = await connect(origin)

    page = await upstream.tags(X86, None, "")

    assert page.more
    assert len(origin.requests) == 200


@pytest.mark.parametrize("body", [b'{"tags": null}', b'{"tags": []}', b'{"name": "x", "tags": []}'])
async def test_a_repository_may_have_no_tags(origin: Origin, connect: Connect, body: bytes) -> None:
    """`null` and an empty list both mean none."""
    origin.fail("/tags/list", status(200, body))
    upstream = await connect(origin)

    assert (await upstream.tags(X86, None, "")).tags == ()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5", b"null", b"{}", b'{"tags": 5}', b'"tags"'])
async def test_what_is_no_list_of_tags_is_a_bad_answer(origin: Origin, connect: Connect, body: bytes) -> None:
    """Anything but an object with tags says nothing of them."""
    origin.fail("/tags/list", status(200, body))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="hub sent a list of tags that is none"):
        await upstream.tags(X86, None, "")


async def test_a_list_of_tags_is_measured(origin: Origin, connect: Connect) -> None:
    """A page of tags has at most 16 MiB."""
    origin.fail("/tags/list", endless())
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="more than 16777216 bytes"):
        await upstream.tags(X86, None, "")


# Referrers


REFERRER = Descriptor(media_type=OCI_MANIFEST, digest=OTHER, size=7, artifact_type="application/spdx+json")
NEWER = replace(REFERRER, digest=Digest.of(b"newer"), artifact_type="application/vnd.example+json")


def referrer() -> bytes:
    """Write an index of one referrer."""
    return render([REFERRER]).body


async def test_referrers_come_from_their_api(origin: Origin, connect: Connect) -> None:
    """The referrers API is asked, and the fallback tag beside it: what was pushed before the API came is there."""
    origin.fail("/referrers/", status(200, referrer(), Content_Type=OCI_INDEX))
    upstream = await connect(origin)

    found = await upstream.referrers(X86, BLOB)

    assert found == (REFERRER,)
    assert origin.asked == [
        f"GET kimoqi/alpine-x86/manifests/sha256-{BLOB.hex}",
        f"GET kimoqi/alpine-x86/referrers/{BLOB}",
    ]


@pytest.mark.parametrize("fault", [status(404), status(400), status(405), status(406), html()])
async def test_without_the_api_the_fallback_tag_is_asked(origin: Origin, connect: Connect, fault: Fault) -> None:
    """Registries without the API keep referrers under a tag that is named after the digest."""
    origin.fail("/referrers/", fault)
    found = Manifest.of(OCI_INDEX, referrer())
    origin.registry.add_manifest(X86, found, Tag(f"sha256-{BLOB.hex}"))
    upstream = await connect(origin)

    assert await upstream.referrers(X86, BLOB) == (REFERRER,)


async def test_nothing_refers_to_it(origin: Origin, connect: Connect) -> None:
    """With neither API nor tag there are no referrers."""
    origin.fail("/referrers/", status(404))
    upstream = await connect(origin)

    assert await upstream.referrers(X86, BLOB) == ()


async def test_a_fallback_tag_that_is_an_image_is_no_index(origin: Origin, connect: Connect) -> None:
    """Someone may have pushed an image under such a tag; it refers to nothing."""
    origin.fail("/referrers/", status(404))
    push(origin.registry, X86, f"sha256-{BLOB.hex}")
    upstream = await connect(origin)

    assert await upstream.referrers(X86, BLOB) == ()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (status(401), Refused),
        (status(403), Refused),
        (status(429), Overloaded),
        (status(503), Overloaded),
        (reset(), Unreachable),
        (status(200, b"{", Content_Type=OCI_INDEX), BadAnswer),
        (status(200, BODY, Content_Type=OCI_INDEX), BadAnswer),
        (endless(Content_Type=OCI_INDEX), BadAnswer),
    ],
)
async def test_trouble_with_referrers_is_no_empty_list(
    origin: Origin, connect: Connect, fault: Fault, error: type[RegistryError]
) -> None:
    """A refusal, or no answer, is never mistaken for "nothing refers to it"."""
    origin.fail("/referrers/", fault)
    upstream = await connect(origin)

    with pytest.raises(error, match="hub"):
        await upstream.referrers(X86, BLOB)


async def test_the_api_and_the_fallback_tag_make_one_list(origin: Origin, connect: Connect) -> None:
    """What either of them knows is listed once, by digest; where both know it, as the API says."""
    origin.fail("/referrers/", status(200, render([NEWER, REFERRER]).body, Content_Type=OCI_INDEX))
    older = [replace(REFERRER, artifact_type=""), replace(NEWER, digest=BLOB)]
    origin.registry.add_manifest(X86, render(older), Tag(f"sha256-{BLOB.hex}"))
    upstream = await connect(origin)

    found = await upstream.referrers(X86, BLOB)

    assert found == tuple(sorted([REFERRER, NEWER, older[1]], key=lambda entry: entry.digest))


def referrers_pages(origin: Origin, link: str, last: int = 3) -> None:
    """Let *origin* list a referrer on each of *last* pages; *link* is where each leads to."""

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        number = int(request.query.get("page", "1"))
        headers = {"Link": f'<{link.format(number + 1)}>; rel="next"'} if number < last else {}
        entry = replace(REFERRER, digest=Digest.of(b"%d" % number))
        return web.Response(body=render([entry]).body, headers={"Content-Type": OCI_INDEX, **headers})

    origin.fail("/referrers/", page)


@pytest.mark.parametrize("host", ["", "http://registry.invalid", "http://[broken"])
async def test_referrers_come_page_by_page(origin: Origin, connect: Connect, host: str) -> None:
    """The next page is asked of the upstream itself, whatever host a `Link` names."""
    referrers_pages(origin, f"{host}/v2/{X86}/referrers/{BLOB}?page={{}}&x=a%2Fb")
    upstream = await connect(origin)

    found = await upstream.referrers(X86, BLOB)

    assert len(found) == 3
    assert [r.query for r in origin.requests if "/referrers/" in r.path] == ["", "page=2&x=a/b", "page=3&x=a/b"]


@pytest.mark.parametrize("last", [21, 1000])
async def test_referrers_without_end_are_a_bad_answer(origin: Origin, connect: Connect, last: int) -> None:
    """More pages than anybody has are no list: a part of it would look like all."""
    referrers_pages(origin, "?page={}", last)
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="more than 20 pages"):
        await upstream.referrers(X86, BLOB)

    assert len(origin.requests) == 20


async def test_a_page_of_referrers_that_was_promised_has_to_come(origin: Origin, connect: Connect) -> None:
    """A list that ends in a 404 is no whole one."""
    page = status(200, referrer(), Content_Type=OCI_INDEX, Link='<?page=2>; rel="next"')
    origin.fail("/referrers/", status(404))
    origin.fail("/referrers/", once(page))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="doesn't go on"):
        await upstream.referrers(X86, BLOB)


async def test_trouble_with_the_fallback_tag_is_no_empty_list(origin: Origin, connect: Connect) -> None:
    """The fallback tag's trouble is trouble too."""
    origin.fail("/referrers/", status(404))
    origin.fail("/manifests/", status(503))
    upstream = await connect(origin)

    with pytest.raises(NoAnswer):
        await upstream.referrers(X86, BLOB)


async def test_indexes_pass_untouched(origin: Origin, connect: Connect) -> None:
    """An index is fetched like any manifest; what it points to isn't asked for."""
    pushed: Descriptor = push_index(origin.registry, VIRTUAL, "1.0", [], DOCKER_LIST)
    upstream = await connect(origin)

    found = await upstream.manifest(VIRTUAL, V1)

    assert found.descriptor == pushed
    assert len(origin.requests) == 1
