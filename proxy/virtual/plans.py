"""What to ask for a tag, one plan after the other, and what its answers teach about the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.merge.decide import Verdict
from proxy.merge.learning import learn
from proxy.merge.plan import Plan, plan_companion, plan_tag
from proxy.merge.rule import Learned, Rule, find
from proxy.oci.reference import Tag
from proxy.oci.referrers import is_companion, subject_of
from proxy.store.base import Metadata, Virtual
from proxy.virtual.places import Places


class Plans:
    """Plans by rules, by what was learned of a repository, and by where an image was found."""

    def __init__(self, rules: Sequence[Rule], metadata: Metadata, places: Places, clock: Callable[[], float]) -> None:
        """Take what is needed; *clock* has seconds since the epoch."""
        self._rules = rules
        self._metadata = metadata
        self._places = places
        self._clock = clock

    async def of(self, virtual: Virtual, tag: Tag) -> tuple[Plan, ...]:
        """Return what to ask, one after the other until something is found."""
        rule = find(self._rules, virtual.upstream, virtual.repository)
        if is_companion(tag):
            return await self._of_companion(rule, virtual, tag)
        learned = await self._metadata.learned(virtual) if rule.conventions else None
        return (plan_tag(rule, virtual.upstream, virtual.repository, tag, learned, self._clock()),)

    async def _of_companion(self, rule: Rule, virtual: Virtual, tag: Tag) -> tuple[Plan, ...]:
        """Return where to look for a signature, an attestation or a list of referrers, one place after the other."""
        places = await self._places.about(virtual, subject_of(tag))
        return tuple(
            plan_companion(rule, virtual.upstream, virtual.repository, tag, place, conjecture=conjecture)
            for place, conjecture in places.items()
        )

    async def learn(self, virtual: Virtual, plan: Plan, verdict: Verdict, now: float) -> None:
        """Remember which guesses came true, so that the next tag of this repository costs no guessing."""
        learned = learn(plan, verdict, now) if plan.guessing else None
        if learned is not None and not _is_same(learned, await self._metadata.learned(virtual)):
            await self._metadata.keep_learned(virtual, learned)


def _is_same(learned: Learned, before: Learned | None) -> bool:
    """Whether nothing is new but the time, which counts only where nothing was found."""
    now = (learned.convention, learned.tokens)
    return bool(learned.convention) and before is not None and now == (before.convention, before.tokens)
