"""How long an answer may be given again without asking for it: until it ends by itself, or is ended."""

from __future__ import annotations


class Lease:
    """What the one who answered promises of an answer. Seconds since the epoch, by the service's clock.

    It changes while it is held: whoever gave it may extend it, and may end it at any moment, for good.

    Attributes:
        live: Whether it hasn't been ended.
        since: When the upstreams last confirmed the answer, which is what its age counts from; None for an
            answer that has no age because it can't change.
        begins: When it was given: a clock that shows less has gone backwards.
        until: From when on it has to be asked for again; in the past for a lease that promises nothing yet.
    """

    __slots__ = ("begins", "live", "since", "until")

    def __init__(self) -> None:
        self.live = True
        self.since: float | None = None
        self.begins = float("-inf")
        self.until = 0.0

    def holds(self, now: float) -> bool:
        """Whether the answer may be given again at *now*. A clock that went backwards makes nothing fresh."""
        return self.live and self.begins <= now < self.until and (self.since is None or now >= self.since)

    def age(self, now: float) -> float:
        """Return the answer's age at *now*, in seconds."""
        return 0.0 if self.since is None else now - self.since
