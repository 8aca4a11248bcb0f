"""What one tag of a repository teaches about its others, and when that isn't enough for one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from proxy.merge.decide import Keep, Pass, Refuse, Serve, Verdict
from proxy.merge.entry import Entry, Part
from proxy.merge.outcome import SingleImage
from proxy.merge.plan import Guessed, Plan, plan_tag
from proxy.merge.rule import Learned
from proxy.oci.content import Descriptor
from proxy.oci.errors import NotFound
from proxy.oci.mediatype import INDEXES
from proxy.oci.platform import Platform, covers


def learn(plan: Plan, verdict: Verdict, now: float) -> Learned | None:
    """Return what to remember of the repository, or None where *verdict* teaches nothing."""
    match verdict:
        case Serve(parts=parts):
            true = _came_true(plan, parts)
            return Learned(true[0].convention, tuple(sorted({hint.token for hint in true})), now) if true else None
        case Pass(found=found) if not isinstance(found.kind, SingleImage) and plan.learned is None:
            return Learned("", (), now)  # its author merged it; a lone image may get company any time
        case _:
            return None


def widen(plan: Plan, verdict: Verdict) -> Plan | None:
    """Return what to ask instead where a platform that other tags have isn't there by the words that were learned.

    What was learned saves questions and changes no answer: this tag may have been pushed by other words. Returns
    None where nothing is to be gained: every platform is there, there was trouble, or what is at the name itself is
    served as it is.
    """
    match verdict:
        case Serve(parts=parts) | Keep(parts=parts):
            return _widened(plan, parts)
        case Pass(found=found) if not isinstance(found.kind, SingleImage):
            return None
        case Pass() | Refuse(error=NotFound()):
            return _widened(plan, ())
        case _:
            return None


def widen_unchanged(plan: Plan, entry: Entry) -> Plan | None:
    """The same where all that *plan* asks for is as it was when *entry* was made."""
    if entry.merged:
        return _widened(plan, entry.parts)
    return None if entry.descriptor.media_type in INDEXES else _widened(plan, ())


def _widened(plan: Plan, parts: Sequence[Part]) -> Plan | None:
    learned = plan.learned
    if learned is None:
        return None
    true = {hint.token for hint in _came_true(plan, parts)}
    left = tuple(token for token in learned.tokens if token in true)
    if left and plan.rule.platforms_of(left) == plan.rule.platforms_of(learned.tokens):
        return None
    narrowed = replace(learned, tokens=left) if left else None
    return plan_tag(plan.rule, plan.upstream, plan.repository, plan.tag, narrowed, learned.learned_at)


def _came_true(plan: Plan, parts: Sequence[Part]) -> list[Guessed]:
    """Return the guesses that brought what their word most likely means.

    One that brought something else, an `arm` that is arm/v7, says nothing about the other words for arm64.
    """
    brought = {part.place: part.children for part in parts}
    hints = [(source.hint, brought.get(source.place, ())) for source in plan.sources]
    return [hint for hint, children in hints if isinstance(hint, Guessed) and _bring(children, hint.platforms[0])]


def _bring(children: Sequence[Descriptor], wanted: Platform) -> bool:
    return any(child.platform is not None and covers(wanted, child.platform) for child in children)
