"""From a verdict to the entry that is kept: what a tag stands for now, and since when."""

from __future__ import annotations

from proxy.merge.decide import Pass, Serve, part_of_base
from proxy.merge.entry import Entry, Part
from proxy.merge.plan import Plan
from proxy.oci.content import Descriptor


def merged(plan: Plan, verdict: Serve, previous: Entry | None, now: float) -> Entry:
    """Return the entry of an index of our own, made *now*, seconds since the epoch."""
    return _entry(
        plan,
        verdict.manifest.descriptor,
        previous,
        now,
        merged=True,
        default_child=verdict.default_child,
        parts=verdict.parts,
        warnings=verdict.warnings,
        complete=not verdict.missing,
        coherent=not verdict.incoherence,
    )


def passed(plan: Plan, verdict: Pass, previous: Entry | None, now: float) -> Entry:
    """Return the entry of what is at the name itself, and served as it is."""
    found = verdict.found
    part = part_of_base(found)
    return _entry(
        plan, found.descriptor, previous, now, merged=False, default_child=verdict.default_child, parts=(part,)
    )


def _entry(
    plan: Plan,
    descriptor: Descriptor,
    previous: Entry | None,
    now: float,
    *,
    merged: bool,
    default_child: Descriptor | None,
    parts: tuple[Part, ...],
    warnings: tuple[str, ...] = (),
    complete: bool = True,
    coherent: bool = True,
) -> Entry:
    same = previous is not None and previous.descriptor.digest == descriptor.digest
    return Entry(
        descriptor=descriptor,
        merged=merged,
        default_child=default_child,
        parts=parts,
        warnings=warnings,
        fingerprint=plan.rule.fingerprint,
        checked_at=now,
        changed_at=previous.changed_at if previous is not None and same else now,
        complete=complete,
        coherent=coherent,
    )
