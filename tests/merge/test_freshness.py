import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.merge.freshness import Age, Freshness
from proxy.oci.errors import (
    BadAnswer,
    ManifestUnknown,
    NoAnswer,
    Overloaded,
    Refused,
    RegistryError,
    TimedOut,
    Unreachable,
)

LIMITS = Freshness(tag_ttl=60, stale_while_revalidate=600, stale_if_error=86_400, stale_if_refused=300)


def test_defaults_are_those_of_the_configuration() -> None:
    """A minute fresh, ten minutes stale, a day of trouble, five minutes of refusal."""
    assert Freshness() == LIMITS
    assert Freshness().negative_ttl == 10


@pytest.mark.parametrize(
    ("age", "means"),
    [
        (0, Age.FRESH),
        (60, Age.FRESH),
        (60.1, Age.STALE),
        (660, Age.STALE),
        (660.1, Age.EXPIRED),
        (float("inf"), Age.EXPIRED),
        (-0.1, Age.EXPIRED),
        (float("nan"), Age.EXPIRED),
    ],
)
def test_age_is_judged(age: float, means: Age) -> None:
    """Limits are inclusive, the later one is added to the first; a clock that went back makes nothing fresh."""
    assert LIMITS.judge(age) is means


def test_no_grace_means_asking_at_once() -> None:
    """Zero turns a limit off."""
    strict = Freshness(tag_ttl=0, stale_while_revalidate=0)

    assert strict.judge(0) is Age.FRESH
    assert strict.judge(0.001) is Age.EXPIRED


@pytest.mark.parametrize("kind", [NoAnswer, Unreachable, TimedOut, Overloaded, BadAnswer])
def test_trouble_holds_for_a_day(kind: type[NoAnswer]) -> None:
    """No answer of any kind: the last good generation stands for `stale_if_error`, and no longer."""
    assert LIMITS.may_hold(86_460, kind("trouble"))
    assert not LIMITS.may_hold(86_461, kind("trouble"))


def test_refusal_holds_for_minutes() -> None:
    """A revoked permission must count soon (S10)."""
    assert LIMITS.may_hold(360, Refused("denied"))
    assert not LIMITS.may_hold(361, Refused("denied"))


@given(st.floats(0, 1e9))
def test_answer_never_holds(age: float) -> None:
    """An authoritative no takes effect at once, however young the entry."""
    assert not LIMITS.may_hold(age, ManifestUnknown("gone"))
    assert not LIMITS.may_hold(age, RegistryError("what?"))
