"""Blobs over HTTP: whole, in parts, resumed, verified, and what every failure is called."""

from __future__ import annotations

import asyncio
import gzip
from typing import Final

import pytest
from aiohttp import web

from conftest import Clock, until
from images import X86
from proxy.oci.byterange import ByteRange, Nothing, Part, SuffixRange, Whole
from proxy.oci.content import Blob
from proxy.oci.errors import (
    BadAnswer,
    RangeInvalid,
    RegistryError,
    TimedOut,
    Unreachable,
)
from proxy.oci.reference import Digest
from proxy.upstream.client import Upstream
from proxy.upstream.credentials import Fixed
from proxy.upstream.transport import Limits
from scripted import Fault, Origin, endless, hang, html, once, status, truncated
from upstream.peers import ALICE, BLOB, DATA, Connect, Tokens, a_blob, bad, basic_door, drips, sent


async def a_part(upstream: Upstream, part: Part) -> tuple[Blob, bytes]:
    """Return a part of `BLOB`, and its bytes."""
    async with upstream.blob(X86, BLOB, part) as blob:
        return blob, b"".join([chunk async for chunk in blob.chunks])


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


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(status(206, Content_Range="bytes 0--1/0"), id="distribution"),
        pytest.param(status(200), id="ranges ignored"),
        pytest.param(status(416, Content_Range="bytes */0"), id="416"),
    ],
)
async def test_the_last_bytes_of_an_empty_blob_are_all_of_it(origin: Origin, connect: Connect, fault: Fault) -> None:
    """As where it is kept: whatever the upstream makes of that, the answer is the blob, of which there is nothing."""

    async def ranged(request: web.BaseRequest) -> web.StreamResponse | None:
        return await fault(request) if "Range" in request.headers else None

    empty = origin.registry.add_blob(X86, b"")
    origin.fail("GET .*/blobs/", ranged)
    upstream = await connect(origin)

    async with upstream.blob(X86, empty, SuffixRange(5)) as blob:
        assert (blob.size, blob.part) == (0, None)
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
    upstream = await connect(origin, limits=Limits(idle=1, connections=1))

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


@pytest.mark.parametrize("coding", ["", "identity", "aws-chunked", "AWS-Chunked", "aws-chunked, identity", ","])
async def test_what_an_object_store_says_of_an_upload_is_no_coding(
    origin: Origin, connect: Connect, coding: str
) -> None:
    """S3 and what is like it send back how an object once came in, though its bytes are as they were: pulled by all."""
    origin.fail("/blobs/", bad(DATA, "application/octet-stream", Content_Encoding=coding))
    upstream = await connect(origin)

    assert await a_blob(upstream) == DATA
    async with upstream.blob(X86, BLOB, Nothing()) as blob:
        assert blob.size == len(DATA)


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
    origin.fail("/blobs/", drips(10, 0.15, b"0123456789"))
    upstream = await connect(origin, limits=Limits(header=1))

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
    upstream = await connect(origin, limits=Limits(header=0.5))

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


ODD: Final = ["text/plain", "image/png", "text/html", "application/json", "application/problem+json"]


@pytest.mark.parametrize("media_type", ODD)
async def test_head_of_a_blob_is_no_page(origin: Origin, connect: Connect, media_type: str) -> None:
    """What a gateway answers in the registry's place names no digest, and isn't of a blob's type."""
    origin.fail("/blobs/", status(200, DATA, Content_Type=media_type))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match=f"a page of {media_type.replace('+', '.')}"):
        await a_part(upstream, Nothing())
    with pytest.raises(BadAnswer, match="a page of"):
        await upstream.locate(X86, BLOB, Nothing())


@pytest.mark.parametrize("media_type", [*ODD, "application/octet-stream", "application/vnd.oci.image.config.v1+json"])
async def test_a_registry_may_call_a_blob_what_it_is(origin: Origin, connect: Connect, media_type: str) -> None:
    """Where it names the digest, any type will do; where it doesn't, a blob's."""
    named = {"Docker_Content_Digest": str(BLOB)} if media_type in ODD else {}
    origin.fail("/blobs/", status(200, DATA, Content_Type=media_type, **named))
    upstream = await connect(origin)

    assert (await a_part(upstream, Nothing()))[0].size == len(DATA)


@pytest.mark.parametrize("media_type", ["text/plain", "image/png", "binary/octet-stream"])
async def test_a_storage_host_may_call_a_blob_anything(
    origin: Origin, other: Origin, connect: Connect, media_type: str
) -> None:
    """It says what it was told when the blob came, and knows no digest."""
    other.fail("/signed", status(200, DATA, Content_Type=media_type))
    origin.fail("/blobs/", status(307, Location=f"{other.url}/signed"))
    upstream = await connect(origin)

    assert (await a_part(upstream, Nothing()))[0].size == len(DATA)


@pytest.mark.parametrize("code", [401, 403])
async def test_a_storage_host_s_refusal_is_none_of_the_registry(
    origin: Origin, other: Origin, connect: Connect, clock: Clock, code: int
) -> None:
    """It refuses a signature, as when a clock is wrong. The registry has let us in: it gives no other token for it."""
    origin.fail("/blobs/", status(307, Location=f"{other.url}/signed"))
    tokens = Tokens(origin)
    other.fail("/signed", status(code, WWW_Authenticate='Basic realm="storage"'))
    upstream = await connect(origin)
    told: list[int] = []
    caller = upstream.acting_as(Fixed(None), witness=lambda repository, status, age: told.append(status))
    for _ in range(2):
        with pytest.raises(BadAnswer, match=f"hub redirects to 127.0.0.1 for blob {BLOB}, which answered {code}"):
            await a_blob(caller)
        clock.advance(100)

    assert (len(tokens.asked), told) == (1, [])


@pytest.mark.parametrize("code", [400, 401, 403, 405])
async def test_a_url_may_be_signed_for_get_alone(origin: Origin, other: Origin, connect: Connect, code: int) -> None:
    """Where HEAD leads to nothing, one byte tells how many there are."""

    async def stored(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(status=code)
        return web.Response(status=206, body=DATA[:1], headers={"Content-Range": f"bytes 0-0/{len(DATA)}"})

    other.fail("/signed", stored)
    origin.fail("/blobs/", status(307, Location=f"{other.url}/signed"))
    upstream = await connect(origin)

    assert (await a_part(upstream, Nothing()))[0].size == len(DATA)


async def test_a_registry_may_not_know_head(origin: Origin, connect: Connect) -> None:
    """As with manifests, GET says it."""
    origin.registry.add_blob(X86, DATA)
    origin.fail("HEAD .*/blobs/", status(405))
    upstream = await connect(origin)

    assert (await a_part(upstream, Nothing()))[0].size == len(DATA)


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
