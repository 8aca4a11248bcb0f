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

    async def spend(self, question: Awaitable[Answer], what: str) -> Answer:
        """Wait for *question*. Raises `TimedOut`, naming *what* nobody answered, when the time is over."""
        try:
            async with asyncio.timeout(self.seconds - self.beforehand):
                return await question
        except TimeoutError:
            raise TimedOut(f"no answer on {what} within {self.seconds:g} s") from None
