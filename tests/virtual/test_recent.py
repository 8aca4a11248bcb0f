"""What is true for a few seconds only."""

from __future__ import annotations

from proxy.virtual.recent import Recent


def test_an_item_ends_at_its_time() -> None:
    """An item holds until its time; what it was can be asked still."""
    recent: Recent[str, int] = Recent(10)
    recent.put("key", 1, until=5.0)

    assert [recent.get("key", now) for now in (4.9, 5.0)] == [1, None]
    assert recent.last("key") == 1


def test_nothing_holds_before_it_began() -> None:
    """A clock that goes backwards by a year lets nothing hold for a year."""
    recent: Recent[str, int] = Recent(10)
    recent.put("key", 1, until=5.0, since=4.0)

    assert [recent.get("key", now) for now in (3.9, 4.0)] == [None, 1]


def test_the_oldest_leaves_when_there_are_too_many() -> None:
    """It never holds more than it may."""
    recent: Recent[int, int] = Recent(3)
    for number in range(5):
        recent.put(number, number, until=9.0)

    assert [recent.get(number, 0.0) for number in range(5)] == [None, None, 2, 3, 4]
    assert len(recent) == 3


def test_an_item_can_end_early() -> None:
    """A dropped item is gone, and dropping nothing is fine."""
    recent: Recent[str, int] = Recent(3)
    recent.put("key", 1, until=9.0)
    recent.drop("key")
    recent.drop("key")

    assert recent.get("key", 0.0) is None
