"""Leases: given with an answer from memory, for as long as it holds, and ended by whatever may change it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from conftest import Clock, Proxy, StartProxy, until
from images import ARM, V1, VIRTUAL, push, push_pair
from proxy.oci.lease import Lease
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, Reference, Repository, Tag
from proxy.store.base import Virtual
from proxy.virtual import leases as module
from proxy.virtual.leases import Leases
from scripted import Origin, status, waits_for

HERE = Virtual("hub", VIRTUAL)


async def lease_of(proxy: Proxy, reference: Reference = V1, repository: Repository = VIRTUAL) -> Lease | None:
    """Ask for a manifest and return the lease that comes with it."""
    registry, there = proxy.site.directory.find("", (), "", repository)
    return (await registry.manifest(there.repository, reference, ANYTHING)).delivery.lease


async def leased(proxy: Proxy, reference: Reference = V1) -> Lease:
    """Ask until the answer comes from memory, and return its lease."""
    for _ in range(2):
        lease = await lease_of(proxy, reference)
    assert lease is not None
    assert lease.live
    return lease


@pytest.fixture
async def proxy(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> Proxy:
    """A proxy in front of the pair, which may be pushed to."""
    push_pair(origin.registry)
    return await start(origin, rule=[rule], upstream={"push": True}, hooks={"secret": "secret"})


@pytest.mark.parametrize("since", [None, 50.0], ids=["of a digest", "of a tag"])
def test_a_lease_begins_when_it_is_given(since: float | None) -> None:
    """A clock that goes backwards by a year gives nobody a year, not even for what can't change: rights can."""
    leases = Leases()
    lease = leases.grant(leases.open(HERE, V1), 100.0, since=since, until=130.0)

    assert [lease.holds(now) for now in (99.0, 100.0, 129.0, 130.0)] == [False, True, True, False]


async def test_every_answer_has_one_but_a_stale_one(origin: Origin, proxy: Proxy, clock: Clock) -> None:
    """What was just asked for, what was confirmed, and what comes from memory."""
    first = await lease_of(proxy)
    hit = await lease_of(proxy)
    clock.advance(61)
    confirmed = await lease_of(proxy)
    held_before = confirmed is not None and confirmed.holds(clock.now + 59)
    clock.advance(61)
    origin.fail("", status(503))

    assert first is hit
    assert held_before
    assert await lease_of(proxy) is None


@pytest.mark.parametrize("known", [False, True])
async def test_what_was_asked_for_before_a_push_has_none(
    origin: Origin, proxy: Proxy, clock: Clock, *, known: bool
) -> None:
    """Somebody pushes a source while a tag is asked for: what comes of it is given to who asked, never again."""
    if known:
        await lease_of(proxy)
        clock.advance(61)
    gate = asyncio.Event()
    origin.fail("HEAD /v2/kimoqi/alpine/manifests", waits_for(gate))
    asked = asyncio.create_task(lease_of(proxy))
    await until(lambda: len([each for each in origin.requests if "manifests/1.0" in str(each)]) >= 3)
    await _push(proxy, origin)
    gate.set()

    assert await asked is None


@pytest.mark.parametrize(("ttl", "seconds"), [("30s", 30), ("60s", 60), ("forever", 60)])
async def test_it_ends_with_freshness_and_after_a_minute(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, *, ttl: str, seconds: float
) -> None:
    """It never outlasts `tag_ttl`, and uses are noted once a minute at least, whatever `tag_ttl` is."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], cache={"tag_ttl": ttl})
    lease = await leased(proxy)

    assert (lease.since, lease.until) == (clock.now, clock.now + seconds)
    assert lease.holds(clock.now + seconds - 0.1)
    assert not lease.holds(clock.now + seconds)
    assert not lease.holds(clock.now - 1)


async def test_it_is_extended_by_the_next_answer(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """All who hold it profit: the answer is the same."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], cache={"tag_ttl": "90s"})
    lease = await leased(proxy)
    confirmed = clock.now
    clock.advance(50)
    again = await leased(proxy)

    assert again is lease
    assert (lease.since, lease.until) == (confirmed, confirmed + 90)


async def test_it_lasts_as_long_as_a_rate_limit_stretches_freshness(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """What `tag_ttl` becomes while a rate limit runs out holds for leases, too."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], cache={"tag_ttl": "10s"})
    origin.fail("HEAD ", status(404, ratelimit_limit="100;w=21600", ratelimit_remaining="5;w=21600"))
    await lease_of(proxy)
    lease = await leased(proxy)

    assert lease.until > clock.now + 10


async def _revalidate(proxy: Proxy, _: Origin) -> None:
    url, secret = f"{proxy.admin}/hooks/origin0", {"Authorization": "Bearer secret"}
    event = {"repository": ARM, "tag": V1}
    async with aiohttp.ClientSession(headers=secret) as session, session.post(url, json=event) as response:
        assert response.status < 300


async def _push(proxy: Proxy, origin: Origin) -> None:
    push(origin.registry, ARM, "next", "linux/arm64")
    manifest = await origin.registry.manifest(ARM, Tag("next"), ANYTHING)
    kind = {"Content-Type": manifest.descriptor.media_type}
    url = f"{proxy.url}/v2/{ARM}/manifests/1.0"
    async with aiohttp.ClientSession(headers=kind) as session, session.put(url, data=manifest.body) as response:
        assert response.status == 201


async def _delete(proxy: Proxy, origin: Origin) -> None:
    digest = (await origin.registry.resolve(ARM, V1, ANYTHING)).descriptor.digest
    async with (
        aiohttp.ClientSession() as session,
        session.delete(f"{proxy.url}/v2/{ARM}/manifests/{digest}") as response,
    ):
        assert response.status == 202


@pytest.mark.parametrize("happens", [_revalidate, _push, _delete])
async def test_what_happens_ends_it(
    origin: Origin, proxy: Proxy, happens: Callable[[Proxy, Origin], Awaitable[None]]
) -> None:
    """An event, a push of a source, and a deletion end the tag's lease before they are answered."""
    lease = await leased(proxy)
    await happens(proxy, origin)

    assert not lease.live


async def test_a_new_entry_ends_it(origin: Origin, proxy: Proxy, clock: Clock) -> None:
    """So does asking anew, whether something has changed or not, or nobody answers."""
    ended = []
    for change in ("nothing", "pushed", "gone"):
        lease = await leased(proxy)
        if change == "pushed":
            push(origin.registry, ARM, "1.0", "linux/arm64", text=change)
        if change == "gone":
            origin.fail("", status(404))
        clock.advance(61)
        await proxy.get("/v2/kimoqi/alpine/manifests/1.0")
        ended.append(not lease.live)

    assert ended == [True, True, True]


async def test_a_digest_has_one_until_it_is_forgotten(origin: Origin, proxy: Proxy, clock: Clock) -> None:
    """What can't change has no age, and is asked for once a minute; deleting it ends its lease."""
    index = Digest.of((await proxy.get("/v2/kimoqi/alpine/manifests/1.0")).body)
    child = (await origin.registry.resolve(ARM, V1, ANYTHING)).descriptor.digest
    kept = await leased(proxy, index)
    await lease_of(proxy, child, ARM)
    deleted = await lease_of(proxy, child, ARM)
    assert (kept.since, kept.until) == (None, clock.now + 60)
    assert deleted is not None
    await _delete(proxy, origin)

    assert not deleted.live


def test_what_was_read_before_a_change_gets_no_lease_after_it() -> None:
    """An answer that was on its way when everything changed is given once, and never again."""
    leases = Leases()
    lease = leases.open(HERE, V1)
    leases.end(HERE, V1)
    leases.grant(lease, 0.0, since=0.0, until=60.0)

    assert not lease.holds(1.0)
    assert leases.open(HERE, V1).live


async def test_another_configuration_ends_all(origin: Origin, proxy: Proxy) -> None:
    """After a reload nothing is answered again that the old configuration said, not even what is still asked."""
    lease = await leased(proxy)
    proxy.site.retire()
    late = await lease_of(proxy)

    assert not lease.live
    assert late is not None
    assert not late.live


def test_they_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest ends when there are too many."""
    monkeypatch.setattr(module, "_MOST", 3)
    leases = Leases()
    given = [leases.open(HERE, Tag(str(number))) for number in range(5)]

    assert [lease.live for lease in given] == [False, False, True, True, True]


async def test_a_flight_ends_it_late(origin: Origin, proxy: Proxy) -> None:
    """An event ends the lease at once, and what is answered until the question is through ends with it."""
    await leased(proxy)
    gate = asyncio.Event()
    origin.fail("HEAD /v2/kimoqi/alpine-arm", waits_for(gate))
    await _revalidate(proxy, origin)
    between = await lease_of(proxy)
    assert between is not None
    assert between.live
    gate.set()
    await until(lambda: not between.live)
