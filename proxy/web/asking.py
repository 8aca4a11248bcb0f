"""What is being asked for already: whoever sends the same head meanwhile waits here, without being read.

When a fleet starts an image that nobody has asked for, a thousand clients send the same head within milliseconds. One
goes the whole way. The others would cost as much, only to wait for its answer behind the same flight; here each costs
a place in a list. When the one is answered they look whether its answer may be given again, and go the whole way
themselves where it may not.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final

# Manifests alone: their answers are small and may be given again. A blob may take hours.
_SHARED: Final = re.compile(rb"(?:GET|HEAD) [^ ?]*/manifests/[^/ ]+ HTTP/1\.1\r\n")

Wake = Callable[[], None]


class Question:
    """Who waits for the answer to one head, and what ends their patience."""

    __slots__ = ("head", "timer", "waiting")

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.waiting: list[Wake] = []
        self.timer: asyncio.TimerHandle | None = None


class Asking:
    """Heads that the full path is answering."""

    def __init__(self, patience: float) -> None:
        """Let nobody wait here for more than *patience* seconds."""
        self._patience = patience
        self._questions: dict[bytes, Question] = {}

    def begin(self, head: bytes) -> Question | None:
        """Return what others may wait for while *head* goes the whole way, until `end`; None where nobody may."""
        if self._patience <= 0 or head in self._questions or not _SHARED.match(head):
            return None
        question = self._questions[head] = Question(head)
        return question

    def join(self, head: bytes, wake: Wake) -> bool:
        """Wait for the answer to *head*, if somebody has asked; *wake* is called when it is there, or time is up."""
        question = self._questions.get(head)
        if question is None:
            return False
        if question.timer is None:
            question.timer = asyncio.get_running_loop().call_later(self._patience, self.end, question)
        question.waiting.append(wake)
        return True

    def end(self, question: Question) -> None:
        """Wake all who wait for the answer to *question*, once; who asks for the same from now on is another matter."""
        if self._questions.get(question.head) is not question:
            return
        del self._questions[question.head]
        if question.timer is not None:
            question.timer.cancel()
        for wake in question.waiting:
            wake()
