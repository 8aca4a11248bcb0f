"""Leaving alone who doesn't answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from itertools import count, islice, repeat
from typing import Final

import pytest

from conftest import Clock, until
from images import V1, X86, push_pair
from proxy.oci.byterange import Whole
from proxy.oci.errors import BadAnswer, NoAnswer, Overloaded, RegistryError, TimedOut, Unreachable
from proxy.oci.reference import Digest, Repository, Tag
from proxy.telemetry import Metrics
from proxy.upstream.breaker import Breaker
from proxy.upstream.client import Upstream
from proxy.upstream.retry import Retries
from proxy.upstream.transport import Limits
from scripted import Fault, Origin, hang, html, once, reset, status, truncated, waits_for
from upstream.peers import Connect, Tokens

LIMITS = Limits(failures=5)
DOWN = Unreachable("hub: no connection: Connection refused")
LAYER = b"layer"
TAGS: Final = [V1, *(Tag(f"{n}.0") for n in range(2, 10))]
_OTHER: Final = map(str, count())  # things that nobody has asked for before


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """A breaker that opens at the fifth failure."""
    return Breaker("hub", 5, clock)


def ask(breaker: Breaker, outcome: int | BaseException, about: str = "") -> None:
    """Let a request through that ends like that; for something new if nothing is said."""
    with breaker.trial(about or next(_OTHER)) as trial:
        if isinstance(outcome, BaseException):
            raise outcome
        trial.saw(outcome)


def failing(breaker: Breaker, times: int, error: BaseException = DOWN) -> None:
    """Let so many requests fail in a row."""
    for _ in range(times):
        with pytest.raises(type(error)):
            ask(breaker, error)


async def attempt(upstream: Upstream, times: int = 1, *, tags: Iterable[Tag] = repeat(V1)) -> list[str]:
    """Ask so many times for a manifest, by other *tags* if need be, and return what came of it."""
    found = []
    for tag in islice(tags, times):
        try:
            found.append(str((await upstream.manifest(X86, tag)).descriptor.digest))
        except RegistryError as error:
            found.append(error.message)
    return found


# The rule


def test_five_failures_in_a_row_open_it(breaker: Breaker, clock: Clock) -> None:
    """Then nobody is asked, and the sentence says since when and why."""
    for _ in range(4):
        failing(breaker, 1)
        clock.advance(3)
    assert breaker.is_closed
    failing(breaker, 1)

    with pytest.raises(Unreachable) as caught:
        ask(breaker, 200)

    assert caught.value.message == (
        "hub isn't asked just now: it gave no answer 5 times in a row, for 12 s; the last time: "
        "hub: no connection: Connection refused"
    )
    assert caught.value.retry_after == "5"


@pytest.mark.parametrize("outcome", [500, 501, 503, 504, 599])
def test_a_5xx_is_no_answer(breaker: Breaker, outcome: int) -> None:
    """A gateway whose registry is away says 502 for it."""
    for _ in range(5):
        ask(breaker, outcome)

    with pytest.raises(Unreachable, match=f"the last time: it answered {outcome}"):
        ask(breaker, 200)


@pytest.mark.parametrize("outcome", [200, 206, 307, 400, 401, 403, 404, 416, 429, 451])
def test_an_answer_begins_the_count_anew(breaker: Breaker, outcome: int) -> None:
    """Who says no is there, and so is who says that it is too much."""
    failing(breaker, 4)
    ask(breaker, outcome)
    failing(breaker, 4)

    assert breaker.is_closed


@pytest.mark.parametrize("error", [BadAnswer("nonsense"), asyncio.CancelledError(), Overloaded("busy")])
def test_what_proves_nothing_counts_for_nothing(breaker: Breaker, error: BaseException) -> None:
    """Nonsense, and callers that left, neither open it nor begin the count anew."""
    failing(breaker, 20, error)
    assert breaker.is_closed
    failing(breaker, 4)
    failing(breaker, 1, error)
    failing(breaker, 1)

    assert not breaker.is_closed


def test_one_broken_thing_never_opens_it(breaker: Breaker) -> None:
    """Who says 500 of one image is there for all others, however often it is asked in a quiet time."""
    for _ in range(9):
        ask(breaker, 500, "broken")
        with suppress(Unreachable), breaker.trial("cut") as trial:
            trial.saw(200)
            raise DOWN
    assert breaker.is_closed
    failing(breaker, 2)
    assert breaker.is_closed
    ask(breaker, 500, "another")

    assert not breaker.is_closed


def test_a_broken_thing_counts_in_the_next_row_again(breaker: Breaker) -> None:
    """An answer makes its row an old one."""
    ask(breaker, 500, "broken")
    ask(breaker, 200)
    ask(breaker, 500, "broken")
    failing(breaker, 4)

    assert not breaker.is_closed


def test_a_broken_probe_lengthens_the_pause(breaker: Breaker, clock: Clock) -> None:
    """While it is open there is no telling whether a thing is broken by itself."""
    for about in "12345":
        ask(breaker, 503, about)
    clock.advance(5)
    ask(breaker, 503, "1")
    clock.advance(9.9)

    with pytest.raises(Unreachable):
        ask(breaker, 200)


@pytest.mark.parametrize("most", [0, 3])
def test_it_remembers_no_more_than_opens_it(clock: Clock, most: int) -> None:
    """Whatever clients ask for while it fails."""
    breaker = Breaker("hub", most, clock)
    with suppress(Unreachable), breaker.trial("late"):
        for _ in range(9):
            with suppress(Unreachable):
                ask(breaker, 500)

    assert len(breaker._broken) == most


def test_an_answer_whose_body_breaks_off_is_none(breaker: Breaker) -> None:
    """A server that promises and doesn't deliver is as bad as one that is away."""
    for _ in range(5):
        with suppress(Unreachable), breaker.trial(next(_OTHER)) as trial:
            trial.saw(200)
            raise DOWN

    assert not breaker.is_closed


def test_without_a_limit_it_never_opens(clock: Clock) -> None:
    """With `breaker = 0` every request is made."""
    breaker = Breaker("hub", 0, clock)
    failing(breaker, 100)

    assert breaker.is_closed


def test_after_a_while_one_request_is_let_through(breaker: Breaker, clock: Clock) -> None:
    """It alone: the others wait for what it finds. Its answer closes the breaker."""
    failing(breaker, 5)
    clock.advance(5)
    with breaker.trial(next(_OTHER)) as probe:
        with pytest.raises(Unreachable):
            ask(breaker, 200)
        probe.saw(404)

    ask(breaker, 200)
    failing(breaker, 4)
    assert breaker.is_closed


def test_the_pause_doubles_up_to_a_minute(breaker: Breaker, clock: Clock) -> None:
    """5, 10, 20, 40, 60, 60 seconds; after an answer it begins with 5 again."""
    failing(breaker, 5)
    for seconds in (5, 10, 20, 40, 60, 60):
        clock.advance(seconds - 0.1)
        with pytest.raises(Unreachable, match="isn't asked"):
            ask(breaker, 200)
        clock.advance(0.1)
        failing(breaker, 1, TimedOut("hub didn't answer"))
    clock.advance(60)
    ask(breaker, 200)
    failing(breaker, 5)
    clock.advance(5)

    ask(breaker, 200)
    assert breaker.is_closed


@pytest.mark.parametrize("error", [asyncio.CancelledError(), BadAnswer("nonsense")])
def test_a_probe_that_proves_nothing_makes_way_for_the_next(
    breaker: Breaker, clock: Clock, error: BaseException
) -> None:
    """A caller that leaves, or an answer without sense, blocks nobody, and lengthens no pause."""
    failing(breaker, 5)
    clock.advance(5)
    failing(breaker, 1, error)
    assert not breaker.is_closed

    ask(breaker, 200)
    assert breaker.is_closed


def test_late_failures_lengthen_nothing(breaker: Breaker, clock: Clock) -> None:
    """Requests that were under way when it opened fail, too, and that is nothing new."""
    with suppress(Unreachable), breaker.trial(next(_OTHER)):
        failing(breaker, 5)
        raise DOWN
    clock.advance(5)

    ask(breaker, 200)
    assert breaker.is_closed


def test_a_late_answer_closes_it(breaker: Breaker) -> None:
    """A request that was sent before it opened and is answered afterwards shows that somebody is there."""
    with breaker.trial(next(_OTHER)) as trial:
        failing(breaker, 5)
        trial.saw(200)

    assert breaker.is_closed


def test_a_late_answer_beats_the_probe(breaker: Breaker, clock: Clock) -> None:
    """A probe that fails after another request was answered is one failure, no more."""
    with breaker.trial(next(_OTHER)) as late:
        failing(breaker, 5)
        clock.advance(5)
        with suppress(Unreachable), breaker.trial(next(_OTHER)):
            late.saw(200)
            late.settle()
            raise DOWN

    assert breaker.is_closed


def test_a_trial_is_settled_once(breaker: Breaker) -> None:
    """What was settled by its answer doesn't fail afterwards: blobs break off for reasons of their own."""
    for _ in range(9):
        with suppress(Unreachable), breaker.trial(next(_OTHER)) as trial:
            trial.saw(200)
            trial.settle()
            raise DOWN

    assert breaker.is_closed


def test_it_shows_what_it_is(clock: Clock) -> None:
    """A gauge is told at the start and at each change."""
    shown: list[bool] = []
    breaker = Breaker("hub", 5, clock, shown.append)
    failing(breaker, 5)
    clock.advance(5)
    failing(breaker, 1)
    clock.advance(10)
    ask(breaker, 200)
    ask(breaker, 200)

    assert shown == [False, True, False]


# Against a server


@pytest.mark.parametrize(
    "fault",
    [status(500), status(503), reset(), hang(), truncated(b"{", 100)],
    ids=["500", "503", "reset", "hang", "broken off"],
)
async def test_a_dead_upstream_is_left_alone(origin: Origin, connect: Connect, clock: Clock, fault: Fault) -> None:
    """After five failures nobody asks for five seconds; then one request shows that it is well again."""
    x86, _ = push_pair(origin.registry)
    origin.fail("", fault)
    metrics = Metrics()
    upstream = await connect(origin, limits=Limits(failures=5, header=0.5), metrics=metrics)
    await attempt(upstream, 5, tags=TAGS)
    asked = len(origin.requests)
    closed = await attempt(upstream, 3)
    shown = metrics.render().decode()
    origin.heal()
    clock.advance(5)

    assert len(origin.requests) == asked
    assert all("isn't asked just now" in message for message in closed)
    assert 'manifuse_upstream_breaker_open{upstream="hub"} 1.0' in shown
    assert await attempt(upstream) == [x86.digest]
    assert 'manifuse_upstream_breaker_open{upstream="hub"} 0.0' in metrics.render().decode()


@pytest.mark.parametrize(
    "fault",
    [
        status(401),
        status(403),
        status(404),
        status(429),
        status(418),
        html(),
        status(200, b"", Content_Encoding="gzip"),
    ],
    ids=["401", "403", "404", "429", "418", "html", "gzip"],
)
async def test_an_upstream_that_answers_is_asked(origin: Origin, connect: Connect, fault: Fault) -> None:
    """However often it says no, or nonsense."""
    origin.fail("", fault)
    upstream = await connect(origin, limits=LIMITS)

    await attempt(upstream, 10)

    assert len(origin.requests) == 10


@pytest.mark.parametrize("fault", [status(500), truncated(b"{", 100)], ids=["500", "broken off"])
async def test_an_upstream_with_one_broken_image_is_asked(origin: Origin, connect: Connect, fault: Fault) -> None:
    """Its blobs are one thing, too: an image whose content is lost has many of them."""
    origin.fail(f"/manifests/{V1}|/blobs/", fault)
    x86, _ = push_pair(origin.registry, TAGS[1])
    upstream = await connect(origin, limits=LIMITS)

    await attempt(upstream, 9)
    for n in range(9):
        with pytest.raises(NoAnswer):
            async with upstream.blob(X86, Digest.of(bytes([n])), Whole()):
                pass

    assert await attempt(upstream, tags=[TAGS[1]]) == [x86.digest]


async def test_only_one_request_finds_out(origin: Origin, connect: Connect, clock: Clock) -> None:
    """Of twenty that come when the pause is over, one is sent."""
    x86, _ = push_pair(origin.registry)
    origin.fail("", status(500))
    upstream = await connect(origin, limits=LIMITS)
    await attempt(upstream, 5, tags=TAGS)
    origin.heal()
    origin.requests.clear()
    origin.fail("", waits_for(gate := asyncio.Event()))
    clock.advance(5)
    requests = [asyncio.create_task(attempt(upstream)) for _ in range(20)]
    await until(lambda: sum(task.done() for task in requests) == 19)

    gate.set()

    assert [x86.digest] in await asyncio.gather(*requests)
    assert len(origin.requests) == 1


async def test_a_probe_whose_caller_leaves_is_followed_by_another(
    origin: Origin, connect: Connect, clock: Clock
) -> None:
    """A cancelled probe doesn't leave the breaker open for ever."""
    x86, _ = push_pair(origin.registry)
    origin.fail("", status(500))
    upstream = await connect(origin, limits=LIMITS)
    await attempt(upstream, 5, tags=TAGS)
    origin.heal()
    origin.fail("", once(hang()))
    clock.advance(5)
    origin.requests.clear()
    probe = asyncio.create_task(attempt(upstream))
    await until(lambda: bool(origin.requests))
    probe.cancel()
    await asyncio.wait([probe])

    assert await attempt(upstream) == [x86.digest]


async def test_a_request_counts_once_however_often_it_was_tried(origin: Origin, connect: Connect, clock: Clock) -> None:
    """Attempts are there to bridge a moment; five requests have to fail. A probe is tried once."""

    async def at_once(_: float) -> None: ...

    origin.fail("", status(503))
    upstream = await connect(origin, limits=LIMITS, retries=Retries(more=2, sleep=at_once))

    tags = iter(TAGS)
    await attempt(upstream, 4, tags=tags)
    assert len(origin.requests) == 12
    await attempt(upstream, 2, tags=tags)
    assert len(origin.requests) == 15
    clock.advance(5)
    await attempt(upstream, 2, tags=tags)
    assert len(origin.requests) == 16


async def test_blobs_are_not_asked_for_either(origin: Origin, connect: Connect) -> None:
    """A registry that is away has no layers."""
    origin.fail("", status(502))
    upstream = await connect(origin, limits=LIMITS)
    await attempt(upstream, 5, tags=TAGS)

    with pytest.raises(Unreachable, match="isn't asked just now"):
        async with upstream.blob(X86, Digest.of(LAYER), Whole()):
            pass


async def test_a_long_download_is_no_probe(origin: Origin, connect: Connect, clock: Clock) -> None:
    """A blob's headers close the breaker; nobody waits for its last byte."""
    x86, _ = push_pair(origin.registry)
    origin.registry.add_blob(X86, LAYER)
    origin.fail("", status(502))
    upstream = await connect(origin, limits=LIMITS)
    await attempt(upstream, 5, tags=TAGS)
    origin.heal()
    clock.advance(5)

    async with upstream.blob(X86, Digest.of(LAYER), Whole()):
        assert await attempt(upstream) == [x86.digest]


async def test_a_redirect_s_target_is_somebody_else(origin: Origin, other: Origin, connect: Connect) -> None:
    """A storage host that is down doesn't make the registry be left alone."""
    x86, _ = push_pair(origin.registry)
    origin.fail("/blobs/", status(307, Location=f"{other.url}/blob"))
    other.fail("", status(503))
    upstream = await connect(origin, limits=LIMITS)
    for _ in range(9):
        with pytest.raises(NoAnswer):
            async with upstream.blob(X86, Digest.of(LAYER), Whole()):
                pass

    assert await attempt(upstream) == [x86.digest]


async def test_a_token_service_has_a_breaker_of_its_own(origin: Origin, other: Origin, connect: Connect) -> None:
    """While it is left alone the registry is asked with the tokens that are there."""
    push_pair(origin.registry)
    service = Tokens(other)
    Tokens(origin, realm=f"{other.url}/token", valid=service.valid)
    metrics = Metrics()
    upstream = await connect(origin, realms=(other.url,), limits=LIMITS, metrics=metrics)
    other.fail("GET /token", status(500))
    for n in range(9):  # what it may say 500 of is a repository
        with pytest.raises(NoAnswer):
            await upstream.manifest(Repository(f"team/{n}"), V1)

    assert "the token service of hub isn't asked just now" in (await attempt(upstream))[0]
    assert len(service.asked) == 5
    assert len(origin.requests) == 10
    assert 'manifuse_upstream_breaker_open{upstream="hub"} 0.0' in metrics.render().decode()
