"""When trouble with a disk is told."""

from __future__ import annotations

from conftest import Clock
from proxy.store.trouble import QUIET, Trouble


def test_trouble_is_told_once(clock: Clock) -> None:
    """What fails again, or goes well in between, is the same trouble."""
    trouble = Trouble(clock)
    told = []
    for _ in range(5):
        told.append(trouble.begins())
        clock.advance(QUIET - 1)
        trouble.may_end()

    assert told == [True, False, False, False, False]


def test_trouble_ends_with_what_goes_well_after_a_quiet_time(clock: Clock) -> None:
    """Only then is a failure new."""
    trouble = Trouble(clock)
    trouble.begins()
    clock.advance(QUIET)
    assert not trouble.begins()

    clock.advance(QUIET)
    trouble.may_end()
    assert trouble.begins()
