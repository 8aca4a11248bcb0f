"""Whether sources belong to one release."""

from __future__ import annotations

from dataclasses import replace

import pytest

from merge.builders import RULE, image, plan_for, written
from proxy.merge.coherence import incoherence
from proxy.merge.decide import Keep, Serve, Verdict, decide
from proxy.merge.entry import Entry, Part
from proxy.merge.freshness import Freshness
from proxy.merge.outcome import Absent, Found, ManyImages, Release, SingleImage
from proxy.merge.plan import Source
from proxy.merge.rule import Coherence, OnPartial, Rule
from proxy.oci.platform import Platform

X86, ARM = written("x86", "linux/amd64"), written("arm", "linux/arm64")


def pushed(source: Source, build: str, *, revision: str = "", version: str = "") -> Found:
    """Return what came of a source after *build* was pushed to it."""
    hint = source.hint
    assert hint is not None
    kind = SingleImage(Platform("linux", "amd64" if source is X86 else "arm64"), Release(revision, version))
    return Found(source, image(f"{source.repository} {build}"), kind)


def generation(*found: Found, **fields: object) -> Entry:
    """Return the entry that was made of *found*."""
    parts = tuple(Part(*each.source.place, digest=each.descriptor.digest, children=()) for each in found)
    entry = Entry(
        descriptor=image("index"),
        merged=True,
        default_child=None,
        parts=parts,
        warnings=(),
        fingerprint="",
        checked_at=0.0,
        changed_at=0.0,
    )
    return replace(entry, **fields)  # type: ignore[arg-type]  # fields of the entry, by name


OLD = (pushed(X86, "old"), pushed(ARM, "old"))


@pytest.mark.parametrize(
    ("x86", "arm", "mixed"),
    [
        ({"revision": "a"}, {"revision": "a"}, False),
        ({"revision": "a"}, {"revision": "b"}, True),
        ({"revision": "a", "version": "1"}, {"revision": "a", "version": "2"}, False),
        ({"version": "1"}, {"version": "2"}, True),
        ({"version": "1"}, {"version": "1"}, False),
        ({"revision": "a", "version": "1"}, {"version": "1"}, False),
        ({"revision": "a"}, {"version": "1"}, False),
        ({}, {}, False),
    ],
)
def test_labels_decide(x86: dict[str, str], arm: dict[str, str], *, mixed: bool) -> None:
    """Revisions are compared where all sources have one, else versions; what only some say proves nothing."""
    found = [pushed(X86, "new", **x86), pushed(ARM, "new", **arm)]

    assert bool(incoherence(Coherence.LABEL, found, None)) is mixed


def test_labels_of_an_index_are_those_of_its_images() -> None:
    """A source that brings several images speaks with all of their voices."""
    many = Found(X86, image("many"), ManyImages((), (Release("a"), Release("b"))))

    assert incoherence(Coherence.LABEL, [many], None) == f"{X86} is of revision a, b"


@pytest.mark.parametrize(
    ("found", "mixed"),
    [
        (OLD, False),
        ((pushed(X86, "new"), OLD[1]), True),
        ((OLD[0], pushed(ARM, "new")), True),
        ((pushed(X86, "new"), pushed(ARM, "new")), False),
        ((pushed(X86, "new"),), False),
    ],
)
def test_changing_together(found: tuple[Found, ...], *, mixed: bool) -> None:
    """No source may be as it was while others changed."""
    assert bool(incoherence(Coherence.TOGETHER, found, generation(*OLD))) is mixed


def test_a_newcomer_completes_the_release() -> None:
    """An architecture that comes for the first time isn't waited for by the others."""
    assert incoherence(Coherence.TOGETHER, OLD, generation(OLD[0])) == ""


def test_a_mixture_is_no_measure() -> None:
    """After a mixture had to be served, what completes it is served at once."""
    mixture = generation(pushed(X86, "new"), OLD[1], coherent=False)

    assert incoherence(Coherence.TOGETHER, [pushed(X86, "new"), pushed(ARM, "new")], mixture) == ""


def decided(rule: Rule, *outcomes: Found | Absent, previous: Entry | None, held: float = 0.0) -> Verdict:
    """Decide for *rule*."""
    return decide(plan_for(rule), outcomes, previous, age=61.0, freshness=Freshness(), held=held)


TOGETHER = replace(RULE, coherence=Coherence.TOGETHER)
HOLDING = replace(RULE, on_partial=OnPartial.HOLD)


@pytest.mark.parametrize(("held", "expected"), [(0.0, Keep), (900.0, Keep), (901.0, Serve)])
def test_the_last_release_is_kept_for_a_while(held: float, expected: type[Verdict]) -> None:
    """While releases mix the last coherent index is served, for `hold_max` at most."""
    found = decided(TOGETHER, pushed(X86, "new"), OLD[1], previous=generation(*OLD), held=held)

    assert isinstance(found, expected)


def test_without_a_last_release_the_mixture_is_served() -> None:
    """With nothing better to serve, the client is warned and served."""
    found = decided(
        replace(RULE, coherence=Coherence.LABEL),
        pushed(X86, "1", revision="a"),
        pushed(ARM, "1", revision="b"),
        previous=None,
    )

    assert isinstance(found, Serve)
    assert "revision" in found.warnings[0]


@pytest.mark.parametrize(
    ("rule", "previous", "held", "expected"),
    [
        (HOLDING, generation(*OLD), 0.0, Keep),
        (HOLDING, generation(*OLD), 901.0, Serve),
        (HOLDING, generation(*OLD, complete=False), 0.0, Serve),
        (HOLDING, None, 0.0, Serve),
        (RULE, generation(*OLD), 0.0, Serve),
    ],
)
def test_the_last_complete_index_is_kept(
    rule: Rule, previous: Entry | None, held: float, expected: type[Verdict]
) -> None:
    """With `on_partial = "hold"` an image that is gone doesn't shrink what was complete, for `hold_max` at most."""
    found = decided(rule, OLD[0], Absent(ARM), previous=previous, held=held)

    assert isinstance(found, expected)
