"""Bearer: tokens are asked for with the source's scope, kept, shared, and renewed before they expire."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from conftest import Clock, until
from images import ARM, V1, X86, push_pair
from proxy.oci.byterange import Whole
from proxy.oci.errors import BadAnswer, Overloaded, Refused, RegistryError, TimedOut, Unreachable
from proxy.upstream.credentials import Fixed
from proxy.upstream.transport import Limits
from scripted import Fault, Origin, endless, hang, html, once, reset, status, waits_for
from upstream.peers import ALICE, Connect, Tokens, sent

MANIFEST = "GET kimoqi/alpine-x86/manifests/1.0"


async def test_a_token_is_asked_for_with_our_own_scope(origin: Origin, connect: Connect) -> None:
    """The token's scope is pulling the source's repository, whatever the challenge asks for."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    upstream = await connect(origin, credential=ALICE)

    await upstream.manifest(X86, V1)

    assert [request.query for request in tokens.asked] == ["service=tests&scope=repository:kimoqi/alpine-x86:pull"]
    assert sent(origin) == [None, ALICE.basic, "Bearer alice.1"]


async def test_without_credentials_a_token_is_asked_for_anonymously(origin: Origin, connect: Connect) -> None:
    """Public images need a token too; it is asked for without a name."""
    push_pair(origin.registry)
    Tokens(origin)
    upstream = await connect(origin)

    await upstream.manifest(X86, V1)

    assert sent(origin) == [None, None, "Bearer anonymous.1"]


async def test_the_realm_keeps_its_own_query(origin: Origin, connect: Connect) -> None:
    """A realm may have a query already; ours is added to it."""
    push_pair(origin.registry)
    tokens = Tokens(origin, realm=f"{origin.url}/token?tenant=7")
    upstream = await connect(origin)

    await upstream.manifest(X86, V1)

    assert tokens.asked[0].query.startswith("tenant=7&service=tests&scope=")


async def test_a_token_may_be_called_access_token(origin: Origin, connect: Connect) -> None:
    """OAuth2's name for a token is understood as well."""
    push_pair(origin.registry)
    tokens = Tokens(origin, valid={"abc"})
    origin.fail("GET /token", status(200, b'{"access_token": "abc"}'))
    upstream = await connect(origin)

    await upstream.manifest(X86, V1)

    assert len(tokens.asked) == 1


async def test_a_token_is_kept_for_its_scope(origin: Origin, connect: Connect) -> None:
    """One repository costs one token; another repository another one, fetched without a second 401."""
    x86, _ = push_pair(origin.registry)
    Tokens(origin)
    upstream = await connect(origin)

    await upstream.manifest(X86, V1)
    await upstream.manifest(X86, x86.digest)
    await upstream.manifest(ARM, V1)

    tokens = ["Bearer anonymous.1", "Bearer anonymous.1", None, "Bearer anonymous.2"]
    assert sent(origin) == [None, None, *tokens]


async def test_blobs_use_the_token_of_their_repository(origin: Origin, connect: Connect) -> None:
    """A blob is asked for with the same token as its manifest."""
    push_pair(origin.registry)
    blob = origin.registry.add_blob(X86, b"layer")
    tokens = Tokens(origin)
    upstream = await connect(origin)
    await upstream.manifest(X86, V1)

    async with upstream.blob(X86, blob, Whole()) as found:
        assert [chunk async for chunk in found.chunks] == [b"layer"]
    assert len(tokens.asked) == 1


@pytest.mark.parametrize(
    ("seconds", "passed", "asked"),
    [
        pytest.param(300, 289, 1, id="fresh"),
        pytest.param(300, 291, 2, id="about to expire"),
        pytest.param(0, 49, 1, id="no lifetime is a minute"),
        pytest.param(0, 51, 2, id="and not more"),
        pytest.param(1, 49, 1, id="a minute is the least"),
    ],
)
async def test_a_token_is_renewed_before_it_expires(
    origin: Origin, connect: Connect, clock: Clock, seconds: int, passed: float, asked: int
) -> None:
    """Ten seconds before its end a token is renewed, so that no request is sent with one that expires on its way."""
    push_pair(origin.registry)
    tokens = Tokens(origin, seconds=seconds)
    upstream = await connect(origin)
    await upstream.manifest(X86, V1)
    clock.advance(passed)

    await upstream.manifest(X86, V1)

    assert len(tokens.asked) == asked
    assert sent(origin)[-1] == f"Bearer anonymous.{asked}"


async def test_a_refused_token_is_renewed(origin: Origin, connect: Connect) -> None:
    """A token that was revoked before its time costs one 401 and one new token."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    upstream = await connect(origin)
    await upstream.manifest(X86, V1)
    tokens.valid.clear()
    origin.requests.clear()

    await upstream.manifest(X86, V1)

    assert sent(origin) == ["Bearer anonymous.1", None, "Bearer anonymous.2"]


async def test_a_token_is_renewed_once_and_not_twice(origin: Origin, connect: Connect) -> None:
    """When the new token is refused as well, that is the answer."""
    tokens = Tokens(origin)
    upstream = await connect(origin)
    origin.fail("GET /token", status(200, b'{"token": "opens-nothing"}'))

    with pytest.raises(Refused, match="refuses access"):
        await upstream.manifest(X86, V1)
    assert len(tokens.asked) == 1
    assert origin.asked.count(MANIFEST) == 2


async def test_a_token_that_allows_too_little_is_not_fetched_again(
    origin: Origin, connect: Connect, clock: Clock
) -> None:
    """The token service has just said what it grants; after a while it may say something else."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    upstream = await connect(origin, credential=ALICE)
    await upstream.manifest(X86, V1)
    challenge = f'Bearer realm="{origin.url}/token",service="tests",error="insufficient_scope"'
    origin.fail("manifests", status(401, WWW_Authenticate=challenge))
    for _ in range(3):
        with pytest.raises(Refused, match="refuses access") as refused:
            await upstream.manifest(X86, V1)
        assert refused.value.seen == 401
    assert len(tokens.asked) == 1
    clock.advance(61)
    with pytest.raises(Refused):
        await upstream.manifest(X86, V1)
    assert len(tokens.asked) == 2


async def test_concurrent_requests_fetch_one_token(origin: Origin, connect: Connect) -> None:
    """Fifty requests of one scope that need a token at once wait for the same one."""
    x86, _ = push_pair(origin.registry)
    tokens = Tokens(origin)
    upstream = await connect(origin)
    origin.fail("GET /token", waits_for(gate := asyncio.Event()))
    requests = [asyncio.create_task(upstream.manifest(X86, V1)) for _ in range(50)]
    await asyncio.sleep(0.05)
    gate.set()

    found = await asyncio.gather(*requests)

    assert {manifest.descriptor.digest for manifest in found} == {x86.digest}
    assert len(tokens.asked) == 1


async def test_a_late_refusal_does_not_drop_a_newer_token(origin: Origin, connect: Connect) -> None:
    """Twenty requests whose common token was revoked renew it once, not once each."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    upstream = await connect(origin)
    await upstream.manifest(X86, V1)
    tokens.valid.clear()

    await asyncio.gather(*(upstream.manifest(X86, V1) for _ in range(20)))

    assert len(tokens.asked) == 2


async def test_a_caller_that_leaves_does_not_take_the_token_along(origin: Origin, connect: Connect) -> None:
    """When the caller that asks for the token is cancelled, the next one asks."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    upstream = await connect(origin)
    origin.fail("GET /token", once(hang()))
    first, second = (asyncio.create_task(upstream.manifest(X86, V1)) for _ in range(2))
    await until(lambda: bool(tokens.asked))

    first.cancel()

    assert (await second).body
    assert len(tokens.asked) == 2


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        pytest.param(status(401), Refused, "refuses access to repository:kimoqi/alpine-x86:pull", id="401"),
        pytest.param(status(403), Refused, "refuses access", id="403"),
        pytest.param(status(429), Overloaded, "answered 429", id="429"),
        pytest.param(status(500), Overloaded, "answered 500", id="500"),
        pytest.param(status(503), Overloaded, "answered 503", id="503"),
        pytest.param(status(404), BadAnswer, "answered 404", id="404"),
        pytest.param(status(302, Location="/v2/"), BadAnswer, "answered 302", id="redirect"),
        pytest.param(html(), BadAnswer, "without a usable token", id="HTML"),
        pytest.param(status(200, b" " * 1024 * 1025), BadAnswer, "at most 1048576", id="huge"),
        pytest.param(endless(), BadAnswer, "more than 1048576", id="endless"),
        pytest.param(reset(), Unreachable, "closed the connection", id="reset"),
        pytest.param(hang(), TimedOut, "within 0.3 s", id="slow"),
    ],
)
async def test_trouble_of_the_token_service_has_a_name(
    origin: Origin, connect: Connect, fault: Fault, error: type[RegistryError], words: str
) -> None:
    """A no of the token service is a refusal; anything else says nothing of the image."""
    Tokens(origin)
    origin.fail("GET /token", fault)
    upstream = await connect(origin, limits=Limits(header=0.3 if error is TimedOut else 60))

    with pytest.raises(error, match=words):
        await upstream.manifest(X86, V1)
    assert origin.asked.count(MANIFEST) == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{}", id="none"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"token": "a"', id="half"),
        pytest.param(b'{"token": ""}', id="empty"),
        pytest.param(b'{"token": 5}', id="number"),
        pytest.param(b'{"token": "a b"}', id="space"),
        pytest.param(b'{"token": "a\\r\\nX: y"}', id="header injection"),
        pytest.param(b'{"token": "a\\u0000"}', id="NUL"),
        pytest.param(b'{"token": "\\u00e4"}', id="not ASCII"),
        pytest.param(b'{"token": "a", "expires_in": "soon"}', id="no seconds"),
        pytest.param(b'{"token": "a", "expires_in": [1]}', id="seconds in a list"),
    ],
)
async def test_a_token_must_fit_a_header(origin: Origin, connect: Connect, body: bytes) -> None:
    """What isn't a token, or would break out of its header, is never sent."""
    Tokens(origin)
    origin.fail("GET /token", status(200, body))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="without a usable token"):
        await upstream.manifest(X86, V1)
    assert origin.asked.count(MANIFEST) == 1


async def test_an_overloaded_token_service_says_when_to_come_back(origin: Origin, connect: Connect) -> None:
    """The token service's `Retry-After` is kept."""
    Tokens(origin)
    origin.fail("GET /token", status(429, Retry_After="17"))
    upstream = await connect(origin)

    with pytest.raises(Overloaded) as caught:
        await upstream.manifest(X86, V1)
    assert caught.value.retry_after == "17"


@pytest.mark.parametrize("known", [True, False], ids=["before the request", "after a challenge"])
async def test_those_who_wait_for_a_token_share_its_failure(
    origin: Origin, connect: Connect, clock: Clock, *, known: bool
) -> None:
    """When a token can't be fetched, the fifty who wait for it hear so, and don't ask one after the other."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    upstream = await connect(origin)
    if known:
        await upstream.manifest(X86, V1)
        clock.advance(600)
    asked = len(tokens.asked)
    gate = asyncio.Event()

    async def busy(request: web.BaseRequest) -> web.StreamResponse:
        await gate.wait()
        return web.Response(status=503)

    origin.fail("GET /token", busy)
    requests = [asyncio.create_task(upstream.manifest(X86, V1)) for _ in range(50)]
    await until(lambda: len(origin.requests) >= (4 if known else 51))
    await asyncio.sleep(0.05)
    gate.set()

    found = await asyncio.gather(*requests, return_exceptions=True)

    assert {str(error) for error in found} == {"the token service of hub answered 503"}
    assert {type(error) for error in found} == {Overloaded}
    assert len(tokens.asked) == asked + 1


async def test_a_failed_token_is_not_remembered(origin: Origin, connect: Connect) -> None:
    """Who asks afterwards makes a new attempt."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    origin.fail("GET /token", once(status(503)))
    upstream = await connect(origin)
    with pytest.raises(Overloaded):
        await upstream.manifest(X86, V1)

    assert (await upstream.manifest(X86, V1)).body
    assert len(tokens.asked) == 2


async def test_all_who_wait_for_a_token_may_leave(origin: Origin, connect: Connect) -> None:
    """When everybody was cancelled, nothing is left behind, and the next caller is served."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    upstream = await connect(origin)
    origin.fail("GET /token", once(hang()))
    requests = [asyncio.create_task(upstream.manifest(X86, V1)) for _ in range(3)]
    await until(lambda: bool(tokens.asked))
    for request in reversed(requests):
        request.cancel()
    await asyncio.wait(requests)

    assert (await upstream.manifest(X86, V1)).body
    assert len(tokens.asked) == 2
    assert len(upstream._asker.authorizer.door.tokens._fetching) == 0


async def test_a_token_of_somebody_else_counts_only_so_long(origin: Origin, connect: Connect, clock: Clock) -> None:
    """However long a token lasts: a permission that was revoked must show in time."""
    push_pair(origin.registry)
    tokens = Tokens(origin, seconds=86_400)
    alice = (await connect(origin)).acting_as(Fixed(ALICE), longest=30.0)
    await alice.manifest(X86, V1)
    clock.advance(29)
    await alice.manifest(X86, V1)
    assert len(tokens.asked) == 1
    clock.advance(2)

    await alice.manifest(X86, V1)

    assert len(tokens.asked) == 2
