"""One question at a time: who leaves, who stays, what is left behind."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import Counter

from proxy.oci.errors import TimedOut
from proxy.virtual.flight import Flights


class Question:
    """Something slow to ask, which counts how often it was."""

    def __init__(self, error: Exception | None = None) -> None:
        self.gate = asyncio.Event()
        self.asked = 0
        self.error = error

    async def __call__(self) -> str:
        """Answer when the gate opens."""
        self.asked += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return "answer"


@pytest.fixture
def flights() -> Flights[str, str]:
    """No questions yet."""
    return Flights(Counter("coalesced", "waiting", registry=None))


async def test_everyone_gets_one_answer(flights: Flights[str, str]) -> None:
    """Callers of one key share one question."""
    question = Question()
    callers = [asyncio.create_task(flights.join("key", question)) for _ in range(10)]
    await asyncio.sleep(0)
    question.gate.set()

    assert await asyncio.gather(*callers) == ["answer"] * 10
    assert (question.asked, len(flights)) == (1, 0)


async def test_what_is_left_goes_on_for_those_who_wait(flights: Flights[str, str]) -> None:
    """The next caller asks anew, while the older question still answers its own; closing ends both."""
    older, newer = Question(), Question()
    first = asyncio.create_task(flights.join("key", older))
    await asyncio.sleep(0)
    flights.leave("key")
    flights.leave("nothing")
    second = asyncio.create_task(flights.join("key", newer))
    await asyncio.sleep(0)
    older.gate.set()

    assert await first == "answer"
    flights.leave("key")
    await flights.close()
    assert (older.asked, newer.asked) == (1, 1)
    await asyncio.wait([second])
    assert second.cancelled()


async def test_the_first_caller_may_leave(flights: Flights[str, str]) -> None:
    """When the caller that began leaves, the others get their answer."""
    question = Question()
    first, second = (asyncio.create_task(flights.join("key", question)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    question.gate.set()

    assert await second == "answer"
    assert (first.cancelled(), question.asked) == (True, 1)


async def test_an_error_goes_to_all_and_frees_the_slot(flights: Flights[str, str]) -> None:
    """Every waiter gets the error; the next caller asks anew."""
    question = Question(TimedOut("too slow"))
    callers = [asyncio.create_task(flights.join("key", question)) for _ in range(3)]
    await asyncio.sleep(0)
    question.gate.set()

    results = await asyncio.gather(*callers, return_exceptions=True)

    assert all(isinstance(result, TimedOut) for result in results)
    assert len(flights) == 0
    with pytest.raises(TimedOut):
        await flights.join("key", question)
    assert question.asked == 2


async def test_an_error_that_nobody_waits_for_is_quiet(flights: Flights[str, str]) -> None:
    """When all have left, the question ends without a complaint of asyncio's."""
    question = Question(TimedOut("too slow"))
    caller = asyncio.create_task(flights.join("key", question))
    await asyncio.sleep(0)
    caller.cancel()
    question.gate.set()
    await asyncio.gather(caller, return_exceptions=True)
    await asyncio.sleep(0)

    assert len(flights) == 0


async def test_keys_are_apart(flights: Flights[str, str]) -> None:
    """Different keys are different questions."""
    question = Question()
    question.gate.set()

    await asyncio.gather(flights.join("one", question), flights.join("two", question))

    assert question.asked == 2


async def test_closing_leaves_nothing_behind(flights: Flights[str, str]) -> None:
    """Closing cancels what is under way and waits for it."""
    question = Question()
    task = flights.begin("key", question)
    await asyncio.sleep(0)

    await flights.close()

    assert task.cancelled()
    assert len(flights) == 0
