"""Writes that nobody waits for."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from structlog.testing import capture_logs

from proxy.store import behind
from proxy.store.behind import Behind


async def test_writes_begin_in_their_order() -> None:
    """What waits is begun together, in its order; all of it is done before the end."""
    line, began, done = Behind(), list[int](), set[int]()

    async def write(number: int) -> None:
        began.append(number)
        await asyncio.sleep(0)
        done.add(number)

    for number in range(5):
        await line.add(number, partial(write, number))
    await line.close()

    assert began == [0, 1, 2, 3, 4]
    assert done == {0, 1, 2, 3, 4}


async def test_writes_of_one_thing_wait_for_each_other() -> None:
    """The second may undo the first: it begins when that is done, however long it takes, and so does what follows."""
    line, events = Behind(), list[str]()

    async def write(name: str, turns: int) -> None:
        events.append(f"{name} begins")
        for _ in range(turns):
            await asyncio.sleep(0)
        events.append(f"{name} ends")

    await line.add("key", partial(write, "first", 5))
    await line.add("key", partial(write, "second", 0))
    await line.add("other", partial(write, "third", 0))
    await line.close()

    assert events[:3] == ["first begins", "first ends", "second begins"]
    assert len(events) == 6


async def test_a_group_has_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more are begun at once than files may be open."""
    monkeypatch.setattr(behind, "_TOGETHER", 2)
    line, going, most = Behind(), 0, 0

    async def write() -> None:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0)
        going -= 1

    for number in range(5):
        await line.add(number, write)
    await line.close()

    assert (going, most) == (0, 2)


async def test_one_can_be_waited_for() -> None:
    """Whoever needs a write done waits for it, and for those in front of it."""
    line, done = Behind(), list[str]()

    async def write(name: str) -> None:
        await asyncio.sleep(0)
        done.append(name)

    await line.add("one", partial(write, "first"))
    await line.add("other", partial(write, "second"))
    await line.settle("other")
    await line.settle("nothing")

    assert done == ["first", "second"]


async def test_one_that_fails_stops_nobody() -> None:
    """A write that raises is its own affair; the next is done all the same."""
    line, done = Behind(), list[str]()

    async def fails() -> None:
        raise OSError("no")

    async def write() -> None:
        done.append("done")

    await line.add("key", fails)
    await line.add("key", write)
    await line.close()

    assert done == ["done"]


async def test_a_full_line_makes_its_callers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that can't follow slows those who write, instead of filling the memory."""
    monkeypatch.setattr(behind, "_MOST", 2)
    line, gate = Behind(), asyncio.Event()

    async def write() -> None:
        await gate.wait()

    for _ in range(2):
        await line.add(object(), write)
    third = asyncio.create_task(line.add(object(), write))
    await asyncio.sleep(0)
    waited = not third.done()
    gate.set()
    await third
    await line.close()

    assert waited


async def test_an_empty_line_ends_at_once() -> None:
    """There is nothing to wait for."""
    await Behind().close()


async def test_a_line_rests_until_somebody_waits() -> None:
    """Writes leave disk and cores to the answer that is being made; whoever needs one done gets it at once."""
    line, done = Behind(rest=3600), list[str]()

    async def write(name: str) -> None:
        done.append(name)

    await line.add("one", partial(write, "first"))
    await asyncio.sleep(0.01)
    resting = list(done)
    await line.settle("one")
    settled = list(done)
    await line.add("other", partial(write, "second"))
    await asyncio.sleep(0.01)
    resting_again = list(done)
    await line.close()

    assert (resting, settled, resting_again, done) == ([], ["first"], ["first"], ["first", "second"])


async def test_a_line_that_is_never_quiet_begins_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the service is, what it was told is on disk a while later."""
    monkeypatch.setattr(behind, "_RESTS", 3)
    line, began = Behind(rest=0.02), asyncio.Event()

    async def write() -> None:
        began.set()

    for _ in range(200):
        await line.add("busy", write)
        await asyncio.sleep(0.01)
        if began.is_set():
            break
    await line.close()

    assert began.is_set()


async def test_a_slow_disk_is_not_waited_for_without_end() -> None:
    """When the service stops: what hasn't begun by then is given up, told, and nobody waits for it any more."""
    line, gate, done = Behind(), asyncio.Event(), list[int]()

    async def write(number: int) -> None:
        await gate.wait()
        done.append(number)

    for number in range(3):
        await line.add("key", partial(write, number))
    waiting = asyncio.create_task(line.settle("key"))
    await asyncio.sleep(0)
    with capture_logs() as logs:
        written = await line.close(0.01)
    await waiting
    gate.set()

    assert not written
    assert logs == [{"event": "cache folder too slow, not everything is kept", "log_level": "warning", "count": 3}]
    assert await line.close(None)
    assert done == [0]
