"""Who we say we are: challenges, Basic, realms, credentials that change, and where none is ever sent."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from conftest import Clock
from images import ARM, V1, X86, push, push_pair
from proxy.oci.byterange import Whole
from proxy.oci.errors import BadAnswer, NoAnswer, NotFound, Overloaded, Refused
from proxy.oci.reference import Digest, Repository
from proxy.telemetry import Metrics
from proxy.upstream.credentials import ByRepository, Credential, Fixed, Login
from scripted import Fault, Origin, running, status
from upstream.peers import ALICE, BOB, Connect, Tokens, basic_door, sent


async def test_an_upstream_is_asked_anonymously_until_it_challenges(origin: Origin, connect: Connect) -> None:
    """Credentials aren't shown to an upstream that doesn't ask for them."""
    push_pair(origin.registry)
    upstream = await connect(origin, credential=ALICE)

    await upstream.manifest(X86, V1)

    assert sent(origin) == [None]


async def test_basic_is_sent_after_the_first_challenge(origin: Origin, connect: Connect) -> None:
    """After one 401 the user name and password are sent with every request at once."""
    push_pair(origin.registry)
    basic_door(origin, ALICE)
    upstream = await connect(origin, credential=ALICE)

    await upstream.manifest(X86, V1)
    await upstream.manifest(ARM, V1)

    assert sent(origin) == [None, ALICE.basic, ALICE.basic]


async def test_basic_without_credentials_is_refused(origin: Origin, connect: Connect) -> None:
    """An upstream that wants a password, where none is configured, says so in words."""
    basic_door(origin, ALICE)
    upstream = await connect(origin)

    with pytest.raises(Refused, match="asks for a user name and password, none is configured"):
        await upstream.manifest(X86, V1)


async def test_wrong_credentials_are_sent_once(origin: Origin, connect: Connect) -> None:
    """What was refused isn't sent again: accounts are locked for less."""
    basic_door(origin, ALICE)
    upstream = await connect(origin, credential=BOB)

    with pytest.raises(Refused, match="refuses access"):
        await upstream.manifest(X86, V1)
    assert sent(origin) == [None, BOB.basic]


@pytest.mark.parametrize("challenge", ["Negotiate", "Digest realm=x", "Bearer service=x", 'Bearer realm=""', "", '"'])
async def test_a_challenge_that_nobody_can_meet_is_a_refusal(origin: Origin, connect: Connect, challenge: str) -> None:
    """A scheme that isn't spoken here, or a Bearer without a realm, is a no and not an error of ours."""
    origin.fail(" /v2/", status(401, WWW_Authenticate=challenge))
    upstream = await connect(origin, credential=ALICE)

    with pytest.raises(Refused):
        await upstream.manifest(X86, V1)
    assert sent(origin) == [None]


async def test_a_foreign_realm_gets_no_credentials_and_no_request(
    origin: Origin, other: Origin, connect: Connect
) -> None:
    """A realm on another host isn't even contacted (CVE-2026-33540)."""
    Tokens(origin, realm=f"{other.url}/token")
    upstream = await connect(origin, credential=ALICE)

    with pytest.raises(BadAnswer, match="auth_realms can allow it"):
        await upstream.manifest(X86, V1)
    assert other.requests == []
    assert sent(origin) == [None]


async def test_a_listed_realm_gets_the_credentials(origin: Origin, other: Origin, connect: Connect) -> None:
    """A token service on another host is used when the operator lists it."""
    push_pair(origin.registry)
    service = Tokens(other)
    Tokens(origin, realm=f"{other.url}/token", valid=service.valid)
    upstream = await connect(origin, credential=ALICE, realms=(other.url,))

    await upstream.manifest(X86, V1)

    assert sent(other) == [ALICE.basic]
    assert sent(origin) == [None, "Bearer alice.1"]


async def test_a_foreign_realm_is_not_remembered(origin: Origin, connect: Connect) -> None:
    """An upstream that named a wrong realm once is asked again, and heals."""
    push_pair(origin.registry)
    tokens = Tokens(origin, realm="https://attacker.test/token")
    upstream = await connect(origin)
    with pytest.raises(BadAnswer, match="token realm"):
        await upstream.manifest(X86, V1)
    tokens.realm = ""

    manifest = await upstream.manifest(X86, V1)

    assert manifest.body


async def test_a_token_service_that_moved_is_found_again(
    origin: Origin, other: Origin, connect: Connect, clock: Clock
) -> None:
    """When the known service gives no answer, the next request asks the upstream anew where it is."""
    push_pair(origin.registry)
    service = Tokens(other)
    door = Tokens(origin, realm=f"{other.url}/token", valid=service.valid)
    upstream = await connect(origin, realms=(other.url,))
    await upstream.manifest(X86, V1)
    other.fail("GET /token", status(404))
    door.realm = ""
    clock.advance(600)
    service.valid.clear()
    with pytest.raises(BadAnswer, match="token service"):
        await upstream.manifest(X86, V1)

    manifest = await upstream.manifest(X86, V1)

    assert manifest.body


async def test_a_challenge_of_a_redirect_s_target_gets_nothing(origin: Origin, other: Origin, connect: Connect) -> None:
    """Who was only redirected to may challenge as it likes: it never sees the credentials."""
    basic_door(other, ALICE)
    blob = Digest.of(b"layer")
    origin.fail("/blobs/", status(307, Location=f"{other.url}/v2/kimoqi/alpine-x86/blobs/{blob}"))
    upstream = await connect(origin, credential=ALICE)

    with pytest.raises(BadAnswer):
        async with upstream.blob(X86, blob, Whole()):
            pass
    assert set(sent(other)) == {None}


async def test_two_upstreams_never_share_credentials(origin: Origin, other: Origin, connect: Connect) -> None:
    """Requests to two upstreams, interleaved, carry each its own credentials alone (S16)."""
    push_pair(origin.registry)
    push_pair(other.registry)
    Tokens(origin)
    basic_door(other, BOB)
    one, two = await connect(origin, credential=ALICE), await connect(other, credential=BOB)

    await asyncio.gather(*(upstream.manifest(X86, V1) for _ in range(40) for upstream in (one, two)))

    assert set(sent(origin)) == {None, ALICE.basic, "Bearer alice.1"}
    assert set(sent(other)) == {None, BOB.basic}


async def test_two_credentials_for_one_registry_never_cross_over(connect: Connect) -> None:
    """Even with one realm, service and scope a token belongs to the credential it was issued for (S16)."""
    async with running(Origin()) as origin:
        push(origin.registry, X86)
        Tokens(origin)
        alice, bob = await connect(origin, credential=ALICE), await connect(origin, credential=BOB)
        await asyncio.gather(*(upstream.manifest(X86, V1) for _ in range(20) for upstream in (alice, bob)))
        origin.requests.clear()

        await alice.manifest(X86, V1)
        await bob.manifest(X86, V1)

        assert [str(header).partition(".")[0] for header in sent(origin)] == ["Bearer alice", "Bearer bob"]


async def test_secrets_are_in_no_error_and_no_metric(origin: Origin, connect: Connect) -> None:
    """Neither passwords nor tokens come out in what operators and clients read (S17)."""
    metrics = Metrics()
    tokens = Tokens(origin, valid={"nothing"})
    origin.fail("GET /token", status(200, b'{"token": "planted-token"}'))
    upstream = await connect(origin, credential=ALICE, metrics=metrics)

    with pytest.raises((Refused, NoAnswer)) as caught:
        await upstream.manifest(X86, V1)

    kept = upstream._asker.authorizer.door.tokens._kept
    seen = f"{caught.value!r} {caught.value.message} {metrics.render().decode()} {kept!r}"
    assert len(tokens.asked) == 1
    assert not [secret for secret in (ALICE.password, ALICE.basic, "planted-token") if secret in seen]


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
async def test_a_greeting_says_whether_the_credential_counts(origin: Origin, connect: Connect, scheme: str) -> None:
    """Who is accepted is; who isn't is refused, whether the registry's scheme was known before or not."""
    Tokens(origin, logins={ALICE.basic}) if scheme == "bearer" else basic_door(origin, ALICE)
    for _ in range(2):
        alice, bob = await connect(origin, credential=ALICE), await connect(origin, credential=BOB)
        await alice.greet()
        with pytest.raises(Refused):
            await bob.greet()
        await alice.greet()
        with pytest.raises(Refused):
            await alice.acting_as(Fixed(BOB)).greet()


async def test_a_greeting_is_of_this_moment(origin: Origin, connect: Connect) -> None:
    """A token that is kept says nothing of a credential that was revoked since."""
    logins = {ALICE.basic}
    tokens = Tokens(origin, logins=logins)
    upstream = await connect(origin, credential=ALICE)
    await upstream.greet()
    await upstream.greet()
    assert len(tokens.asked) == 2
    logins.clear()

    with pytest.raises(Refused, match="refuses the credentials"):
        await upstream.greet()


async def test_a_registry_that_asks_nobody_accepts_any(origin: Origin, connect: Connect) -> None:
    """Without a challenge there is nothing to be refused."""
    await (await connect(origin, credential=BOB)).greet()

    assert sent(origin) == [None]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (status(403), Refused),
        (status(401), Refused),
        (status(401, WWW_Authenticate="Basic realm=x"), Refused),
        (status(404), BadAnswer),
        (status(302), BadAnswer),
        (status(500), Overloaded),
        (status(429), Overloaded),
    ],
)
@pytest.mark.parametrize("missing", [(404,), (401, 404)])
async def test_a_greeting_tells_a_refusal_from_trouble(
    origin: Origin, connect: Connect, fault: Fault, error: type[Exception], missing: tuple[int, ...]
) -> None:
    """Whatever "missing" means for images, 401 and 403 are refusals here, and everything else is no answer."""
    origin.fail("GET /v2/", fault)

    with pytest.raises(error):
        await (await connect(origin, missing=missing)).greet()


async def test_many_may_share_one_transport(origin: Origin, connect: Connect) -> None:
    """In whoever's name: what one has learned of the registry spares the others a challenge, but no token is shared."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    nobody = await connect(origin)
    await nobody.manifest(X86, V1)
    origin.requests.clear()
    people = [nobody.acting_as(Fixed(Credential(f"user{n}", "pw"))) for n in range(20)]

    await asyncio.gather(*(person.manifest(X86, V1) for person in people for _ in range(3)))

    names = sorted(str(header).partition(".")[0] for header in sent(origin) if "Basic" not in str(header))
    assert names == sorted(f"Bearer user{n}" for n in range(20) for _ in range(3))
    assert len(tokens.asked) == 20


class Changing:
    """Credentials of which each is followed by another, once somebody says that it was refused."""

    def __init__(self, *logins: Login | NoAnswer | None) -> None:
        self.logins = list(logins)
        self.asked_for: list[str] = []

    async def of(self, repository: Repository, *, refused: Login | None = None) -> Login | None:
        """Return the one of now."""
        self.asked_for.append(repository)
        if refused is not None and refused == self.logins[0] and len(self.logins) > 1:
            del self.logins[0]
        if isinstance(self.logins[0], NoAnswer):
            raise self.logins[0]
        return self.logins[0]


async def test_a_password_that_has_changed_is_learned_at_the_door(origin: Origin, connect: Connect) -> None:
    """A registry that refuses the one before is asked once more, with the newer one."""
    push_pair(origin.registry)
    basic_door(origin, BOB)
    upstream = (await connect(origin)).acting_as(Changing(ALICE, BOB))

    with pytest.raises(Refused):  # the first 401 only says how to ask, and one request has one retry
        await upstream.manifest(X86, V1)
    await upstream.manifest(X86, V1)

    assert sent(origin) == [None, ALICE.basic, ALICE.basic, BOB.basic]


async def test_a_password_that_has_changed_is_learned_at_the_token_service(origin: Origin, connect: Connect) -> None:
    """A token service that refuses the one before is asked once more, with the newer one."""
    push_pair(origin.registry)
    Tokens(origin, logins={BOB.basic})
    upstream = (await connect(origin)).acting_as(Changing(ALICE, BOB))

    await upstream.manifest(X86, V1)

    assert sent(origin) == [None, ALICE.basic, BOB.basic, "Bearer bob.1"]


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
async def test_a_credential_that_stays_is_not_sent_again(origin: Origin, connect: Connect, scheme: str) -> None:
    """Where there is nothing newer a refusal is the answer."""
    Tokens(origin, logins=set()) if scheme == "bearer" else basic_door(origin, BOB)
    upstream = (await connect(origin)).acting_as(Changing(ALICE))

    with pytest.raises(Refused):
        await upstream.manifest(X86, V1)
    assert sent(origin).count(ALICE.basic) == 1


async def test_ecr_says_403_of_an_expired_password(origin: Origin, connect: Connect) -> None:
    """Its passwords last twelve hours: one renewal on 403, as on 401, and never in a loop."""
    push_pair(origin.registry)
    basic_door(origin, ALICE)
    logins = Changing(ALICE, BOB, Credential("carol", "c"))
    upstream = (await connect(origin)).acting_as(logins)
    await upstream.manifest(X86, V1)
    origin.requests.clear()

    async def expired(request: web.BaseRequest) -> web.StreamResponse | None:
        return None if request.headers.get("Authorization") == BOB.basic else web.Response(status=403)

    origin.heal()
    origin.fail("GET /v2/", expired)
    await upstream.manifest(X86, V1)
    assert sent(origin) == [ALICE.basic, BOB.basic]
    origin.fail("GET /v2/", status(403))

    with pytest.raises(Refused, match="refuses access"):
        await upstream.manifest(X86, V1)
    assert sent(origin)[2:] == [BOB.basic, Credential("carol", "c").basic]


async def test_a_credential_is_asked_for_by_the_repository_s_own_name(origin: Origin, connect: Connect) -> None:
    """With the repository it is about, and without any for the catalog."""
    push_pair(origin.registry)
    basic_door(origin, ALICE)
    logins = Changing(ALICE)
    upstream = (await connect(origin)).acting_as(logins)

    await upstream.manifest(X86, V1)
    await upstream.tags(ARM, None, "")
    await upstream.catalog(None, "")

    assert set(logins.asked_for) == {X86, ARM, ""}
    assert logins.asked_for[-1] == ""


@pytest.mark.parametrize("known", [True, False])
async def test_a_credential_that_can_not_be_had_is_no_answer(origin: Origin, connect: Connect, *, known: bool) -> None:
    """A helper that fails is told as such: nobody is asked anonymously in its place, and nothing is missing."""
    push_pair(origin.registry)
    basic_door(origin, ALICE)
    nobody = await connect(origin, missing=(401, 404), credential=ALICE)
    if known:
        await nobody.manifest(X86, V1)
    origin.requests.clear()

    with pytest.raises(BadAnswer, match="no helper"):
        await nobody.acting_as(Changing(BadAnswer("no helper"))).manifest(X86, V1)
    assert sent(origin) == ([] if known else [None])


async def test_only_nobody_may_be_told_that_something_is_missing(origin: Origin, connect: Connect) -> None:
    """Docker Hub's 401 for what doesn't exist: it depends on who asks for this repository."""
    origin.fail(" /v2/", status(401, WWW_Authenticate="Basic realm=x"))
    logins = ByRepository([("kimoqi/alpine-arm", Fixed(ALICE))])
    upstream = (await connect(origin, missing=(401, 404))).acting_as(logins)

    with pytest.raises(NotFound):
        await upstream.manifest(X86, V1)
    with pytest.raises(Refused):
        await upstream.manifest(ARM, V1)
