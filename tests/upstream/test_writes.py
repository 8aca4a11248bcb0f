"""Writing to a registry: how a body that passes only once finds out who we are."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from images import V1, X86
from proxy.oci.endpoint import ManifestAt, UploadAt
from proxy.oci.errors import NoAnswer, Refused, Rejected
from proxy.oci.reference import Digest
from proxy.oci.write import Write
from proxy.upstream.client import Upstream
from scripted import Origin, status
from upstream.peers import ALICE, Connect, Tokens, basic_door

LAYER = b"layer"


async def streamed() -> AsyncIterator[bytes]:
    """Yield a body that can't be sent again."""
    yield LAYER


async def push(upstream: Upstream) -> int:
    """Push a blob in one request; return the status."""
    at = UploadAt(X86, "")
    return (
        await upstream.write(Write(method="POST", at=at, query=f"digest={Digest.of(LAYER)}", body=streamed()))
    ).status


async def test_who_wants_no_introduction_is_asked_for_one_once(origin: Origin, connect: Connect) -> None:
    """A registry that never challenges gets what is pushed, and nothing in front of each step."""
    upstream = await connect(origin)

    assert [await push(upstream) for _ in range(3)] == [201, 201, 201]
    assert [request.method for request in origin.requests] == ["GET", "POST", "POST", "POST"]


@pytest.mark.parametrize("basic", [True, False], ids=["basic", "bearer"])
async def test_who_wants_one_gets_it_first(origin: Origin, connect: Connect, *, basic: bool) -> None:
    """The body is sent when it is known how, and then without asking again."""
    if basic:
        basic_door(origin, ALICE)
    else:
        Tokens(origin)
    upstream = await connect(origin, credential=ALICE)

    assert [await push(upstream) for _ in range(2)] == [201, 201]
    assert [request.method for request in origin.requests if request.path != "/token"] == ["GET", "GET", "POST", "POST"]


@pytest.mark.parametrize("basic", [True, False], ids=["basic", "bearer"])
async def test_a_challenge_that_comes_later_is_learned(origin: Origin, connect: Connect, *, basic: bool) -> None:
    """The body that it meets is lost, which is said such that clients send it again; all others find their way."""
    upstream = await connect(origin, credential=ALICE)
    await push(upstream)
    if basic:
        basic_door(origin, ALICE)
    else:
        Tokens(origin)

    with pytest.raises(NoAnswer, match="has to be sent again") as lost:
        await push(upstream)

    assert lost.value.retry_after == "1"
    assert [await push(upstream) for _ in range(2)] == [201, 201]


async def test_a_challenge_without_an_answer_is_a_refusal(origin: Origin, connect: Connect) -> None:
    """Sending it again wouldn't help."""
    upstream = await connect(origin)
    await push(upstream)
    basic_door(origin, ALICE)

    for _ in range(2):
        with pytest.raises(Refused):
            await push(upstream)


async def test_trouble_is_no_introduction(origin: Origin, connect: Connect) -> None:
    """Who says 500 hasn't said that nothing is wanted."""
    upstream = await connect(origin, credential=ALICE)
    origin.fail("GET /v2/$", status(500))
    await push(upstream)
    origin.heal()
    basic_door(origin, ALICE)

    assert await push(upstream) == 201


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"errors": [{"code": "TOO_BIG", "message": "no\\u0007"}]}', ("TOO_BIG", "hub answered 400: no ")),
        (
            b'{"errors": [{"code": {}, "message": ' + b"[" * 900 + b"]" * 900 + b"}]}",
            ("MANIFEST_UNKNOWN", "hub answered 400"),
        ),
        (b'{"errors": [{"code": 5, "message": 5}]}', ("MANIFEST_UNKNOWN", "hub answered 400")),
        (b'{"errors": [5]}', ("MANIFEST_UNKNOWN", "hub answered 400")),
        (b'{"errors": {}}', ("MANIFEST_UNKNOWN", "hub answered 400")),
        (b"[]", ("MANIFEST_UNKNOWN", "hub answered 400")),
        (b"<html>", ("MANIFEST_UNKNOWN", "hub answered 400")),
    ],
)
async def test_a_rejection_is_told_as_far_as_it_is_text(
    origin: Origin, connect: Connect, body: bytes, said: tuple[str, str]
) -> None:
    """Whatever else stands where its code and its message should."""
    origin.fail("PUT", status(400, body))
    upstream = await connect(origin)

    with pytest.raises(Rejected) as rejected:
        await upstream.write(Write(method="PUT", at=ManifestAt(X86, V1), body=b"{}", length=2))

    assert (rejected.value.code, rejected.value.message) == said


async def test_only_text_is_passed_on(origin: Origin, connect: Connect) -> None:
    """Headers whose bytes are none aren't told to anybody."""
    origin.fail("POST", status(202, Docker_Upload_UUID="one", OCI_Tag="\u00ff", Location="/v2/x"))
    upstream = await connect(origin)

    written = await upstream.write(Write(method="POST", at=UploadAt(X86, "")))

    assert written.headers == {"Docker-Upload-UUID": "one"}
