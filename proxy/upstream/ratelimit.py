"""What a server says about being asked: how often it may be, how much of that is left, and not before when."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from proxy.oci.errors import Overloaded

LONGEST_WAIT: Final = 60.0  # seconds for which a server's word is taken; a mistake of its own must not last for hours
MOST_STRETCH: Final = 10.0

_DEFAULT_WINDOW: Final = (
    60.0  # seconds; GitLab, whose windows are minutes, doesn't name them. Docker Hub does: six hours
)
# "76;w=21600", as in draft-ietf-httpapi-ratelimit-headers up to version 07
_AMOUNT: Final = re.compile(r"(\d{1,12})(?:;w=(\d{1,9}))?(?![\w.])", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many requests a server grants within *window* seconds, and how many of them are left."""

    limit: int
    remaining: int
    window: float = _DEFAULT_WINDOW

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> Quota | None:
        """Read `ratelimit-limit` and `ratelimit-remaining`; None where they aren't there or aren't amounts."""
        limit = _AMOUNT.match(headers.get("ratelimit-limit", "").strip())
        remaining = _AMOUNT.match(headers.get("ratelimit-remaining", "").strip())
        if limit is None or remaining is None:
            return None
        window = remaining[2] or limit[2]
        return cls(
            limit=int(limit[1]), remaining=int(remaining[1]), window=float(window) if window else _DEFAULT_WINDOW
        )

    @property
    def stretch(self) -> float:
        """How many times longer answers should last: 1 while half is left, then more, up to 10 with nothing left."""
        if self.limit <= 0:
            return 1.0
        missing = 1 - min(1.0, 2 * self.remaining / self.limit)
        return 1 + (MOST_STRETCH - 1) * missing


def seconds(retry_after: str, date: str = "") -> float | None:
    """Read a `Retry-After` header as seconds; None where it says nothing, or something past.

    An HTTP date counts from the answer's own *date*, so that nobody's clock has to be right (RFC 9110, 10.2.3).
    """
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), 1e9) or None
    try:
        wait = (parsedate_to_datetime(text) - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return wait if wait > 0 else None


class RateLimit:
    """What one server has said so far."""

    def __init__(self, name: str, clock: Callable[[], float], show: Callable[[Quota], None] = lambda _: None) -> None:
        """Take what is needed.

        Args:
            name: The server's, for errors.
            clock: Seconds that never go backwards.
            show: Is told every quota.
        """
        self._name = name
        self._clock = clock
        self._show = show
        self._wait_until = -math.inf
        self._quota: Quota | None = None
        self._quota_until = -math.inf

    def check(self) -> None:
        """Raise `Overloaded`, with the seconds that are left, while the server wants not to be asked."""
        left = self._wait_until - self._clock()
        if left > 0:
            wait = math.ceil(left)
            raise Overloaded(f"{self._name} wants not to be asked for another {wait} s", retry_after=str(wait))

    def heard(self, status: int, headers: Mapping[str, str]) -> float:
        """Note what an answer says, and return how many seconds it asks to wait, 0 for none."""
        now = self._clock()
        quota = Quota.read(headers)
        if quota is not None:
            self._quota, self._quota_until = quota, now + quota.window
            self._show(quota)
        wait = seconds(headers.get("Retry-After", ""), headers.get("Date", "")) if status in (429, 503) else None
        if wait is None:
            return 0.0
        self._wait_until = max(self._wait_until, now + min(wait, LONGEST_WAIT))
        return wait

    def stretch(self) -> float:
        """How many times longer answers should last now; a quota whose window is over counts no more."""
        if self._quota is None or self._clock() >= self._quota_until:
            return 1.0
        return self._quota.stretch
