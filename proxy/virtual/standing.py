"""How long what was answered stands: its time to live, stretched by rate limits, ended by pushes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from proxy.merge.entry import Entry
from proxy.merge.freshness import Age, Freshness
from proxy.merge.rule import Rule, companion_rule, find
from proxy.oci.reference import Tag
from proxy.oci.referrers import is_companion
from proxy.store.base import Virtual
from proxy.virtual.places import Place
from proxy.virtual.recent import Recent

_MAX_OUTDATED: Final = 10_000  # tags and repositories that something was pushed to
_MAX_STRETCHED: Final = 10_000  # tags that last longer than `tag_ttl` because a rate limit runs out
_MAX_FOUND: Final = 1000  # tags whose rule is known without matching names again


class Standing:
    """Judges entries."""

    def __init__(
        self, rules: Sequence[Rule], stretch: Mapping[str, Callable[[], float]], clock: Callable[[], float]
    ) -> None:
        """Take what is needed.

        Args:
            stretch: By upstream, how many times longer than `tag_ttl` an answer should last that comes now.
            clock: Seconds since the epoch.
        """
        self._rules = rules
        self._stretch = stretch
        self._clock = clock
        self._found = lru_cache(_MAX_FOUND)(self._find)
        self._stretched: Recent[tuple[Virtual, Tag], float] = Recent(_MAX_STRETCHED)
        self._outdated: Recent[tuple[Virtual, Tag] | Place, float] = Recent(_MAX_OUTDATED)

    def outdate(self, key: tuple[Virtual, Tag] | Place) -> None:
        """Let nothing stand that was confirmed before this moment: of a tag, or of all that has a part of a place."""
        self._outdated.put(key, self._clock(), math.inf)

    def unstretch(self, virtual: Virtual, tag: Tag) -> None:
        """Let a tag last no longer than it would without a rate limit."""
        self._stretched.drop((virtual, tag))

    def rule(self, virtual: Virtual, tag: Tag) -> Rule:
        """Return the rule that speaks of *tag*."""
        return self._found(virtual, tag)[0]

    def freshness(self, virtual: Virtual, tag: Tag) -> Freshness:
        """Return how long answers for *tag* may be reused."""
        return self._found(virtual, tag)[1]

    def _find(self, virtual: Virtual, tag: Tag) -> tuple[Rule, Freshness]:
        rule = find(self._rules, virtual.upstream, virtual.repository)
        rule = companion_rule(rule) if is_companion(tag) else rule
        return rule, rule.freshness_of(tag)

    def judged(self, virtual: Virtual, tag: Tag, entry: Entry, now: float) -> Age:
        """Judge *entry* by its age, or by what was settled when it was confirmed."""
        if self._is_outdated(virtual, tag, entry):
            return Age.EXPIRED
        if now >= entry.checked_at == self._stretched.get((virtual, tag), now):
            return Age.FRESH
        return self.freshness(virtual, tag).judge(now - entry.checked_at)

    def fresh_until(self, virtual: Virtual, tag: Tag, entry: Entry) -> float:
        """Return until when *entry*, which is fresh, stays so if nothing happens."""
        until = entry.checked_at + self.freshness(virtual, tag).tag_ttl
        settled = self._stretched.last((virtual, tag)) == entry.checked_at
        return max(until, self._stretched.until((virtual, tag))) if settled else until

    def _is_outdated(self, virtual: Virtual, tag: Tag, entry: Entry) -> bool:
        """Whether *entry* was confirmed before something it is made of was pushed or deleted through us."""
        keys: list[tuple[Virtual, Tag] | Place] = [(virtual, tag), (virtual.upstream, virtual.repository)]
        keys += [(part.upstream, part.repository) for part in entry.parts]
        return any((since := self._outdated.last(key)) is not None and entry.checked_at <= since for key in keys)

    def stretch(self, virtual: Virtual, tag: Tag, entry: Entry) -> None:
        """Let *entry*, just confirmed, last longer while the upstream's rate limit runs out.

        It is settled now and never later: a limit that shrinks makes nothing fresh that wasn't.
        """
        ask = self._stretch.get(virtual.upstream)
        stretch = ask() if ask else 1.0
        if stretch > 1:
            until = entry.checked_at + stretch * self.freshness(virtual, tag).tag_ttl
            self._stretched.put((virtual, tag), entry.checked_at, until)
