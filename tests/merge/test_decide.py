from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge.builders import (
    BASE,
    GUESSING,
    RULE,
    absent,
    artifact,
    attestation,
    entry,
    failed,
    guessed,
    image,
    many,
    plan_for,
    platform,
    single,
    template,
    written,
)
from proxy.merge.decide import Hold, Pass, Refuse, Serve, Verdict, decide, part_of_base
from proxy.merge.entry import Entry, Part
from proxy.merge.freshness import Freshness
from proxy.merge.index import render
from proxy.merge.outcome import Failed, Found, Outcome, SingleImage
from proxy.merge.plan import Plan, Source, plan_companion
from proxy.merge.rule import PASSTHROUGH, Base, Learned, OnPartial, Rule, Trust
from proxy.oci.errors import (
    BadAnswer,
    ManifestUnknown,
    NoAnswer,
    Overloaded,
    Refused,
    RegistryError,
    TimedOut,
    Unreachable,
)
from proxy.oci.mediatype import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX
from proxy.oci.reference import Tag

X86, ARM = written("x86", "linux/amd64"), written("arm", "linux/arm64")
FOUND_X86, FOUND_ARM = single(X86, "linux/amd64"), single(ARM, "linux/arm64")
SIGNATURE = Tag("sha256-" + "a" * 64 + ".sig")
SLOW, DENIED = TimedOut("it took longer than 5 s"), Refused("401 unauthorized")
AMD64, ARM64 = image("amd64", "linux/amd64"), image("arm64", "linux/arm64/v8")


def verdict(
    *outcomes: Outcome, rule: Rule = RULE, previous: Entry | None = None, age: float = 0.0, plan: Plan | None = None
) -> Verdict:
    """Decide on what came of the sources of *rule*."""
    return decide(plan or plan_for(rule), outcomes, previous, age=age, freshness=Freshness())


def served(found: Verdict) -> list[str]:
    """Return the platforms of an index that is served."""
    assert isinstance(found, Serve), found
    return [text for part in found.parts for text in part.platforms]


def error(found: Verdict) -> RegistryError:
    """Return the error of a refusal."""
    assert isinstance(found, Refuse), found
    return found.error


def test_both_found_is_served() -> None:
    """Two architectures, one index: the bytes are those of its children."""
    found = verdict(FOUND_X86, FOUND_ARM, absent(BASE))

    assert isinstance(found, Serve)
    assert served(found) == ["linux/amd64", "linux/arm64/v8"]
    assert found.manifest == render(
        [
            replace(FOUND_X86.descriptor, platform=platform("linux/amd64")),
            replace(FOUND_ARM.descriptor, platform=platform("linux/arm64/v8")),
        ]
    )
    assert found.warnings == ()


def test_type_follows_the_children() -> None:
    """Docker manifests make a Docker list, anything else an OCI index (law 7)."""
    docker = [replace(f, descriptor=replace(f.descriptor, media_type=DOCKER_MANIFEST)) for f in (FOUND_X86, FOUND_ARM)]
    pure, mixed = verdict(*docker, absent(BASE)), verdict(docker[0], FOUND_ARM, absent(BASE))

    assert isinstance(pure, Serve)
    assert isinstance(mixed, Serve)
    assert pure.manifest.descriptor.media_type == DOCKER_LIST
    assert mixed.manifest.descriptor.media_type == OCI_INDEX


def test_parts_say_where_each_child_is() -> None:
    """Every source that was found is a part, with its digest and its children, those that brought nothing too."""
    rival = single(BASE, "linux/amd64")
    found = verdict(FOUND_X86, FOUND_ARM, rival)

    assert isinstance(found, Serve)
    assert [part.place for part in found.parts] == [X86.place, ARM.place, BASE.place]
    assert [part.digest for part in found.parts] == [
        FOUND_X86.descriptor.digest,
        FOUND_ARM.descriptor.digest,
        rival.descriptor.digest,
    ]
    assert [len(part.children) for part in found.parts] == [1, 1, 0]


def test_absent_source_makes_a_partial_index() -> None:
    """An authoritative 404 removes an architecture, and the client is told."""
    found = verdict(FOUND_X86, absent(ARM), absent(BASE))

    assert isinstance(found, Serve)
    assert served(found) == ["linux/amd64"]
    assert found.missing == found.warnings == ("hub/kimoqi/alpine-arm:1.0 does not exist",)


def test_absent_source_removes_what_was_there() -> None:
    """That holds even if the last generation had it: the answer is no, and it counts."""
    found = verdict(FOUND_X86, absent(ARM), absent(BASE), previous=entry(FOUND_X86, FOUND_ARM))

    assert served(found) == ["linux/amd64"]


# What came of x86 and of arm; what is decided without a last generation, with a young and with an old one.
DAY, MINUTES = 86_400.0, 300.0
LAW_4 = [
    (FOUND_X86, failed(ARM, SLOW), Unreachable, DAY),
    (failed(X86, SLOW), FOUND_ARM, Unreachable, DAY),
    (failed(X86, SLOW), failed(ARM, SLOW), Unreachable, DAY),
    (absent(X86), failed(ARM, SLOW), Unreachable, DAY),
    (failed(X86, BadAnswer("not JSON")), FOUND_ARM, Unreachable, DAY),
    (failed(X86, Overloaded("429")), FOUND_ARM, Unreachable, DAY),
    (FOUND_X86, failed(ARM, DENIED), Refused, MINUTES),
    (failed(X86, DENIED), FOUND_ARM, Refused, MINUTES),
    (failed(X86, DENIED), failed(ARM, DENIED), Refused, MINUTES),
    (absent(X86), failed(ARM, DENIED), Refused, MINUTES),
    (failed(X86, DENIED), failed(ARM, SLOW), Refused, MINUTES),
    (failed(X86, SLOW), failed(ARM, DENIED), Refused, MINUTES),
]


@pytest.mark.parametrize(("x86", "arm", "kind", "grace"), LAW_4)
def test_trouble_never_shrinks_an_index(x86: Outcome, arm: Outcome, kind: type[RegistryError], grace: float) -> None:
    """With a source unanswered the last generation stands for its time, else the error is told (law 4)."""
    previous = entry(FOUND_X86, FOUND_ARM)
    limit = Freshness().tag_ttl + grace

    assert type(error(verdict(x86, arm, absent(BASE)))) is kind
    held = verdict(x86, arm, absent(BASE), previous=previous, age=limit)
    assert isinstance(held, Hold)
    assert held.entry is previous
    assert type(held.error) is kind
    assert type(error(verdict(x86, arm, absent(BASE), previous=previous, age=limit + 1))) is kind


def test_trouble_with_the_base_counts_too() -> None:
    """What stands at the name itself may be an index that replaces all; not knowing is not merging."""
    assert isinstance(error(verdict(FOUND_X86, FOUND_ARM, failed(BASE, SLOW))), NoAnswer)


def test_errors_name_every_cause() -> None:
    """The client reads which source gave no answer, and why."""
    message = error(verdict(failed(X86, SLOW), failed(ARM, Overloaded("it said 500")), absent(BASE))).message

    assert message == (
        "no answer on kimoqi/alpine:1.0: hub/kimoqi/alpine-x86:1.0: it took longer than 5 s; "
        "hub/kimoqi/alpine-arm:1.0: it said 500"
    )


def test_errors_say_one_cause_once() -> None:
    """A registry that is away is one sentence, however many names were asked for there."""
    few = error(verdict(failed(X86, SLOW), failed(ARM, SLOW), failed(BASE, Overloaded("it said 500")))).message
    many = error(verdict(*(failed(guessed(token, "linux/amd64"), SLOW) for token in "abcdef"))).message

    assert few == (
        "no answer on kimoqi/alpine:1.0: hub/kimoqi/alpine-x86:1.0, hub/kimoqi/alpine-arm:1.0: "
        "it took longer than 5 s; hub/kimoqi/alpine:1.0: it said 500"
    )
    assert many.endswith("hub/kimoqi/alpine-d:1.0 and 2 more: it took longer than 5 s")


def test_refusal_names_its_source() -> None:
    """Whoever must fix the credentials reads for which image."""
    message = error(verdict(FOUND_X86, failed(ARM, DENIED), absent(BASE))).message

    assert message == "kimoqi/alpine:1.0 needs hub/kimoqi/alpine-arm:1.0: 401 unauthorized"


def test_retry_after_is_passed_on() -> None:
    """The first source that says when to come back is believed."""
    found = error(verdict(failed(X86, SLOW), failed(ARM, Overloaded("429", retry_after="30")), absent(BASE)))

    assert found.retry_after == "30"
    assert found.status == 503


@pytest.mark.parametrize(
    ("outcomes", "status", "code"),
    [
        ([absent(X86), absent(ARM), absent(BASE)], 404, "MANIFEST_UNKNOWN"),
        ([absent(X86), absent(ARM), failed(BASE, SLOW)], 503, "UNAVAILABLE"),
        ([absent(X86), failed(ARM, SLOW), absent(BASE)], 503, "UNAVAILABLE"),
        ([FOUND_X86, failed(ARM, SLOW), absent(BASE)], 503, "UNAVAILABLE"),
        ([failed(X86, BadAnswer("HTML")), absent(ARM), absent(BASE)], 503, "UNAVAILABLE"),
        ([absent(X86), absent(ARM), failed(BASE, DENIED)], 403, "DENIED"),
        ([failed(X86, DENIED), absent(ARM), absent(BASE)], 403, "DENIED"),
        ([FOUND_X86, failed(ARM, DENIED), failed(BASE, SLOW)], 403, "DENIED"),
        ([artifact(X86), absent(ARM), absent(BASE)], 404, "MANIFEST_UNKNOWN"),
    ],
)
def test_status_says_what_was_learned(outcomes: list[Outcome], status: int, code: str) -> None:
    """404 only if everybody says no, 503 without an answer, 403 on a refusal."""
    found = error(verdict(*outcomes))

    assert (found.status, found.code) == (status, code)


@pytest.mark.parametrize(
    ("cause", "status"),
    [(SLOW, 503), (BadAnswer("HTML"), 502), (Overloaded("429"), 503), (Unreachable("refused"), 503)],
)
def test_lone_sources_error_keeps_its_kind(cause: NoAnswer, status: int) -> None:
    """A name that is passed through fails the way its upstream did."""
    found = error(verdict(failed(BASE, cause), rule=PASSTHROUGH))

    assert type(found) is type(cause)
    assert found.status == status


def test_unknown_image_names_who_was_asked() -> None:
    """A 404 says where was looked; of many names the first four."""
    few = error(verdict(absent(X86), absent(ARM), absent(BASE))).message
    guesses = [absent(guessed(token, "linux/amd64")) for token in "abcdef"]

    assert few == (
        "kimoqi/alpine:1.0 is unknown: none of hub/kimoqi/alpine-x86:1.0, hub/kimoqi/alpine-arm:1.0, "
        "hub/kimoqi/alpine:1.0 exists"
    )
    assert error(verdict(*guesses)).message.endswith("hub/kimoqi/alpine-d:1.0 and 2 more exists")
    assert error(verdict(absent(BASE))).message == "kimoqi/alpine:1.0 is unknown: hub/kimoqi/alpine:1.0 does not exist"


def test_unknown_image_that_nobody_was_asked_for_says_so() -> None:
    """Where every source's name is impossible, the sentence is about those names."""
    plan = replace(plan_for(RULE), sources=(), base=None, impossible=("x makes no valid image name",))

    assert error(verdict(plan=plan)).message == "kimoqi/alpine:1.0 is unknown: x makes no valid image name"
    assert error(verdict(plan=replace(plan, impossible=()))).message.endswith("is unknown: its rule asks for nothing")


def test_nothing_runnable_says_why() -> None:
    """A 404 of things that exist names what they are."""
    assert "it is not a runnable image" in error(verdict(artifact(X86), absent(ARM), absent(BASE))).message


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


@pytest.mark.parametrize(
    ("require", "arm", "missing"),
    [
        (["linux/amd64", "linux/arm64"], FOUND_ARM, ()),
        (["linux/arm"], FOUND_ARM, ("linux/arm is missing",)),
        (["linux/amd64"], absent(ARM), ()),
        (["linux/arm64/v8"], FOUND_ARM, ()),
        (["linux/aarch64"], FOUND_ARM, ()),
        (["linux/arm64"], absent(ARM), ("linux/arm64 is missing (hub/kimoqi/alpine-arm:1.0 does not exist)",)),
        ([], absent(ARM), ("hub/kimoqi/alpine-arm:1.0 does not exist",)),
        ([], FOUND_ARM, ()),
    ],
)
def test_missing_is_what_the_rule_requires(require: list[str], arm: Outcome, missing: tuple[str, ...]) -> None:
    """Required platforms say what is missing; without any, the written sources do."""
    rule = replace(RULE, require=tuple(map(platform, require)))
    found = verdict(FOUND_X86, arm, absent(BASE), rule=rule)

    assert isinstance(found, Serve)
    assert found.missing == missing
    if missing:
        failing = verdict(FOUND_X86, arm, absent(BASE), rule=replace(rule, on_partial=OnPartial.FAIL))
        assert error(failing).message == f"kimoqi/alpine:1.0 is not complete: {missing[0]}"
        assert error(failing).status == 404


def test_absent_guess_is_not_missing() -> None:
    """Most guesses don't exist; that is no news."""
    found = verdict(
        single(guessed("x86", "linux/amd64"), "linux/amd64"), absent(guessed("arm", "linux/arm64")), rule=GUESSING
    )

    assert isinstance(found, Serve)
    assert found.warnings == ()


def test_impossible_source_is_missing() -> None:
    """A source whose name breaks the grammar is as absent as one that was asked for."""
    plan = replace(plan_for(RULE), impossible=("x makes no valid image name",))
    found = verdict(FOUND_X86, FOUND_ARM, absent(BASE), plan=plan)

    assert isinstance(found, Serve)
    assert found.missing == ("x makes no valid image name",)


def test_client_is_warned_of_clashes_and_omissions() -> None:
    """What was found and left out is said; a mismatch is the operator's affair."""
    rule = replace(RULE, trust=Trust.AUTO)
    found = verdict(FOUND_X86, artifact(ARM), single(BASE, "linux/amd64"), rule=rule)
    lied = verdict(single(X86, "linux/arm64"), absent(ARM), absent(BASE))

    assert isinstance(found, Serve)
    assert isinstance(lied, Serve)
    assert found.warnings == (*found.clashes, *found.omissions)
    assert (len(found.clashes), len(found.omissions)) == (1, 1)
    assert len(lied.mismatches) == 1
    assert lied.mismatches[0] not in lied.warnings


@pytest.mark.parametrize(
    ("default", "seed"), [("linux/amd64", X86), ("linux/arm64", ARM), ("linux/arm64/v8", ARM), ("linux/s390x", None)]
)
def test_default_child_is_of_the_default_platform(default: str, seed: Source | None) -> None:
    """A client that takes no index gets that child, or nothing: never a child of another platform."""
    found = verdict(FOUND_X86, FOUND_ARM, absent(BASE), rule=replace(RULE, default_platform=platform(default)))

    assert isinstance(found, Serve)
    assert (found.default_child and found.default_child.digest) == (seed and image(str(seed)).digest)


def test_default_child_is_the_first_in_the_indexs_order() -> None:
    """`linux/arm` may be several: the newest variant is the first."""
    rule = replace(RULE, base=Base.MERGE, default_platform=platform("linux/arm"))
    v7 = image("v7", "linux/arm/v7")
    found = verdict(FOUND_X86, FOUND_ARM, many(BASE, image("v6", "linux/arm/v6"), v7, attestation(v7)), rule=rule)

    assert isinstance(found, Serve)
    assert found.default_child == v7


@pytest.mark.parametrize("of", [BASE, guessed("arm", "linux/arm64")])
def test_refused_conjecture_is_absent_where_something_was_found(of: Source) -> None:
    """Registries refuse what doesn't exist; the virtual name itself and guesses usually don't."""
    found = verdict(FOUND_X86, FOUND_ARM, failed(of, DENIED))

    assert served(found) == ["linux/amd64", "linux/arm64/v8"]


@pytest.mark.parametrize("of", [BASE, guessed("arm", "linux/arm64")])
def test_refusal_of_what_was_part_of_the_index_counts(of: Source) -> None:
    """Once it was part of a generation it is no conjecture: the index doesn't shrink."""
    previous = entry(FOUND_X86, FOUND_ARM, single(of, "linux/s390x"))

    assert isinstance(verdict(FOUND_X86, FOUND_ARM, failed(of, DENIED), previous=previous), Hold)
    assert error(verdict(FOUND_X86, FOUND_ARM, failed(of, DENIED), previous=previous, age=1e6)).status == 403


def test_refusal_of_a_guess_that_came_true_before_counts() -> None:
    """Another tag has shown that the repository exists: a refusal can't mean that it doesn't (law 4)."""
    arm = guessed("arm", "linux/arm64")
    plan = replace(plan_for(GUESSING), learned=Learned("repository-suffix", ("arm",), 0.0))

    assert error(verdict(FOUND_X86, failed(arm, DENIED), plan=plan)).status == 403


def test_refusal_counts_where_nothing_was_found() -> None:
    """All refused may be a wrong password: that isn't "unknown"."""
    assert error(verdict(absent(guessed("x86", "linux/amd64")), failed(BASE, DENIED), rule=GUESSING)).status == 403


def test_refused_source_that_was_written_is_no_conjecture() -> None:
    """Somebody wrote it down, so it exists."""
    assert error(verdict(FOUND_X86, failed(ARM, DENIED), absent(BASE))).status == 403


_children = st.lists(st.sampled_from([AMD64, ARM64, attestation(AMD64), image("v6", "linux/arm/v6")]), max_size=4)


def answers(of: Source) -> st.SearchStrategy[Outcome]:
    """Return anything that may come of asking *of*."""
    return st.one_of(
        st.just(absent(of)),
        st.sampled_from([failed(of, each) for each in (SLOW, DENIED, BadAnswer("HTML"), Overloaded("429"))]),
        st.sampled_from([single(of, each) for each in ("", "linux/amd64", "linux/arm64", "linux/arm/v7")]),
        _children.map(lambda children: many(of, *children)),
        st.just(artifact(of)),
    )


rules = st.builds(
    lambda explicit, **changes: replace(RULE if explicit else GUESSING, **changes),
    st.booleans(),
    base=st.sampled_from(Base),
    trust=st.sampled_from(Trust),
    on_partial=st.sampled_from(OnPartial),
    require=st.sampled_from([(), (platform("linux/amd64"),), (platform("linux/arm64"), platform("linux/amd64"))]),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Plan, list[Outcome], Entry | None, float]:
    """Draw a plan, what came of its sources, and what was served before."""
    plan = plan_for(draw(rules))
    sources = plan.sources[:4] if plan.rule.sources else (guessed("x86", "linux/amd64"), guessed("arm", "linux/arm64"))
    asked = (*sources, *((plan.base,) if plan.base else ()))
    outcomes = [draw(answers(each)) for each in asked]
    seen = draw(st.lists(st.sampled_from(asked), unique=True))
    previous = entry(*(single(each) for each in seen)) if seen else None
    return plan, outcomes, previous, draw(st.sampled_from([0.0, 299.0, 400.0, 80_000.0, 1e6]))


@given(situations())
def test_no_answer_never_makes_a_new_index(situation: tuple[Plan, list[Outcome], Entry | None, float]) -> None:
    """Any source without an answer: the last good generation or an error, never a smaller index (law 4).

    The exception is what its author already made whole: an index or an artifact at the name itself.
    """
    plan, outcomes, previous, age = situation
    found = verdict(*outcomes, plan=plan, previous=previous, age=age)

    if any(isinstance(outcome, Failed) and isinstance(outcome.error, NoAnswer) for outcome in outcomes):
        assert isinstance(found, Hold | Refuse | Pass)
        assert not isinstance(found, Pass) or found.found.source == plan.base
        assert not isinstance(found, Refuse) or found.error.status in {403, 502, 503}


@given(situations())
def test_refusal_never_takes_away_what_was_served(situation: tuple[Plan, list[Outcome], Entry | None, float]) -> None:
    """A source of the last generation that is refused now is held or refused, never left out (law 4)."""
    plan, outcomes, previous, age = situation
    places = previous.digests() if previous else {}
    found = verdict(*outcomes, plan=plan, previous=previous, age=age)

    if any(isinstance(o, Failed) and isinstance(o.error, Refused) and o.source.place in places for o in outcomes):
        assert not isinstance(found, Serve)
        assert not isinstance(found, Refuse) or found.error.status == 403


@given(situations())
def test_every_situation_has_a_sound_verdict(situation: tuple[Plan, list[Outcome], Entry | None, float]) -> None:
    """What is served was found just now; 404 means that nobody failed; the default child is one of the children."""
    plan, outcomes, previous, age = situation
    found = verdict(*outcomes, plan=plan, previous=previous, age=age)

    match found:
        case Serve():
            assert {part.place for part in found.parts} == {o.source.place for o in outcomes if isinstance(o, Found)}
            assert found.default_child is None or found.default_child in [c for p in found.parts for c in p.children]
        case Pass():
            assert found.found in outcomes
        case Hold():
            assert found.entry is previous
        case Refuse(error=ManifestUnknown()):
            assert not any(isinstance(o, Failed) and isinstance(o.error, NoAnswer) for o in outcomes)
        case Refuse():
            assert any(isinstance(o, Failed) for o in outcomes)


@given(situations())
def test_deciding_twice_decides_the_same(situation: tuple[Plan, list[Outcome], Entry | None, float]) -> None:
    """No clock, no chance: two replicas that see the same do the same (law 2)."""
    plan, outcomes, previous, age = situation
    once, again = (verdict(*outcomes, plan=plan, previous=previous, age=age) for _ in range(2))

    assert type(once) is type(again)
    if isinstance(once, Serve):
        assert once == again


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
