"""Turns, cores and what processes cost."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from loadtest import cpu
from loadtest.bench import Run, alternate, busy, ratios, scores
from loadtest.machine import pinned, share_out


def test_contestants_take_turns_another_one_first_each_time() -> None:
    """Contestants take turns another one first each time."""
    order: list[str] = []

    def contestant(name: str) -> Callable[[], Run]:
        return lambda: order.append(name) or Run(float(len(order)), 0.5)  # type: ignore[func-returns-value]

    runs = alternate({name: contestant(name) for name in "abc"}, 3)

    assert "".join(order) == "abcbcacab"
    assert scores(runs["a"]) == [1.0, 6.0, 8.0]


def test_ratios_are_of_neighbours() -> None:
    """Ratios are of neighbours."""
    assert ratios([Run(2.0, 1.0), Run(9.0, 1.0)], [Run(1.0, 1.0), Run(3.0, 1.0)]) == (2.0, 3.0)
    assert busy([Run(1.0, 0.2), Run(1.0, 0.4), Run(1.0, 0.9)]) == 0.4


def test_two_cores_are_shared_only_where_a_pair_takes_both() -> None:
    """Two cores are shared only where a pair takes both."""
    two, four = share_out([0, 1]), share_out([4, 5, 6, 7])

    assert (two.server, two.load, two.shared) == ((0,), (1,), True)
    assert (four.server, four.pair, four.load_of_pair, four.shared) == ((4,), (4, 5), (6, 7), False)
    with pytest.raises(SystemExit):
        share_out([0])


def test_commands_are_pinned() -> None:
    """Commands are pinned."""
    assert pinned((0, 1), ["nginx", "-v"]) == ["taskset", "-c", "0,1", "nginx", "-v"]


def test_a_process_costs_something_and_one_that_is_gone_nothing() -> None:
    """A process costs something and one that is gone nothing."""
    gone = 2**22 + 1  # more than there are ids of processes

    assert cpu.seconds(os.getpid()) > 0
    assert cpu.resident(os.getpid()) > 1
    assert (cpu.seconds(gone), cpu.resident(gone)) == (0.0, 0.0)
