"""A client gets an answer in time, whatever the upstreams do (law 11): containerd gives up after 30 seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from proxy.oci.errors import TimedOut

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds that a question may take, of which some may be over before it is heard of."""

    seconds: float
    beforehand: float = 0.0

    def begin(self) -> Left:
        """Let the time run: everything that one request waits for has it together."""
        return Left(self.seconds, asyncio.get_running_loop().time() + self.seconds - self.beforehand)

    async def spend(self, question: Awaitable[Answer], what: str) -> Answer:
        """Wait for *question* alone. Raises `TimedOut`, naming *what* nobody answered, when the time is over."""
        return await self.begin().spend(question, what)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of *seconds*, which are over at *end*, a time of the loop."""

    seconds: float
    end: float

    async def spend(self, question: Awaitable[Answer], what: str) -> Answer:
        """Wait for *question*, which has its answer at once even where nothing is left. Raises `TimedOut`."""
        try:
            async with asyncio.timeout_at(self.end):
                return await question
        except TimeoutError:
            raise TimedOut(f"no answer on {what} within {self.seconds:g} s") from None
