"""The table of hot answers: what it keeps, what it lets go."""

from __future__ import annotations

from itertools import permutations

import pytest

from conftest import Clock
from proxy.oci.lease import Lease
from proxy.web.table import Table
from web.heads import head, response


class TestTable:
    """The table alone."""

    @pytest.fixture
    def lease(self, clock: Clock) -> Lease:
        """A lease of a minute."""
        lease = Lease()
        lease.until = clock.now + 60
        return lease

    def test_it_is_bounded(self, clock: Clock, lease: Lease) -> None:
        """What was not used since the last look leaves first; bytes never exceed the limit."""
        table = Table(100_000, clock, clock)
        table.keep(head(path="/used"), response(lease))
        for number in range(200):
            assert table.find(head(path="/used"))
            table.keep(head(path=f"/{number}"), response(lease, b"x" * 1000))
            assert table.size <= 100_000

        assert table.find(head(path="/199"))
        assert not table.find(head(path="/0"))
        assert 10 < len(table) < 100

    def test_what_is_used_stays_however_it_is_spelt(self, clock: Clock, lease: Lease) -> None:
        """Where there is no room for another order of lines, what nobody asks for leaves, not what is given."""
        table = Table(1 << 20, clock, clock)
        lines = ["Accept: a/b", "Accept: c/d", "Accept: e/f"]
        table.keep(head(*lines), response(lease))
        for number in range(3):
            table.keep(head(path=f"/{number}"), response(lease))
        assert table.find(head(*lines))
        table._limit = table.size
        for order in permutations(lines):
            assert table.find(head(*order))
            assert table.find(head(*lines))
            assert table.size <= table._limit

        assert len(table) == 3

    def test_spellings_are_bounded(self, clock: Clock, lease: Lease) -> None:
        """An answer is known by 64 orders of lines at most; others are found, but not remembered."""
        table = Table(1 << 20, clock, clock)
        lines = [f"X-{number}: 1" for number in range(100)]
        table.keep(head(*lines), response(lease))
        before = table.size
        for number in range(100):
            assert table.find(head(*lines[number:], *lines[:number]))
        after = table.size

        assert after - before == 63 * (len(head(*lines)) + 200)
        lease.live = False
        assert not table.find(head(*lines))
        assert (len(table), table.size) == (0, 0)

    def test_what_is_too_large_does_not_enter(self, clock: Clock, lease: Lease) -> None:
        """Neither a head of more than 4 KiB nor an answer of more than 128 KiB, and nothing where there is no room."""
        table, none = Table(1 << 20, clock, clock), Table(0, clock, clock)
        table.keep(head("X: " + "x" * 4096), response(lease))
        table.keep(head(), response(lease, b"x" * (1 << 18)))
        none.keep(head(), response(lease))

        assert (len(table), len(none), none.size) == (0, 0, 0)

    def test_only_successes_enter(self, clock: Clock, lease: Lease) -> None:
        """Nothing but 200 and 304, with a lease that holds and a record to count by."""
        table = Table(1 << 20, clock, clock)
        gone, unknown, unleased = response(lease), response(lease), response(lease)
        gone.set_status(404)
        unknown.record = None
        unleased.lease = None
        for each in (gone, unknown, unleased):
            table.keep(head(), each)

        assert len(table) == 0

    @pytest.mark.parametrize("ends", ["lease", "guard"])
    def test_it_ends_within_a_second(self, clock: Clock, ends: str) -> None:
        """What it may be given for, and whom to, ends at its own moment, not with the second of an age."""
        lease, guard = Lease(), Lease()
        lease.since = clock.now
        lease.until = guard.until = clock.now + 60
        (lease if ends == "lease" else guard).until = clock.now + 1.5
        answer = response(lease)
        answer.guard = guard
        table = Table(1 << 20, clock, lambda: 0.0)
        table.keep(head(), answer)
        found = []
        for seconds in (1.4, 0.05, 0.05):
            clock.advance(seconds)
            found.append(table.find(head()) is not None)

        assert found == [True, True, False]

    def test_the_date_is_the_wall_clocks(self, clock: Clock, lease: Lease) -> None:
        """It goes by another clock than leases do, and may go backwards."""
        wall = Clock(0.0)
        table = Table(1 << 20, clock, wall)
        table.keep(head(), response(lease))
        dates = []
        for seconds in (0, 0.5, 0.5, -1):
            wall.advance(seconds)
            answer = table.find(head())
            assert answer is not None
            dates.append(answer.data.partition(b"Date: ")[2][:29].decode())

        assert [date[20:] for date in dates] == ["00:00 GMT", "00:00 GMT", "00:01 GMT", "00:00 GMT"]
        assert dates[0] == "Thu, 01 Jan 1970 00:00:00 GMT"
