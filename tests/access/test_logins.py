"""Logins that upstreams accept: how often they are asked."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest
from prometheus_client import Counter

from conftest import Clock, until
from proxy.access.logins import Logins
from proxy.oci.access import Login
from proxy.oci.errors import NoAnswer, Overloaded, Refused, RegistryError

ALICE = Login("alice", "secret")


class Registry:
    """An upstream that accepts, refuses or doesn't answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Login]] = []
        self.error: RegistryError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def greet(self, upstream: str, login: Login) -> None:
        """Say whether a login counts."""
        self.asked.append((upstream, login))
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def registry() -> Registry:
    """One that accepts all."""
    return Registry()


@pytest.fixture
def logins(registry: Registry, clock: Clock) -> Logins:
    """What remembers for a minute."""
    return Logins(registry.greet, 60.0, clock, Counter("coalesced", "waiting", registry=None))


async def test_a_clock_that_goes_back_makes_nothing_count_for_longer(
    logins: Logins, registry: Registry, clock: Clock
) -> None:
    """Neither that a login was accepted, also in answers that are given again, nor that it was refused."""
    lease = await logins.accepted("hub", ALICE)
    registry.error = Refused("no")
    clock.advance(-86_400)
    held = lease.holds(clock())
    with pytest.raises(Refused):
        await logins.accepted("hub", ALICE)
    registry.error = None
    clock.advance(-86_400)
    await logins.accepted("hub", ALICE)

    assert not held
    assert len(registry.asked) == 3


async def test_one_question_for_all(logins: Logins, registry: Registry, clock: Clock) -> None:
    """Until its time is over; another upstream is another question."""
    await asyncio.gather(*(logins.accepted("hub", ALICE) for _ in range(9)))
    clock.advance(59)
    lease = await logins.accepted("hub", ALICE)
    assert lease.holds(clock())
    assert registry.asked == [("hub", ALICE)]
    await logins.accepted("quay", ALICE)
    clock.advance(1)
    assert not lease.holds(clock())
    await logins.accepted("hub", ALICE)
    assert len(registry.asked) == 3


async def test_a_refusal_is_remembered_for_a_moment(logins: Logins, registry: Registry, clock: Clock) -> None:
    """Registries lock accounts that are tried too often."""
    registry.error = Refused("wrong", seen=401)
    for _ in range(3):
        with pytest.raises(Refused, match="wrong") as refused:
            await logins.accepted("hub", ALICE)
        assert refused.value.seen == 401
    assert len(registry.asked) == 1
    registry.error = None
    clock.advance(5)
    await logins.accepted("hub", ALICE)


async def test_what_strangers_send_is_not_kept(clock: Clock) -> None:
    """Ten thousand refusals are remembered, and a header may have 64 KB."""

    async def refuse(upstream: str, login: Login) -> None:
        raise Refused("wrong", seen=401)

    logins = Logins(refuse, 60.0, clock, Counter("coalesced", "waiting", registry=None))
    tracemalloc.start()
    for n in range(100):
        with pytest.raises(Refused):
            await logins.accepted("hub", Login("alice", f"{n}" + "x" * 40_000))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000


async def test_no_answer_is_no_acceptance(logins: Logins, registry: Registry, clock: Clock) -> None:
    """What was accepted counts for its time, and nothing new does; the next one asks again."""
    await logins.accepted("hub", ALICE)
    registry.error = NoAnswer("down")
    clock.advance(59)
    await logins.accepted("hub", ALICE)
    clock.advance(1)
    for _ in range(2):
        with pytest.raises(NoAnswer):
            await logins.accepted("hub", ALICE)
    assert len(registry.asked) == 3


def guesses(count: int) -> list[Login]:
    """Return as many logins that nobody has seen."""
    return [Login("alice", f"guess {n}") for n in range(count)]


async def test_whoever_guesses_holds_up_nobody_else(logins: Logins, registry: Registry) -> None:
    """Of one client few logins are asked about at once; its others wait, and those of others don't."""
    registry.gate.clear()
    asking = [asyncio.create_task(logins.accepted("hub", each, "10.0.0.1")) for each in guesses(20)]
    await until(lambda: len(registry.asked) == 8)
    others = asyncio.create_task(logins.accepted("hub", ALICE, "10.0.0.2"))
    await until(lambda: len(registry.asked) == 9)
    assert registry.asked[-1] == ("hub", ALICE)
    registry.gate.set()
    await asyncio.gather(*asking, others)
    assert len(registry.asked) == 21


async def test_a_client_has_no_endless_line(logins: Logins, registry: Registry) -> None:
    """What is too much is refused at once, and only until there is room again."""
    registry.gate.clear()
    asking = [asyncio.create_task(logins.accepted("hub", each, "10.0.0.1")) for each in guesses(256)]
    await until(lambda: len(registry.asked) == 8)
    with pytest.raises(Overloaded) as overloaded:
        await logins.accepted("hub", ALICE, "10.0.0.1")
    assert overloaded.value.retry_after == "1"
    registry.gate.set()
    await asyncio.gather(*asking)
    await logins.accepted("hub", ALICE, "10.0.0.1")


async def test_a_login_that_was_good_stands_in_no_line(logins: Logins, registry: Registry, clock: Clock) -> None:
    """Behind one address there may be many who are asked about again and again, and one who guesses."""
    await logins.accepted("hub", ALICE, "10.0.0.1")
    clock.advance(61)
    registry.gate.clear()
    asking = [asyncio.create_task(logins.accepted("hub", each, "10.0.0.1")) for each in guesses(64)]
    await until(lambda: len(registry.asked) == 9)
    again = asyncio.create_task(logins.accepted("hub", ALICE, "10.0.0.1"))
    await until(lambda: len(registry.asked) == 10)
    registry.gate.set()
    await asyncio.gather(*asking, again)
