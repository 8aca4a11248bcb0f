"""What a process knows of its cache folder, whatever configuration it runs by."""

from __future__ import annotations

from conftest import Clock
from proxy.store.upkeep import Upkeep


def test_what_is_still_to_be_written_has_what_requests_have_left() -> None:
    """Stopping takes `drain`, and not twice; but a moment there always is. Without a stop all of it may be taken."""
    ticks = Clock()
    upkeep = Upkeep(ticks, ticks)
    before = upkeep.patience(25.0)
    upkeep.stop()
    ticks.advance(7.0)
    soon = upkeep.patience(25.0)
    ticks.advance(18.0)

    assert (before, soon, upkeep.patience(25.0)) == (25.0, 18.0, 5.0)
