"""How often a client may ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Clock
from proxy.web.rates import Rates


def test_a_burst_and_then_the_rate(clock: Clock) -> None:
    """Ten at once, then two a second; who waits may burst again, but not more than before."""
    rates = Rates(2.0, 10, clock)
    assert [rates.take("a") for _ in range(12)] == [True] * 10 + [False] * 2
    assert rates.wait("a") == pytest.approx(0.5)
    clock.advance(0.5)
    assert [rates.take("a"), rates.take("a")] == [True, False]
    assert rates.take("b")
    clock.advance(3600)
    assert [rates.take("a") for _ in range(11)] == [True] * 10 + [False]
    assert rates.take(None)
    assert rates.wait(None) == 0


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 5), st.floats(0.5, 4))
def test_never_more_than_burst_and_rate(waits: list[float], burst: int, rate: float) -> None:
    """In any stretch of time at most the burst and what the rate gives meanwhile."""
    clock = Clock(0.0)
    rates, taken = Rates(rate, burst, clock), []
    for wait in waits:
        clock.advance(wait)
        if rates.take("a"):
            taken.append(clock.now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - start) + 1e-6


def test_memory_is_bounded(clock: Clock) -> None:
    """Full buckets are forgotten first, then the fuller half: who is over its rate is remembered."""
    rates = Rates(1.0, 2, clock, most=100)
    assert [rates.take("greedy") for _ in range(3)] == [True, True, False]
    for number in range(10_000):
        assert rates.take(f"client{number}")
        assert len(rates) <= 100
    assert not rates.take("greedy")
    clock.advance(10)
    for number in range(60):
        rates.take(f"later{number}")
    assert len(rates) <= 100
