"""What is decided where something stands at the virtual name itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from merge.builders import (
    BASE,
    RULE,
    absent,
    artifact,
    entry,
    failed,
    image,
    many,
    plan_for,
    platform,
    single,
    template,
)
from merge.verdicts import AMD64, ARM, ARM64, DENIED, FOUND_ARM, FOUND_X86, SLOW, X86, error, served, verdict
from proxy.merge.decide import Hold, Pass, Refuse, Serve, Verdict, part_of_base
from proxy.merge.entry import Part
from proxy.merge.outcome import Found, Outcome, SingleImage
from proxy.merge.plan import plan_companion
from proxy.merge.rule import Base, OnPartial, Rule
from proxy.oci.errors import BadAnswer, RegistryError
from proxy.oci.mediatype import OCI_INDEX
from proxy.oci.reference import Tag

SIGNATURE = Tag("sha256-" + "a" * 64 + ".sig")


# What stands at the name itself; what comes of it with passthrough and with merge, both sources being there.
WHOLE = many(BASE, AMD64, image("s390x", "linux/s390x"))


@pytest.mark.parametrize(
    ("base", "at_the_name", "decided"),
    [
        (Base.PASSTHROUGH, WHOLE, Pass),
        (Base.PASSTHROUGH, single(BASE, "linux/s390x"), ["linux/amd64", "linux/arm64/v8", "linux/s390x"]),
        (Base.PASSTHROUGH, single(BASE, "linux/amd64"), ["linux/amd64", "linux/arm64/v8"]),
        (Base.PASSTHROUGH, artifact(BASE), Pass),
        (Base.PASSTHROUGH, absent(BASE), ["linux/amd64", "linux/arm64/v8"]),
        (Base.PASSTHROUGH, failed(BASE, SLOW), Refuse),
        (Base.MERGE, WHOLE, ["linux/amd64", "linux/arm64/v8", "linux/s390x"]),
        (Base.MERGE, single(BASE, "linux/s390x"), ["linux/amd64", "linux/arm64/v8", "linux/s390x"]),
        (Base.MERGE, artifact(BASE), Pass),
        (Base.MERGE, absent(BASE), ["linux/amd64", "linux/arm64/v8"]),
        (Base.MERGE, failed(BASE, SLOW), Refuse),
    ],
)
def test_base_is_passed_or_merged(base: Base, at_the_name: Outcome, decided: type[Verdict] | list[str]) -> None:
    """An index at the name is its author's, unless the rule merges it; a single image joins in the last place."""
    found = verdict(FOUND_X86, FOUND_ARM, at_the_name, rule=replace(RULE, base=base))

    if isinstance(decided, list):
        assert served(found) == decided
    else:
        assert isinstance(found, decided)


@pytest.mark.parametrize(("conjecture", "status"), [(True, 404), (False, 403)])
def test_refused_companion_is_unknown_where_its_place_is_a_conjecture(status: int, *, conjecture: bool) -> None:
    """Registries refuse repositories that don't exist; one that is known to be there means what it says."""
    plan = plan_companion(RULE, "hub", BASE.repository, SIGNATURE, ("hub", BASE.repository), conjecture=conjecture)
    asked = replace(BASE, tag=SIGNATURE)

    assert error(verdict(failed(asked, DENIED), plan=plan)).status == status
    assert error(verdict(failed(asked, SLOW), plan=plan)).status == 503
    assert isinstance(verdict(many(asked, AMD64), plan=plan), Pass)
    assert isinstance(verdict(failed(asked, DENIED), plan=plan, previous=entry(single(asked))), Hold)


def test_ignored_base_is_no_part_of_it() -> None:
    """`ignore` merges the sources alone; nothing is ever passed through."""
    rule = replace(RULE, base=Base.IGNORE)

    assert served(verdict(FOUND_X86, FOUND_ARM, rule=rule)) == ["linux/amd64", "linux/arm64/v8"]
    assert error(verdict(absent(X86), absent(ARM), rule=rule)).status == 404


@pytest.mark.parametrize("base", [WHOLE, single(BASE, "linux/amd64"), single(BASE), artifact(BASE)])
@pytest.mark.parametrize("mode", [Base.PASSTHROUGH, Base.MERGE])
def test_name_alone_is_passed_through(base: Found, mode: Base) -> None:
    """Where no source exists, what stands at the name is served as it is; a merged index alone is made anew."""
    found = verdict(absent(X86), absent(ARM), base, rule=replace(RULE, base=mode))

    if mode is Base.MERGE and base is WHOLE:
        assert served(found) == ["linux/amd64", "linux/s390x"]
    else:
        assert isinstance(found, Pass)
        assert found.found is base


@pytest.mark.parametrize("trouble", [failed(X86, SLOW), failed(X86, DENIED)])
def test_index_at_the_name_needs_no_sources(trouble: Outcome) -> None:
    """Its author already merged: trouble with a source that isn't used is no trouble."""
    found = verdict(trouble, FOUND_ARM, WHOLE)

    assert isinstance(found, Pass)
    assert found.default_child == AMD64


def test_passed_index_keeps_its_children_as_its_only_part() -> None:
    """The entry of a name that is passed through has one part, the name."""
    part = part_of_base(WHOLE)

    assert part == Part("hub", *BASE.place[1:], WHOLE.descriptor.digest, WHOLE.kind.children)


def unread(cause: RegistryError) -> Found:
    """Return an image at the name whose config couldn't be read."""
    base = single(BASE)
    return replace(base, kind=SingleImage(None, unread=cause))


def test_a_lone_image_is_passed_through_unread() -> None:
    """Nobody asks what it is for, so that nobody has to know."""
    base = unread(SLOW)

    assert verdict(absent(X86), absent(ARM), base) == Pass(base)


@pytest.mark.parametrize(
    ("others", "rule"),
    [
        ((FOUND_X86, absent(ARM)), RULE),
        ((failed(X86, SLOW), absent(ARM)), RULE),
        ((absent(X86), absent(ARM)), replace(RULE, require=(platform("linux/amd64"),))),
        ((absent(X86), absent(ARM)), replace(RULE, on_partial=OnPartial.FAIL)),
    ],
)
def test_what_is_unread_is_no_answer_where_it_matters(others: tuple[Outcome, ...], rule: Rule) -> None:
    """Beside sources, or where platforms are insisted on, it would be part of an index, and nobody knows as what."""
    cause = BadAnswer("not JSON")

    assert "not JSON" in error(verdict(*others, unread(cause), rule=rule)).message


def test_lone_base_is_merged_where_platforms_are_required() -> None:
    """A single image can't be all that a rule requires; the index says what is missing."""
    rule = replace(RULE, require=(platform("linux/amd64"), platform("linux/arm64")))
    found = verdict(absent(X86), absent(ARM), single(BASE, "linux/amd64"), rule=rule)

    assert isinstance(found, Serve)
    assert served(found) == ["linux/amd64"]
    assert len(found.missing) == 1
    assert found.missing[0].startswith("linux/arm64 is missing (")


def test_explicit_source_may_be_the_base_itself() -> None:
    """A rule that names the virtual name as its amd64 source asks and merges it as that."""
    rule = replace(RULE, sources=(template("{repository}", "linux/amd64"), template("{repository}-arm", "linux/arm64")))
    named = plan_for(rule).sources[0]

    assert served(verdict(single(named, "linux/amd64"), FOUND_ARM, rule=rule)) == ["linux/amd64", "linux/arm64/v8"]
    assert served(verdict(many(named, AMD64, ARM64), absent(ARM), rule=rule)) == ["linux/amd64"]


def test_default_child_is_never_an_index() -> None:
    """A client that accepts no index can't take one that is within another."""
    nested = replace(image("nested", "linux/amd64"), media_type=OCI_INDEX)
    passed = verdict(absent(X86), absent(ARM), many(BASE, nested, image("amd64", "linux/amd64")))

    assert isinstance(passed, Pass)
    assert passed.default_child == image("amd64", "linux/amd64")
