"""Leaving a server alone that doesn't answer: nobody waits for it, and it gets time to come back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from proxy.oci.errors import TimedOut, Unreachable

FIRST_PAUSE: Final = 5.0  # seconds
LONGEST_PAUSE: Final = 60.0

_log: Final = structlog.get_logger("upstream")


def _nothing(is_open: bool, /) -> None:
    """Show nobody whether a breaker is open."""


class Trial:
    """A request that was let through. It is settled once: by its answer, or by what became of it instead."""

    def __init__(self, settle: Callable[[Trial, str | None], None], about: str) -> None:
        self.about = about
        self._settle = settle
        self._status: int | None = None
        self._settled = False

    def saw(self, status: int) -> None:
        """Note the answer's *status*; whether its body comes, too, counts until `settle`."""
        self._status = status

    def settle(self) -> None:
        """Let the answer count as it is. Without one nothing was learned."""
        if self._status is not None and self._status >= 500:
            self.fail(f"it answered {self._status}")
        elif not self._settled:
            self._settled = True
            self._settle(self, None)

    def fail(self, reason: str) -> None:
        """Let it count as no answer."""
        if not self._settled:
            self._settled = True
            self._settle(self, reason)

    @property
    def answered(self) -> bool:
        """Whether there was an answer at all."""
        return self._status is not None


class Breaker:
    """Closed, everything passes. After too many requests in a row without an answer it opens.

    Open, every request fails at once, for 5 seconds first. Then one is let through: its answer closes the
    breaker; without one it stays open for twice as long as before, 60 seconds at most. No connection, no time and
    a 5xx are no answer. Every other status is one, 429 included; an answer that makes no sense proves nothing.

    Who answers and can't give what was asked for may lack that alone, so it counts once in a row: one broken image,
    asked for again and again, opens nothing.
    """

    def __init__(
        self, name: str, most: int, clock: Callable[[], float], show: Callable[[bool], None] = _nothing
    ) -> None:
        """Take what is needed.

        Args:
            name: The server's, for errors and logs.
            most: Requests in a row without an answer that open it; 0 for none ever.
            clock: Seconds that never go backwards.
            show: Is told whether it is open, at first and at every change.
        """
        self._name = name
        self._most = most
        self._clock = clock
        self._show = show
        self._failures = 0
        self._broken: set[str] = set()  # what was answered with nothing in this row; at most as many as open it
        self._since = 0.0
        self._reason = ""
        self._pause = FIRST_PAUSE
        self._until: float | None = None
        self._probe: Trial | None = None
        show(False)

    @property
    def is_closed(self) -> bool:
        """Whether everything passes."""
        return self._until is None

    def retire(self) -> None:
        """Show nothing any more: another one speaks for this server now, or nobody asks it."""
        self._show(False)
        self._show = _nothing

    @contextmanager
    def trial(self, about: str) -> Iterator[Trial]:
        """Let a request through, which is made in the block. Raises `Unreachable` where it must not be made.

        Args:
            about: What is asked for, as far as it may be broken by itself.
        """
        trial = self._admitted(about)
        try:
            yield trial
        except (Unreachable, TimedOut) as error:
            trial.fail(error.message)
            raise
        finally:
            trial.settle()

    def _admitted(self, about: str) -> Trial:
        trial = Trial(self._settled, about)
        if self._until is None:
            return trial
        now = self._clock()
        if now < self._until or self._probe is not None:
            raise Unreachable(
                f"{self._name} isn't asked just now: it gave no answer {self._failures} times in a row,"
                f" for {now - self._since:.0f} s; the last time: {self._reason}",
                retry_after=str(max(1, math.ceil(self._until - now))),
            )
        self._probe = trial
        return trial

    def _settled(self, trial: Trial, reason: str | None) -> None:
        is_probe, self._probe = trial is self._probe, None if trial is self._probe else self._probe
        if reason is not None:
            if is_probe or not self._is_known(trial):
                self._failed(reason, is_probe=is_probe)
        elif trial.answered:
            self._answered()

    def _answered(self) -> None:
        """An answer closes it, also a late one to a request that was sent before it opened."""
        if self._until is not None:
            self._show(False)
            _log.info("upstream answers again", upstream=self._name)
        self._failures, self._pause, self._until, self._probe = 0, FIRST_PAUSE, None, None
        self._broken.clear()

    def _is_known(self, failed: Trial) -> bool:
        """Whether the server is there, and has failed at the same thing in this row."""
        if not failed.answered:
            return False
        known = failed.about in self._broken
        if len(self._broken) < self._most:
            self._broken.add(failed.about)
        return known

    def _failed(self, reason: str, *, is_probe: bool) -> None:
        now = self._clock()
        if self._failures == 0:
            self._since = now
        self._failures, self._reason = self._failures + 1, reason
        if is_probe:
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            self._until = now + self._pause
        elif self._until is None and 0 < self._most <= self._failures:
            self._until = now + self._pause
            self._show(True)
            _log.warning("upstream left alone", upstream=self._name, failures=self._failures, reason=reason)
