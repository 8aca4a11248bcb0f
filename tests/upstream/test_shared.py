"""Work done once for all who want it."""

from __future__ import annotations

import asyncio

import pytest

from proxy.oci.errors import BadAnswer
from proxy.upstream.shared import Shared


async def test_work_is_done_once_for_each_key() -> None:
    """All who come while it is under way share its value; who comes later begins anew."""
    shared, done = Shared[str, int](), list[str]()

    async def work(name: str) -> int:
        done.append(name)
        await asyncio.sleep(0)
        return len(done)

    found = await asyncio.gather(*(shared.do(key, lambda key=key: work(key)) for key in "aabab"))  # type: ignore[misc]  # a default isn't inferred
    assert done == ["a", "b"]
    assert found[0] == found[1] == found[3]
    await shared.do("a", lambda: work("a"))
    assert done == ["a", "b", "a"]
    assert len(shared) == 0


async def test_a_failure_is_shared() -> None:
    """Who waits hears what went wrong, and nothing is left behind."""
    shared, done = Shared[str, int](), list[None]()

    async def work() -> int:
        done.append(None)
        await asyncio.sleep(0)
        raise BadAnswer("no")

    found = await asyncio.gather(*(shared.do("a", work) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [BadAnswer] * 3
    assert len(done) == 1
    assert len(shared) == 0


async def test_when_one_leaves_the_next_does_it() -> None:
    """The work of somebody who has left is not waited for."""
    shared, gate, begun = Shared[str, str](), asyncio.Event(), list[str]()

    async def work(name: str) -> str:
        begun.append(name)
        await gate.wait()
        return name

    first = asyncio.create_task(shared.do("a", lambda: work("first")))
    second = asyncio.create_task(shared.do("a", lambda: work("second")))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert await second == "second"
    assert begun == ["first", "second"]


async def test_an_error_of_our_own_is_not_shared() -> None:
    """A bug is told to who has met it; the others try for themselves."""
    shared = Shared[str, int]()

    async def wrong() -> int:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        await shared.do("a", wrong)
    assert len(shared) == 0
