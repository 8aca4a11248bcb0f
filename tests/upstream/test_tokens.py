"""Tokens from a service: OAuth2's refresh tokens, and what keeps two credentials apart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

from conftest import Clock
from images import ARM, V1, X86, push_pair
from proxy.oci.errors import BadAnswer, NoAnswer, Overloaded, Refused
from proxy.upstream.credentials import Credential, Fixed, IdentityToken
from scripted import Origin, status
from upstream.peers import ALICE, BOB, Connect, Tokens, sent

REFRESH = IdentityToken("refresh-1")
NAMED = IdentityToken("refresh-1", "alice")
SCOPE = "repository:kimoqi/alpine-x86:pull"


@dataclass
class OAuth:
    """A token service that takes refresh tokens.

    Attributes:
        takes: The refresh tokens that it knows.
        renews: What it gives for a refresh token, together with an access token.
        forms: What it was sent.
    """

    tokens: Tokens
    takes: set[str] = field(default_factory=lambda: {"refresh-1"})
    renews: Mapping[str, str] = field(default_factory=dict)
    forms: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin to serve."""
        self.tokens.origin.fail("POST /token", self._exchange)

    async def _exchange(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.content_type == "application/x-www-form-urlencoded"
        form = dict(parse_qsl((await request.read()).decode(), strict_parsing=True))
        self.forms.append(form)
        refresh = form["refresh_token"]
        if refresh not in self.takes:
            return web.json_response({"error": "invalid_grant"}, status=401)
        token = f"exchanged.{len(self.forms)}"
        self.tokens.valid.add(token)
        renewed = {"refresh_token": self.renews[refresh]} if refresh in self.renews else {}
        return web.json_response({"access_token": token, "expires_in": 300, **renewed})


async def test_a_refresh_token_is_exchanged_by_post(origin: Origin, connect: Connect) -> None:
    """The form is OAuth2's; the refresh token is in the body alone, where no log of URLs or headers has it."""
    push_pair(origin.registry)
    service = OAuth(Tokens(origin))
    upstream = await connect(origin, credential=REFRESH)

    await upstream.manifest(X86, V1)

    form = {"grant_type": "refresh_token", "service": "tests", "client_id": "manifuse", "scope": SCOPE}
    assert service.forms == [{**form, "refresh_token": "refresh-1"}]
    assert sent(origin) == [None, None, "Bearer exchanged.1"]
    assert all("refresh-1" not in f"{request.path}?{request.query}" for request in origin.requests)


async def test_a_renewed_refresh_token_is_used_from_then_on(origin: Origin, connect: Connect) -> None:
    """What the service gives in its place counts, for every scope."""
    push_pair(origin.registry)
    service = OAuth(Tokens(origin), renews={"refresh-1": "refresh-2", "refresh-2": "refresh-3"})
    service.takes |= {"refresh-2"}
    upstream = await connect(origin, credential=REFRESH)

    await upstream.manifest(X86, V1)
    await upstream.manifest(ARM, V1)

    assert [form["refresh_token"] for form in service.forms] == ["refresh-1", "refresh-2"]


@pytest.mark.parametrize("login", [REFRESH, NAMED])
async def test_the_configured_one_is_tried_again_when_its_successor_is_refused(
    origin: Origin, connect: Connect, login: IdentityToken
) -> None:
    """A successor that doesn't count is forgotten: one refusal, and the next request begins anew."""
    push_pair(origin.registry)
    service = OAuth(Tokens(origin, logins=set()), renews={"refresh-1": "lost"})
    upstream = await connect(origin, credential=login)
    await upstream.manifest(X86, V1)
    with pytest.raises(Refused):
        await upstream.manifest(ARM, V1)

    await upstream.manifest(ARM, V1)

    assert [form["refresh_token"] for form in service.forms] == ["refresh-1", "lost", "refresh-1"]


@pytest.mark.parametrize("code", [400, 401, 404, 405])
async def test_where_post_is_not_known_a_named_one_is_a_password(origin: Origin, connect: Connect, code: int) -> None:
    """GCR says 404, Artifactory 401, ACR 400: GET with Basic then, and at once from then on."""
    push_pair(origin.registry)
    password = Credential("alice", "refresh-1")
    Tokens(origin, logins={password.basic})
    origin.fail("POST /token", status(code))
    upstream = await connect(origin, credential=NAMED)

    await upstream.manifest(X86, V1)
    await upstream.manifest(ARM, V1)

    ways = [(request.method, request.headers.get("Authorization")) for request in origin.requests]
    assert [each for each in ways if each[1] != password.basic] == [
        ("GET", None),
        ("POST", None),
        ("GET", "Bearer alice.1"),
        ("GET", "Bearer alice.2"),
    ]
    assert len(ways) == 6


@pytest.mark.parametrize(
    ("code", "login", "error", "asked"),
    [
        pytest.param(401, REFRESH, Refused, 1, id="refused"),
        pytest.param(403, NAMED, Refused, 1, id="forbidden"),
        pytest.param(401, NAMED, Refused, 2, id="refused either way"),
        pytest.param(404, REFRESH, BadAnswer, 1, id="not known, and no name"),
        pytest.param(418, NAMED, BadAnswer, 1, id="something else"),
        pytest.param(429, NAMED, Overloaded, 1, id="too often"),
        pytest.param(503, NAMED, Overloaded, 1, id="overloaded"),
        pytest.param(307, NAMED, BadAnswer, 1, id="a redirect is not followed"),
    ],
)
async def test_a_refresh_token_that_gives_none_costs_two_attempts_at_most(
    origin: Origin, connect: Connect, code: int, login: IdentityToken, error: type[Exception], asked: int
) -> None:
    """Refusals are told from trouble, and nothing is asked in a loop."""
    tokens = Tokens(origin, logins=set())
    origin.fail("POST /token", status(code, Location=f"{origin.url}/elsewhere"))
    upstream = await connect(origin, credential=login)

    with pytest.raises(error) as caught:
        await upstream.manifest(X86, V1)
    assert len(tokens.asked) == asked
    assert "refresh-1" not in f"{caught.value!r}{login!r}"


async def test_a_registry_that_wants_a_password_gets_no_identity_token(origin: Origin, connect: Connect) -> None:
    """A refresh token is for a token service alone."""
    origin.fail(" /v2/", status(401, WWW_Authenticate="Basic realm=x"))
    upstream = await connect(origin, credential=NAMED)

    with pytest.raises(Refused, match="not for an identity token"):
        await upstream.manifest(X86, V1)
    assert sent(origin) == [None]


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"token": 5}',
        b'{"token": "a b"}',
        b'{"token": "a\\nb"}',
        b'{"token": "x", "expires_in": [1]}',
    ],
)
async def test_an_unusable_answer_is_no_token(origin: Origin, connect: Connect, answer: bytes) -> None:
    """What can't be put into a header isn't, whatever way it was asked for."""
    OAuth(Tokens(origin))
    origin.fail("POST /token", status(200, answer))
    upstream = await connect(origin, credential=REFRESH)

    with pytest.raises(BadAnswer, match="usable token"):
        await upstream.manifest(X86, V1)


async def test_credentials_of_one_door_never_cross_over(origin: Origin, connect: Connect) -> None:
    """One registry, one realm, one scope, interleaved: each request has the token of its own credential (S16)."""
    push_pair(origin.registry)
    tokens = OAuth(Tokens(origin)).tokens
    upstream = await connect(origin)
    await upstream.manifest(X86, V1)
    people = [upstream.acting_as(Fixed(login)) for login in (ALICE, BOB, Credential("alice", "other"), REFRESH, None)]
    origin.requests.clear()

    for _ in range(3):
        await asyncio.gather(*(person.manifest(X86, V1) for person in people for _ in range(5)))

    assert len(tokens.asked) == 4  # nobody's token was there
    bearers = {header for header in sent(origin) if str(header).startswith("Bearer")}
    assert len(bearers) == len(people)


@pytest.mark.parametrize(("age", "asked"), [(59, 1), (61, 2)])
async def test_a_403_may_mean_an_old_token(
    origin: Origin, connect: Connect, clock: Clock, age: float, asked: int
) -> None:
    """ECR says 403 of a token that has expired: one that was kept a while is renewed once, a new one is not."""
    push_pair(origin.registry)
    tokens = Tokens(origin, seconds=3600)
    upstream = await connect(origin, credential=ALICE)
    await upstream.manifest(X86, V1)
    clock.advance(age)

    async def expired(request: web.BaseRequest) -> web.StreamResponse | None:
        return None if request.headers.get("Authorization") == "Bearer alice.2" else web.Response(status=403)

    origin.fail("GET /v2/", expired)
    if asked == 2:
        assert (await upstream.manifest(X86, V1)).body
    else:
        with pytest.raises(Refused):
            await upstream.manifest(X86, V1)
    assert len(tokens.asked) == asked


async def test_a_403_that_stays_is_asked_once_more_and_meant_then(
    origin: Origin, connect: Connect, clock: Clock
) -> None:
    """A repository that nobody may pull costs one renewal in a minute, not one for each request."""
    push_pair(origin.registry)
    tokens = Tokens(origin, seconds=3600)
    upstream = await connect(origin, credential=ALICE)
    await upstream.manifest(X86, V1)
    clock.advance(300)
    origin.fail("GET /v2/", status(403))

    for _ in range(5):
        with pytest.raises(Refused):
            await upstream.manifest(X86, V1)

    assert len(tokens.asked) == 2
    assert len(origin.asked) == 2 + 1 + 2 + 4 + 1


async def test_trouble_of_the_service_behind_a_403_is_no_answer(origin: Origin, connect: Connect, clock: Clock) -> None:
    """Whether the 403 is meant can't be known while no newer token can be had."""
    push_pair(origin.registry)
    Tokens(origin, seconds=3600)
    upstream = await connect(origin, credential=ALICE)
    await upstream.manifest(X86, V1)
    clock.advance(300)
    origin.fail("GET /v2/", status(403))
    origin.fail("GET /token", status(503))

    with pytest.raises(NoAnswer):
        await upstream.manifest(X86, V1)


async def test_a_403_to_nobody_is_meant(origin: Origin, connect: Connect) -> None:
    """Without anything that was sent there is nothing to renew, and a password has no age."""
    origin.fail("GET /v2/", status(403))
    upstream = await connect(origin, credential=ALICE)

    with pytest.raises(Refused):
        await upstream.manifest(X86, V1)
    assert sent(origin) == [None]
