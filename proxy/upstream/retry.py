"""Another attempt, for what is safe to ask twice and may well be answered the second time.

stamina would be the library for it, but it sleeps by itself and stops by `time.monotonic`, so that no clock can
be injected; its hooks and counters belong to the process; and it knows only errors, whereas a 503 is an answer
here, which is handed on when it was the last.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from proxy.oci.errors import NoAnswer, TimedOut, Unreachable

FIRST_PAUSE: Final = 0.1  # seconds in the middle; twice as long before each further attempt

# A 429 is an answer to having asked too often, and no other 5xx goes away by itself.
_PASSING: Final = frozenset({500, 502, 503, 504})


class NotConnected(TimedOut):
    """The connection wasn't there in time: nothing was asked yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a request is sent again.

    Attributes:
        more: Attempts after the first, at most.
        luck: A number from 0 to 1, so that those who failed together don't come back together.
        sleep: Waits for so many seconds.
    """

    more: int = 0
    luck: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def pause(self, attempt: int, outcome: int | NoAnswer, *, left: float, asked_for: float = 0.0) -> float | None:
        """Return how many seconds to wait before the next attempt; None where there shall be none.

        Args:
            attempt: How many were made before this one.
            outcome: The status of its answer, or why there was none.
            left: Seconds that all attempts together still have.
            asked_for: The answer's `Retry-After` in seconds.
        """
        if attempt >= self.more or not _may_pass(outcome):
            return None
        pause = max(asked_for, FIRST_PAUSE * 2**attempt * (0.5 + self.luck()))
        return pause if pause < left else None


def _may_pass(outcome: int | NoAnswer) -> bool:
    if isinstance(outcome, int):
        return outcome in _PASSING
    return isinstance(outcome, Unreachable | NotConnected)
