"""How long an answer may be reused. Seconds throughout."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from proxy.oci.errors import NoAnswer, Refused, RegistryError


class Age(Enum):
    """What an entry's age means."""

    FRESH = "fresh"  # answer without asking
    STALE = "stale"  # answer at once, ask behind
    EXPIRED = "expired"  # ask first


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """The limits; the later ones are added to *tag_ttl*."""

    tag_ttl: float = 60.0
    stale_while_revalidate: float = 600.0
    stale_if_error: float = 86_400.0
    stale_if_refused: float = 300.0
    negative_ttl: float = 10.0

    def judge(self, age: float) -> Age:
        """Say what *age* since the last confirmation means. A clock that went backwards makes nothing fresh."""
        if 0 <= age <= self.tag_ttl:
            return Age.FRESH
        return Age.STALE if 0 <= age <= self.tag_ttl + self.stale_while_revalidate else Age.EXPIRED

    def may_hold(self, age: float, error: RegistryError) -> bool:
        """Say whether an entry of *age* may still be served when asking again ended in *error* (law 4)."""
        if isinstance(error, NoAnswer):
            return age <= self.tag_ttl + self.stale_if_error
        return isinstance(error, Refused) and age <= self.tag_ttl + self.stale_if_refused
