"""Readers of what others wrote: what was found once is read again, and new inputs are tried.

`make fuzz` tries for MANIFUSE_FUZZ_SECONDS with a seed that is printed; otherwise it is a number of inputs with the
seed 0, so that a run says nothing that the one before didn't.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import pytest

from fuzz.engine import Target, explore, grown, keep, limited, report, run, smallest
from fuzz.plan import SECONDS, SEED
from fuzz.targets import TARGETS

_GROWN = 3

each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def budget(target: Target) -> Callable[[int], bool]:
    """Return what says whether to go on."""
    if not SECONDS:
        return lambda tried: tried < target.tries
    end = time.monotonic() + SECONDS / 3 / len(TARGETS)
    return lambda tried: time.monotonic() < end


@each_target
def test_what_was_found(target: Target) -> None:
    """Seeds and found inputs hold."""
    for data in target.corpus:
        run(target, data)


@pytest.mark.timeout(0)
@each_target
def test_whatever_comes(target: Target) -> None:
    """Only declared errors come out, properties hold, and a byte costs no more than a number of lines."""
    findings = []
    for data, error in explore(target, SEED, budget(target)):
        data = smallest(target, data, error)  # noqa: PLW2901 - the same, shorter
        keep(target.name, data)
        findings.append((data, error))
    assert not findings, report(target.name, SEED, findings)


@pytest.mark.parametrize("target", [each for each in TARGETS if each.grows], ids=lambda target: target.name)
def test_a_megabyte(target: Target) -> None:
    """No reader needs time for the square of what it reads, whatever is repeated."""
    random = Random(SEED)
    for _ in range(_GROWN * (10 if SECONDS else 1)):
        data = grown(target, random.choice(target.corpus), random)
        with limited():
            target.check(data)
