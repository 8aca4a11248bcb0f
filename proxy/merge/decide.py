"""From what the sources said to what the client gets: laws 4, 5 and 7, in one place and without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.merge.coherence import incoherence
from proxy.merge.compose import Child, Composition, compose
from proxy.merge.entry import Entry, Part
from proxy.merge.freshness import Freshness
from proxy.merge.index import order, render
from proxy.merge.outcome import Absent, Failed, Found, ManyImages, OtherArtifact, Outcome, SingleImage
from proxy.merge.plan import Guessed, Plan
from proxy.merge.rule import Base, OnPartial
from proxy.oci.content import Descriptor, Manifest
from proxy.oci.errors import ManifestUnknown, NoAnswer, Refused, RegistryError, Unreachable
from proxy.oci.mediatype import INDEXES
from proxy.oci.platform import Platform, covers

_SHOWN: Final = 4  # sources that an error names for one cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """A new index.

    Attributes:
        missing: Sentences about architectures that should be there; an index with any is partial.
        mismatches, clashes, omissions: As in `Composition`.
        incoherence: A sentence about what doesn't belong to one release, where the rule asks.
    """

    manifest: Manifest
    parts: tuple[Part, ...]
    default_child: Descriptor | None
    missing: tuple[str, ...] = ()
    mismatches: tuple[str, ...] = ()
    clashes: tuple[str, ...] = ()
    omissions: tuple[str, ...] = ()
    incoherence: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a client should know."""
        mixed = (self.incoherence,) if self.incoherence else ()
        return (*self.missing, *mixed, *self.clashes, *self.omissions)


@dataclass(frozen=True, slots=True)
class Pass:
    """What is at the virtual name itself, untouched."""

    found: Found
    default_child: Descriptor | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """The last good generation, because *error* kept us from a new one."""

    entry: Entry
    error: RegistryError


@dataclass(frozen=True, slots=True)
class Keep:
    """The last whole generation, because what could be made now is incomplete or mixes releases: *reason* says.

    *parts* is what could be made now made of.
    """

    entry: Entry
    reason: str
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """An error."""

    error: RegistryError


Verdict = Serve | Pass | Hold | Keep | Refuse


def decide(
    plan: Plan,
    outcomes: Sequence[Outcome],
    previous: Entry | None,
    *,
    age: float,
    freshness: Freshness,
    held: float = 0.0,
) -> Verdict:
    """Decide what the virtual tag stands for now.

    Args:
        outcomes: What came of each source, in the plan's order, and of the base last where it was asked.
        previous: The last good generation, if there is one.
        age: Seconds since *previous* was confirmed.
        freshness: How long *previous* may stand in for no answer.
        held: Seconds for which *previous* has been kept in place of a newer one.
    """
    believed = [_believe(plan, outcome, outcomes, previous) for outcome in outcomes]
    believed = [_legible(plan, outcome, believed) for outcome in believed]
    base = next((o for o in believed if isinstance(o, Found) and o.source == plan.base), None)
    if base is not None and _already_whole(plan, base):
        return Pass(base, _default_child(plan, base.kind.children))
    failure = _failure(plan, believed)
    if failure is not None:
        may_hold = previous is not None and freshness.may_hold(age, failure)
        return Hold(previous, failure) if previous is not None and may_hold else Refuse(failure)
    found = [outcome for outcome in believed if isinstance(outcome, Found)]
    if base is not None and found == [base] and _nothing_wanted(plan, base):
        return Pass(base)
    verdict = _merge(plan, believed, found, previous)
    if isinstance(verdict, Refuse) or previous is None:
        return verdict
    reason = _worth_keeping(plan, verdict, previous, held)
    return Keep(previous, reason, verdict.parts) if reason else verdict


def _worth_keeping(plan: Plan, serve: Serve, previous: Entry, held: float) -> str:
    """Say why *previous* is better than what could be served now, or return an empty string."""
    if held > plan.rule.hold_max or not previous.merged:
        return ""
    if serve.missing and plan.rule.on_partial is OnPartial.HOLD and previous.complete:
        return "; ".join(serve.missing)
    return serve.incoherence if previous.coherent else ""


def _believe(plan: Plan, outcome: Outcome, outcomes: Sequence[Outcome], previous: Entry | None) -> Outcome:
    """Take a refused name for absent where it was only a conjecture and something else was found, or nothing else is.

    Registries refuse what doesn't exist (ghcr.io does); the virtual name itself usually doesn't. Once it was
    part of a generation it is no conjecture any more, and neither is a guess that came true for another tag.
    """
    if not isinstance(outcome, Failed) or not isinstance(outcome.error, Refused):
        return outcome
    conjecture = outcome.source == plan.base or plan.is_guess(outcome.source)
    seen = previous is not None and outcome.source.place in previous.digests()
    doubtful = plan.conjecture or any(isinstance(other, Found) for other in outcomes)
    return Absent(outcome.source, outcome.seconds) if conjecture and doubtful and not seen else outcome


def _legible(plan: Plan, outcome: Outcome, outcomes: Sequence[Outcome]) -> Outcome:
    """Take an image whose config can't be read for no answer, unless it is all there is: nobody asks what it is for."""
    if not isinstance(outcome, Found) or not isinstance(outcome.kind, SingleImage) or outcome.kind.unread is None:
        return outcome
    alone = all(isinstance(other, Absent) for other in outcomes if other is not outcome)
    if alone and _nothing_wanted(plan, outcome):
        return outcome
    return Failed(outcome.source, outcome.kind.unread, outcome.seconds)


def _already_whole(plan: Plan, base: Found) -> bool:
    """An index at the name was merged by its author; an artifact isn't ours to merge."""
    if isinstance(base.kind, OtherArtifact):
        return True
    return isinstance(base.kind, ManyImages) and plan.rule.base is Base.PASSTHROUGH


def _nothing_wanted(plan: Plan, base: Found) -> bool:
    """Whether a lone image at the name is all that anybody asks for: no platform or source is insisted on."""
    insisted = plan.rule.require or (plan.rule.sources and plan.rule.on_partial is not OnPartial.SERVE)
    return isinstance(base.kind, SingleImage) and not insisted


def _failure(plan: Plan, outcomes: Sequence[Outcome]) -> RegistryError | None:
    """Return the error that stands between us and an answer: a refusal before trouble, then all trouble in one."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    if not failures:
        return None
    refusal = next((failure for failure in failures if isinstance(failure.error, Refused)), None)
    if refusal is not None:
        return Refused(f"{plan} needs {refusal.source}: {refusal.error.message}")
    sources: dict[str, list[str]] = {}
    for failure in failures:
        sources.setdefault(failure.error.message, []).append(str(failure.source))
    causes = "; ".join(f"{_listed(names)}: {cause}" for cause, names in sources.items())
    waits = [failure.error.retry_after for failure in failures if failure.error.retry_after]
    alone = failures[0].error if len(outcomes) == 1 else None
    kind = type(alone) if isinstance(alone, NoAnswer) else Unreachable
    return kind(f"no answer on {plan}: {causes}", retry_after=waits[0] if waits else None)


def _merge(plan: Plan, outcomes: Sequence[Outcome], found: Sequence[Found], previous: Entry | None) -> Serve | Refuse:
    composition = compose(plan.rule, found)
    if not composition.children:
        return Refuse(ManifestUnknown(_nothing(plan, outcomes, composition)))
    missing = _missing(plan, outcomes, composition)
    if missing and plan.rule.on_partial is OnPartial.FAIL:
        return Refuse(ManifestUnknown(f"{plan} is not complete: {'; '.join(missing)}"))
    children = order([child.descriptor for child in composition.children])
    return Serve(
        manifest=render(children),
        parts=tuple(_part(each, composition.children) for each in found),
        default_child=_default_child(plan, children),
        missing=missing,
        mismatches=composition.mismatches,
        clashes=composition.clashes,
        omissions=composition.omissions,
        incoherence=incoherence(plan.rule.coherence, found, previous),
    )


def _missing(plan: Plan, outcomes: Sequence[Outcome], composition: Composition) -> tuple[str, ...]:
    """Say what the index lacks: required platforms, or else the explicit sources that don't exist."""
    platforms = [child.descriptor.platform for child in composition.children if child.descriptor.platform]
    if plan.rule.require:
        absent = "; ".join(
            f"{o.source} does not exist" for o in outcomes if isinstance(o, Absent) and _written(plan, o)
        )
        reason = f" ({absent})" if absent else ""
        return tuple(
            f"{wanted} is missing{reason}"
            for wanted in plan.rule.require
            if not any(covers(wanted, platform) for platform in platforms)
        )
    gone = [f"{o.source} does not exist" for o in outcomes if isinstance(o, Absent) and _written(plan, o)]
    return (*gone, *plan.impossible)


def _written(plan: Plan, outcome: Outcome) -> bool:
    return outcome.source != plan.base and not isinstance(outcome.source.hint, Guessed)


def _nothing(plan: Plan, outcomes: Sequence[Outcome], composition: Composition) -> str:
    if composition.omissions:
        return f"{plan} has nothing to serve: {'; '.join(composition.omissions)}"
    if not outcomes:
        return f"{plan} is unknown: {'; '.join(plan.impossible) or 'its rule asks for nothing'}"
    shown = _listed([str(outcome.source) for outcome in outcomes])
    if len(outcomes) == 1:
        return f"{plan} is unknown: {shown} does not exist"
    return f"{plan} is unknown: none of {shown} exists"


def _listed(names: Sequence[str]) -> str:
    """Write *names* one after the other, of many the first four."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _part(found: Found, children: Sequence[Child]) -> Part:
    mine = tuple(child.descriptor for child in children if child.source == found.source)
    return Part(*found.source.place, digest=found.descriptor.digest, children=mine)


def _default_child(plan: Plan, children: Sequence[Descriptor]) -> Descriptor | None:
    """Return the child for clients that accept no index: of the default platform, or None."""
    default = plan.rule.default_platform
    images = (child for child in children if child.media_type not in INDEXES)
    return next((image for image in images if _is(default, image.platform)), None)


def _is(wanted: Platform, platform: Platform | None) -> bool:
    return platform is not None and not platform.is_unknown and covers(wanted, platform)


def part_of_base(found: Found) -> Part:
    """Return the only part of a name that is passed through."""
    return Part(*found.source.place, digest=found.descriptor.digest, children=found.kind.children)
