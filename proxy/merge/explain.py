"""Why a virtual tag is what it is: every question that was asked, every answer, the decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from proxy.merge.compose import Composition, compose
from proxy.merge.decide import Hold, Keep, Pass, Refuse, Serve, Verdict
from proxy.merge.outcome import (
    Absent,
    Failed,
    Found,
    Kind,
    ManyImages,
    OtherArtifact,
    Outcome,
    Present,
    Probe,
    SingleImage,
)
from proxy.merge.plan import Guessed, Plan, Source, Written
from proxy.oci.platform import normalize


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One source that was asked.

    Attributes:
        expected: The platform the rule writes or guesses, in words.
        result: `found`, `absent`, `refused` or `no answer`.
        says: What the image says of its own platform, or why there is none.
        becomes: The platforms it has in the index; empty where it isn't in it.
        milliseconds: From the first request to the last byte, manifest and config.
    """

    source: str
    expected: str
    result: str
    digest: str
    says: str
    becomes: tuple[str, ...]
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All of it, in words and numbers; free of secrets."""

    image: str
    upstream: str
    rule: str
    match: str
    guessed: bool
    questions: tuple[Question, ...]
    verdict: str
    reason: str
    digest: str
    media_type: str
    platforms: tuple[str, ...]
    notes: tuple[str, ...]


def explain(plan: Plan, probes: Sequence[Probe], outcomes: Sequence[Outcome], verdict: Verdict) -> Explanation:
    """Put what was asked and what was decided side by side.

    Args:
        probes: What came of the guesses, where any were made.
        outcomes: What came of the sources that counted.
    """
    composition = compose(plan.rule, [o for o in outcomes if isinstance(o, Found)])
    counted = {outcome.source for outcome in outcomes}
    guesses = [probe for probe in probes if probe.source not in counted]
    failed = {probe.source: probe for probe in probes if isinstance(probe, Failed)}
    word, reason, digest, media_type = _verdict(verdict)
    return Explanation(
        image=str(plan),
        upstream=plan.upstream,
        rule=plan.rule.name,
        match=plan.rule.match,
        guessed=plan.guessing,
        questions=tuple(
            _question(plan, each, composition, verdict, failed.get(each.source)) for each in (*outcomes, *guesses)
        ),
        verdict=word,
        reason=reason,
        digest=digest,
        media_type=media_type,
        platforms=_platforms(verdict),
        notes=_notes(plan, composition, verdict),
    )


def _question(
    plan: Plan, outcome: Outcome | Present, composition: Composition, verdict: Verdict, failed: Failed | None
) -> Question:
    merged = isinstance(verdict, Serve)
    children = [child.descriptor for child in composition.children if child.source == outcome.source]
    # A guess that was refused counts as absent by our rule, and not by the registry's word: it is told as what it said.
    result, says = _answer(plan, failed if isinstance(outcome, Absent) and failed is not None else outcome)
    return Question(
        source=str(outcome.source),
        expected=_expected(plan, outcome.source),
        result=result,
        digest=outcome.descriptor.digest if isinstance(outcome, Found | Present) else "",
        says=says,
        becomes=tuple(str(c.platform) for c in children if c.attests is None) if merged else (),
        milliseconds=round(outcome.seconds * 1000, 1),
    )


def _expected(plan: Plan, source: Source) -> str:
    match source.hint:
        case Written(platform=platform):
            return f"{normalize(platform)} (written)"
        case Guessed(token=token, platforms=platforms):
            return f"{platforms[0]} (guessed from {token})"
        case None if source == plan.base:
            return "the name itself"
        case None:
            return "as its config says"


def _answer(plan: Plan, outcome: Outcome | Present) -> tuple[str, str]:
    if isinstance(outcome, Found):
        return "found", _content(plan, outcome.kind)
    match outcome:
        case Absent():
            return "absent", "does not exist"
        case Failed(error=error):
            return ("refused" if error.status == 403 else "no answer"), error.message
        case Present():
            return "found", "not counted: another convention won"
    assert_never(outcome)


def _content(plan: Plan, kind: Kind) -> str:
    match kind:
        case SingleImage(platform=None) if plan.passes_through:
            return "one image, of a platform that nobody asked for"
        case SingleImage(unread=error) if error is not None:
            return f"one image, whose config can't be read: {error.message}"
        case SingleImage(platform=platform):
            return str(normalize(platform)) if platform else "one image, whose config names no platform"
        case ManyImages(children=children):
            known = [str(child.platform) for child in children if child.platform and not child.platform.is_unknown]
            return "an index of " + (", ".join(known) or "nothing runnable")
        case OtherArtifact(artifact_type=artifact_type):
            return f"not a runnable image: {artifact_type}"
    assert_never(kind)


def _verdict(verdict: Verdict) -> tuple[str, str, str, str]:
    match verdict:
        case Serve(manifest=manifest, parts=parts):
            contributing = sum(bool(part.children) for part in parts)
            found = f"merged from {contributing} source{'s' if contributing != 1 else ''}"
            return "serve", found, manifest.descriptor.digest, manifest.descriptor.media_type
        case Pass(found=found_base):
            descriptor = found_base.descriptor
            return "pass", "served as it is at the name itself", descriptor.digest, descriptor.media_type
        case Hold(entry=entry, error=error):
            return "hold", error.message, entry.descriptor.digest, entry.descriptor.media_type
        case Keep(entry=entry, reason=why):
            return "keep", why, entry.descriptor.digest, entry.descriptor.media_type
        case Refuse(error=error):
            return "refuse", f"{error.status} {error.code}: {error.message}", "", ""
    assert_never(verdict)


def _platforms(verdict: Verdict) -> tuple[str, ...]:
    match verdict:
        case Serve(parts=parts):
            return tuple(platform for part in parts for platform in part.platforms)
        case Hold(entry=entry) | Keep(entry=entry):
            return tuple(platform for part in entry.parts for platform in part.platforms)
        case _:
            return ()


def _notes(plan: Plan, composition: Composition, verdict: Verdict) -> tuple[str, ...]:
    if isinstance(verdict, Pass):
        return plan.impossible
    missing = verdict.missing if isinstance(verdict, Serve) else plan.impossible
    return (*missing, *composition.mismatches, *composition.clashes, *composition.omissions)
