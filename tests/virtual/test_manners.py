"""What clients notice of an upstream's manners: shorter waits while it is down, longer answers while it is scarce."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from conftest import Clock, StartProxy, until
from images import ARM, X86, push, push_pair
from proxy.telemetry import Metrics
from proxy.web.distribution import Distribution
from proxy.web.request import always
from scripted import Fault, Origin, once, reset, status

TAG = "/v2/kimoqi/alpine/manifests/1.0"


@dataclass
class Hub:
    """A registry that counts down, as Docker Hub does."""

    origin: Origin
    remaining: int = 100

    def __post_init__(self) -> None:
        """Begin to count."""
        self.origin.fail("/manifests/", self._answer)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await Distribution(always(self.origin.registry), Metrics()).handle(request)
        response.headers["ratelimit-limit"] = "100;w=21600"
        response.headers["ratelimit-remaining"] = f"{self.remaining};w=21600"
        return response


@pytest.mark.parametrize(("remaining", "ttl"), [(100, 60), (50, 60), (25, 330), (0, 600)])
async def test_answers_last_longer_while_little_is_left(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, remaining: int, ttl: int
) -> None:
    """`tag_ttl` grows with what the upstream said when it confirmed the answer, up to tenfold."""
    push_pair(origin.registry)
    Hub(origin, remaining)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    clock.advance(ttl - 1)
    fresh = await proxy.get(TAG)
    clock.advance(2)

    answer = await proxy.get(TAG)

    assert [each.headers["X-Manifuse-Cache"] for each in (fresh, answer)] == ["hit", "revalidated"]


async def test_a_shrinking_limit_makes_nothing_fresh(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """What was confirmed while there was plenty is asked for again in its time, however little is left then."""
    push_pair(origin.registry)
    push_pair(origin.registry, "2.0")
    hub = Hub(origin)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    clock.advance(61)
    hub.remaining = 0
    await proxy.get("/v2/kimoqi/alpine/manifests/2.0")

    answer = await proxy.get(TAG)

    assert answer.headers["X-Manifuse-Cache"] == "revalidated"


async def test_a_failed_check_makes_nothing_fresh(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """An answer that couldn't be confirmed stays stale, even if the failure said that nothing is left."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    clock.advance(61)
    origin.fail("/manifests/", status(429, ratelimit_limit="100;w=21600", ratelimit_remaining="0;w=21600"))

    answers = [await proxy.get(TAG) for _ in range(3)]

    assert {answer.headers["X-Manifuse-Cache"] for answer in answers} == {"stale"}


async def test_a_ttl_of_nothing_stays_nothing(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """With `tag_ttl = "0s"` a tag is asked for every time, whatever is left."""
    push_pair(origin.registry)
    Hub(origin, remaining=0)
    proxy = await start(origin, rule=[rule], cache={"tag_ttl": "0s"})
    await proxy.get(TAG)
    clock.advance(1)

    assert (await proxy.get(TAG)).headers["X-Manifuse-Cache"] == "revalidated"


async def test_forever_stays_forever(origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock) -> None:
    """Ten times for ever is for ever, before and after the limit recovered."""
    push_pair(origin.registry)
    hub = Hub(origin, remaining=0)
    proxy = await start(origin, rule=[rule], cache={"tag_ttl": "forever"})
    await proxy.get(TAG)
    hub.remaining = 100
    clock.advance(10 * 365 * 86_400)

    assert (await proxy.get(TAG)).headers["X-Manifuse-Cache"] == "hit"


async def test_an_event_ends_the_longer_time(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """A registry that says that a source has changed is believed, though little is left."""
    push_pair(origin.registry)
    Hub(origin, remaining=0)
    proxy = await start(origin, rule=[rule], hooks={"secret": "tell"})
    await proxy.get(TAG)
    changed = push(origin.registry, ARM, "1.0", "linux/arm64", text="rebuilt")
    clock.advance(100)
    asked = len(origin.requests)

    event = {"repository": str(ARM), "tag": "1.0"}
    async with proxy.session.post(
        f"{proxy.admin}/hooks/origin0", json=event, headers={"Authorization": "tell"}
    ) as response:
        assert response.status < 300
    await until(lambda: len(origin.requests) >= asked + 5)
    answer = await proxy.get(TAG)

    assert changed.digest.encode() in answer.body


async def test_a_clock_that_goes_back_makes_nothing_fresh(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """An answer from the future is confirmed first, also one that should last longer."""
    push_pair(origin.registry)
    Hub(origin, remaining=0)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    clock.advance(-100)

    assert (await proxy.get(TAG)).headers["X-Manifuse-Cache"] == "revalidated"


async def test_a_clock_that_goes_back_makes_no_failure_last(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """What was found in the future is asked for again: that a tag is missing, or that nobody answers."""
    proxy = await start(origin, rule=[rule])
    missing = await proxy.get(TAG)
    push_pair(origin.registry)
    clock.advance(-86_400)
    found = await proxy.get(TAG)
    clock.advance(61)
    origin.fail("kimoqi", status(503))
    held = await proxy.get(TAG)
    origin.heal()
    clock.advance(-30)
    revalidated = await proxy.get(TAG)

    assert [missing.status, found.status] == [404, 200]
    assert [each.headers["X-Manifuse-Cache"] for each in (held, revalidated)] == ["stale", "hit"]


@pytest.mark.parametrize("fault", [status(503), reset()], ids=["503", "reset"])
async def test_a_hiccup_is_not_noticed(origin: Origin, start: StartProxy, rule: dict[str, Any], fault: Fault) -> None:
    """As it is configured by default, a request that fails once is sent again."""
    push_pair(origin.registry)
    origin.fail("GET .*alpine-arm/manifests/", once(fault))
    proxy = await start(origin, rule=[rule], upstream={"retries": 2})

    assert (await proxy.get(TAG)).status == 200


async def test_a_dead_registry_costs_nobody_time(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """After a few failures a cold tag is a 503 at once that says when to come back, and a known one is served."""
    x86, arm = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], upstream={"breaker": 3})
    await proxy.get(TAG)
    clock.advance(61)
    origin.fail("", status(502))
    await proxy.get(TAG)
    asked = len(origin.requests)

    cold = await proxy.get("/v2/kimoqi/alpine/manifests/2.0")
    clock.advance(4)
    known = await proxy.get(TAG)
    origin.heal()
    clock.advance(10)
    healed = [await proxy.get(TAG) for _ in range(2)][-1]

    assert (cold.status, cold.headers["Retry-After"]) == (503, "5")
    assert b"isn't asked just now" in cold.body
    assert known.headers["X-Manifuse-Cache"] == "stale"
    assert len(origin.requests) > asked
    assert healed.status == 200
    assert all(child.digest.encode() in healed.body for child in (x86, arm))


async def test_a_busy_registry_is_left_alone_until_it_said(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """After a 429 with `Retry-After` nobody's pull asks again; each is told how long is left."""
    push_pair(origin.registry)
    origin.fail(f"/{X86}/manifests/", status(429, Retry_After="17"))
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    asked = len(origin.requests)
    clock.advance(7)

    waiting = await proxy.get(TAG)

    assert (waiting.status, waiting.headers["Retry-After"]) == (503, "10")
    assert len(origin.requests) == asked
    origin.heal()
    clock.advance(10)
    assert (await proxy.get(TAG)).status == 200
