"""What a server says about being asked: quotas and `Retry-After`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Clock
from images import ARM, V1, X86, push_pair
from proxy.oci.byterange import Whole
from proxy.oci.errors import BadAnswer, Overloaded
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest
from proxy.telemetry import Metrics
from proxy.upstream.ratelimit import LONGEST_WAIT, MOST_STRETCH, Quota, RateLimit, seconds
from scripted import Fault, Origin, once, status
from upstream.peers import Connect, Tokens

LAYER = b"layer"
DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


def amounts(remaining: str, limit: str = "100;w=21600") -> dict[str, str]:
    """Return the headers of an answer."""
    return {"ratelimit-limit": limit, "ratelimit-remaining": remaining}


@pytest.fixture
def limit(clock: Clock) -> RateLimit:
    """A server that has said nothing yet."""
    return RateLimit("hub", clock)


# Quotas


@pytest.mark.parametrize(
    ("headers", "quota"),
    [
        (amounts("76;w=21600"), Quota(limit=100, remaining=76, window=21600)),
        (amounts("76"), Quota(limit=100, remaining=76, window=21600)),
        (amounts("76", "100"), Quota(limit=100, remaining=76, window=60)),
        (amounts("76", "100, 100;w=60"), Quota(limit=100, remaining=76, window=60)),
        (amounts(" 0 ", " 100 "), Quota(limit=100, remaining=0, window=60)),
        (amounts("0;w=0"), Quota(limit=100, remaining=0, window=0)),
    ],
)
def test_quotas_are_read(headers: dict[str, str], quota: Quota) -> None:
    """As Docker Hub writes them, and as others do, who leave the window out."""
    assert Quota.read(headers) == quota


@pytest.mark.parametrize("word", ["", "-1", "many", "1.5", "0x10", "٣", "9" * 40, "1e3"])
def test_what_is_no_amount_is_no_quota(word: str) -> None:
    """A header that can't be read is as good as none."""
    assert Quota.read(amounts(word)) is None
    assert Quota.read(amounts("1", word)) is None
    assert Quota.read({}) is None


@pytest.mark.parametrize(
    ("remaining", "stretch"), [(150, 1.0), (100, 1.0), (51, 1.0), (50, 1.0), (25, 5.5), (5, 9.1), (0, 10.0)]
)
def test_answers_last_longer_as_the_quota_shrinks(remaining: int, stretch: float) -> None:
    """As long as ever above half of the limit, ten times as long with nothing left."""
    assert Quota(limit=100, remaining=remaining).stretch == pytest.approx(stretch)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_less_never_stretches_less(limit: int, one: int, another: int) -> None:
    """The stretch is from 1 to 10, and never smaller for a smaller rest."""
    less, more = (Quota(limit=limit, remaining=each).stretch for each in sorted((one, another)))

    assert 1.0 <= more <= less <= MOST_STRETCH


def test_a_quota_ends_with_its_window(limit: RateLimit, clock: Clock) -> None:
    """Six hours later Docker Hub grants everything anew; an answer without headers changes nothing until then."""
    assert limit.stretch() == 1.0
    limit.heard(200, amounts("0;w=21600"))
    limit.heard(200, {})
    clock.advance(21_599)
    assert limit.stretch() == 10.0
    clock.advance(1)

    assert limit.stretch() == 1.0


async def test_quotas_are_read_from_every_answer(origin: Origin, connect: Connect) -> None:
    """Of HEAD and GET, of manifests and errors; operators see them, and so does who asks for the stretch."""
    x86, _ = push_pair(origin.registry)
    body = (await origin.registry.manifest(X86, V1, ANYTHING)).body
    found = {"Content_Type": x86.media_type, "Docker_Content_Digest": x86.digest}
    origin.fail("HEAD ", status(200, body, **found, ratelimit_limit="100;w=21600", ratelimit_remaining="25;w=21600"))
    origin.fail("GET ", status(429, ratelimit_limit="200;w=21600", ratelimit_remaining="0;w=21600"))
    metrics = Metrics()
    upstream = await connect(origin, metrics=metrics)
    silent = (upstream.stretch(), "ratelimit_limit{" in metrics.render().decode())

    await upstream.resolve(X86, V1)
    after_head = upstream.stretch()
    with pytest.raises(Overloaded):
        await upstream.manifest(X86, V1)

    text = metrics.render().decode()
    assert silent == (1.0, False)
    assert (after_head, upstream.stretch()) == (5.5, 10.0)
    assert 'manifuse_upstream_ratelimit_limit{upstream="hub"} 200.0' in text
    assert 'manifuse_upstream_ratelimit_remaining{upstream="hub"} 0.0' in text


async def test_others_quotas_are_not_the_upstream_s(origin: Origin, other: Origin, connect: Connect) -> None:
    """What a redirect's target or a token service grants is not what the registry does."""
    origin.fail("/blobs/", status(307, Location=f"{other.url}/blob"))
    nothing = status(200, LAYER, ratelimit_limit="100;w=21600", ratelimit_remaining="0;w=21600")
    other.fail("", nothing)
    service = Tokens(origin)
    upstream = await connect(origin)
    async with upstream.blob(X86, Digest.of(LAYER), Whole()):
        pass
    origin.fail("GET /token", once(nothing))
    service.valid.clear()

    with pytest.raises(BadAnswer, match="usable token"):
        await upstream.manifest(X86, V1)

    assert upstream.stretch() == 1.0


# Retry-After


@pytest.mark.parametrize(
    ("text", "date", "wait"),
    [
        ("17", "", 17.0),
        (" 17 ", "", 17.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", DATE, 30.0),
        ("9" * 40, "", 999_999_999.0),
        ("0", "", None),
        ("-5", "", None),
        ("1.5", "", None),
        ("soon", DATE, None),
        ("", DATE, None),
        (DATE, DATE, None),
        ("Wed, 21 Oct 2026 07:27:00 GMT", DATE, None),
        (DATE, "", None),
        (DATE, "today", None),
        (DATE, "Wed, 21 Oct 2026 07:28:00 -0000", None),
    ],
)
def test_retry_after_is_read(text: str, date: str, wait: float | None) -> None:
    """Seconds, or a date that counts from the answer's own; what is past or can't be read says nothing."""
    found = seconds(text, date)

    assert found == wait or (wait is not None and found is not None and found >= wait)


@pytest.mark.parametrize("code", [429, 503])
def test_who_wants_to_be_left_alone_is(limit: RateLimit, clock: Clock, code: int) -> None:
    """Until then every request fails at once, and says how many seconds are left."""
    assert limit.heard(code, {"Retry-After": "17"}) == 17
    clock.advance(10.5)
    with pytest.raises(Overloaded, match="hub wants not to be asked for another 7 s") as caught:
        limit.check()
    clock.advance(6.5)
    limit.check()

    assert caught.value.retry_after == "7"


def test_nobody_is_left_alone_for_hours(limit: RateLimit, clock: Clock) -> None:
    """A minute at most: it may have been a mistake."""
    assert limit.heard(429, {"Retry-After": "86400"}) == 86_400
    with pytest.raises(Overloaded) as caught:
        limit.check()
    clock.advance(LONGEST_WAIT)
    limit.check()

    assert caught.value.retry_after == "60"


def test_a_later_word_shortens_nothing(limit: RateLimit, clock: Clock) -> None:
    """Answers of requests that were sent together come in any order."""
    limit.heard(429, {"Retry-After": "30"})
    limit.heard(429, {"Retry-After": "2"})
    clock.advance(20)

    with pytest.raises(Overloaded):
        limit.check()


@pytest.mark.parametrize("code", [200, 202, 404, 500, 502])
def test_only_429_and_503_ask_for_it(limit: RateLimit, code: int) -> None:
    """`Retry-After` means something else with other statuses."""
    assert limit.heard(code, {"Retry-After": "17"}) == 0
    limit.check()


@pytest.mark.parametrize("fault", [status(429, Retry_After="17"), status(503, Retry_After="17")], ids=["429", "503"])
async def test_documents_wait_until_then(origin: Origin, connect: Connect, clock: Clock, fault: Fault) -> None:
    """Neither manifest, HEAD nor list is asked for before; then they are."""
    x86, _ = push_pair(origin.registry)
    origin.fail("", fault)
    upstream = await connect(origin)
    with pytest.raises(Overloaded) as first:
        await upstream.manifest(X86, V1)
    origin.heal()
    clock.advance(7)

    for read in (upstream.manifest(X86, V1), upstream.resolve(X86, V1), upstream.tags(X86, None, "")):
        with pytest.raises(Overloaded, match="wants not to be asked") as caught:
            await read
        assert caught.value.retry_after == "10"

    assert first.value.retry_after == "17"
    assert len(origin.requests) == 1
    clock.advance(10)
    assert (await upstream.manifest(X86, V1)).descriptor.digest == x86.digest


async def test_downloads_go_on(origin: Origin, connect: Connect) -> None:
    """A pull that has its manifest is let finish: registries count manifests."""
    origin.registry.add_blob(X86, LAYER)
    origin.fail("/manifests/", status(429, Retry_After="17"))
    upstream = await connect(origin)
    with pytest.raises(Overloaded):
        await upstream.manifest(X86, V1)

    async with upstream.blob(X86, Digest.of(LAYER), Whole()) as blob:
        assert [chunk async for chunk in blob.chunks] == [LAYER]


async def test_a_token_service_waits_alone(origin: Origin, connect: Connect, clock: Clock) -> None:
    """A busy token service isn't asked before; who has a token asks the registry."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    upstream = await connect(origin)
    await upstream.manifest(X86, V1)
    origin.fail("GET /token", status(429, Retry_After="17"))
    for _ in range(3):
        with pytest.raises(Overloaded, match="token service"):
            await upstream.tags(ARM, None, "")  # another scope

    assert len(tokens.asked) == 2
    clock.advance(17)
    origin.heal()
    assert (await upstream.manifest(X86, V1)).body
