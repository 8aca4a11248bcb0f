from collections.abc import Sequence
from dataclasses import fields, replace

import pytest

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
    source,
    written,
)
from proxy.merge.decide import decide
from proxy.merge.entry import Entry
from proxy.merge.explain import Explanation, Question, explain
from proxy.merge.freshness import Freshness
from proxy.merge.outcome import Found, Outcome, Present, Probe
from proxy.merge.plan import Plan, Source
from proxy.merge.rule import PASSTHROUGH, Base, Trust
from proxy.oci.errors import BadAnswer, Refused, TimedOut

X86, ARM = written("x86", "linux/amd64"), written("arm", "linux/arm64")
FOUND_X86, FOUND_ARM = single(X86, "linux/amd64"), single(ARM, "linux/arm64")
AMD64, ARM64 = image("amd64", "linux/amd64"), image("arm64", "linux/arm64/v8")


def explained(
    *outcomes: Outcome, plan: Plan | None = None, probes: Sequence[Probe] = (), previous: Entry | None = None
) -> Explanation:
    """Decide, and explain what was decided."""
    planned = plan or plan_for(RULE)
    verdict = decide(planned, outcomes, previous, age=0.0, freshness=Freshness())
    return explain(planned, probes, outcomes, verdict)


def question(of: Explanation, name: str) -> Question:
    """Return the question to the source *name*."""
    return next(each for each in of.questions if each.source == name)


def test_served_index_is_explained() -> None:
    """The rule, each source with its part in the index, digest, type, platforms."""
    found = explained(FOUND_X86, FOUND_ARM, absent(BASE))

    assert (found.image, found.upstream, found.rule, found.match) == ("kimoqi/alpine:1.0", "hub", "rule 1", "kimoqi/*")
    assert not found.guessed
    assert (found.verdict, found.reason) == ("serve", "merged from 2 sources")
    assert found.digest.startswith("sha256:")
    assert found.media_type == "application/vnd.oci.image.index.v1+json"
    assert found.platforms == ("linux/amd64", "linux/arm64/v8")
    assert found.notes == ()


def test_found_source_is_explained() -> None:
    """What was expected, what it says, what it became, and how long it took, in milliseconds."""
    found = explained(FOUND_X86, FOUND_ARM, absent(BASE))

    assert question(found, "hub/kimoqi/alpine-arm:1.0") == Question(
        source="hub/kimoqi/alpine-arm:1.0",
        expected="linux/arm64/v8 (written)",
        result="found",
        digest=FOUND_ARM.descriptor.digest,
        says="linux/arm64/v8",
        becomes=("linux/arm64/v8",),
        milliseconds=250.0,
    )


@pytest.mark.parametrize(
    ("outcome", "result", "says"),
    [
        (absent(ARM), "absent", "does not exist"),
        (failed(ARM, TimedOut("too slow")), "no answer", "too slow"),
        (failed(ARM, BadAnswer("not JSON")), "no answer", "not JSON"),
        (failed(ARM, Refused("401")), "refused", "401"),
        (artifact(ARM), "found", "not a runnable image: application/vnd.cncf.helm.config.v1+json"),
        (many(ARM, AMD64, ARM64, attestation(ARM64)), "found", "an index of linux/amd64, linux/arm64/v8"),
        (many(ARM), "found", "an index of nothing runnable"),
        (single(ARM, "linux/aarch64"), "found", "linux/arm64/v8"),
    ],
)
def test_answer_is_told_in_words(outcome: Outcome, result: str, says: str) -> None:
    """No, no answer and refused are different words, each with its cause."""
    asked = question(explained(FOUND_X86, outcome, absent(BASE)), "hub/kimoqi/alpine-arm:1.0")

    assert (asked.result, asked.says) == (result, says)
    assert bool(asked.digest) is (result == "found")


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (ARM, "linux/arm64/v8 (written)"),
        (guessed("arm", "linux/arm/v7", "linux/arm64"), "linux/arm/v7 (guessed from arm)"),
        (BASE, "the name itself"),
        (source("plain"), "as its config says"),
    ],
)
def test_expectation_is_told_in_words(of: Source, expected: str) -> None:
    """Written, guessed, the name itself, or left to the config."""
    assert question(explained(FOUND_X86, single(of, "linux/s390x")), str(of)).expected == expected


def test_a_refused_guess_says_what_it_said() -> None:
    """It counts as absent; whoever looks for a missing right has to see that it was refused."""
    x86, arm = guessed("x86", "linux/amd64"), guessed("arm", "linux/arm64")
    probes: list[Probe] = [Present(x86, image("x86")), failed(arm, Refused("hub refuses access (401)")), absent(BASE)]
    outcomes = single(x86, "linux/amd64"), absent(arm), absent(BASE)
    found = explained(*outcomes, plan=plan_for(GUESSING), probes=probes)

    asked = question(found, str(arm))
    assert (asked.result, asked.says) == ("refused", "hub refuses access (401)")
    assert question(found, str(BASE)).result == "absent"
    assert found.verdict == "serve"


def test_disagreement_is_noted() -> None:
    """Claim, contradiction and outcome stand side by side."""
    found = explained(FOUND_X86, single(ARM, "linux/amd64"), absent(BASE))
    asked = question(found, str(ARM))

    assert (asked.expected, asked.says, asked.becomes) == (
        "linux/arm64/v8 (written)",
        "linux/amd64",
        ("linux/arm64/v8",),
    )
    assert found.notes == ("hub/kimoqi/alpine-arm:1.0 says it is linux/amd64, the rule says linux/arm64/v8",)


def test_everything_noteworthy_is_noted() -> None:
    """What is missing, contradicts, clashes or was left out, in this order."""
    plan = plan_for(replace(RULE, trust=Trust.CONFIG, require=(platform("linux/s390x"),)))
    found = explained(FOUND_X86, single(ARM, "linux/amd64"), single(BASE), plan=plan)

    assert [note.split(" ", 2)[1] for note in found.notes] == ["is", "says", "is", "is"]
    assert "linux/s390x is missing" in found.notes[0]
    assert found.reason == "merged from 1 source"
    assert question(found, str(ARM)).becomes == ()


def test_attestations_are_no_platforms() -> None:
    """They are in the index, not among what a source becomes."""
    found = explained(many(X86, AMD64, attestation(AMD64)), FOUND_ARM, absent(BASE))

    assert question(found, str(X86)).becomes == ("linux/amd64",)
    assert found.platforms == ("linux/amd64", "linux/arm64/v8")


def test_passed_name_is_explained() -> None:
    """An index at the name itself is served as it is: nothing became part of an index of ours."""
    whole = many(BASE, AMD64, ARM64)
    found = explained(absent(X86), FOUND_ARM, whole)

    assert (found.verdict, found.reason) == ("pass", "served as it is at the name itself")
    assert (found.digest, found.media_type) == (whole.descriptor.digest, whole.descriptor.media_type)
    assert all(asked.becomes == () for asked in found.questions)
    assert found.notes == ()


def test_held_generation_is_explained() -> None:
    """The last good one stands, and the reason is the error that kept us from a new one."""
    previous = entry(FOUND_X86, FOUND_ARM)
    found = explained(FOUND_X86, failed(ARM, TimedOut("too slow")), absent(BASE), previous=previous)

    assert found.verdict == "hold"
    assert "hub/kimoqi/alpine-arm:1.0: too slow" in found.reason
    assert found.digest == previous.descriptor.digest
    assert question(found, str(X86)).becomes == ()


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        ([absent(X86), absent(ARM), absent(BASE)], "404 MANIFEST_UNKNOWN: kimoqi/alpine:1.0 is unknown"),
        ([failed(X86, TimedOut("too slow")), absent(ARM), absent(BASE)], "503 UNAVAILABLE: no answer on"),
        ([failed(X86, Refused("401")), absent(ARM), absent(BASE)], "403 DENIED: kimoqi/alpine:1.0 needs"),
    ],
)
def test_refusal_is_explained(outcomes: list[Outcome], reason: str) -> None:
    """Status, code and sentence are those that a client gets."""
    found = explained(*outcomes)

    assert found.verdict == "refuse"
    assert found.reason.startswith(reason)
    assert (found.digest, found.media_type, found.platforms) == ("", "", ())


def test_every_guess_is_listed() -> None:
    """Also those that didn't count because another convention won; each source once."""
    plan = plan_for(GUESSING)
    x86, other = plan.sources[0], plan.sources[-1]
    probes: list[Probe] = [
        Present(x86, image("x")),
        *(absent(each) for each in plan.sources[1:-1]),
        Present(other, image("y"), 0.0123),
        absent(BASE),
    ]
    found = explained(single(x86, "linux/amd64"), absent(BASE), plan=plan, probes=probes)

    assert found.guessed
    assert sorted(asked.source for asked in found.questions) == sorted(map(str, (*plan.sources, BASE)))
    assert question(found, str(other)).says == "not counted: another convention won"
    assert question(found, str(other)).milliseconds == 12.3
    assert question(found, str(plan.sources[1])).result == "absent"


def test_impossible_source_is_noted() -> None:
    """What couldn't be asked is said, whatever was decided."""
    plan = replace(plan_for(RULE), impossible=("x makes no valid image name",))

    for outcomes in ([FOUND_X86, FOUND_ARM], [absent(X86)], [many(BASE, AMD64)], [failed(X86, TimedOut("slow"))]):
        assert "x makes no valid image name" in explained(*outcomes, plan=plan).notes


def test_merged_base_is_explained_as_a_source() -> None:
    """With `merge` the name itself is one of the sources."""
    found = explained(FOUND_X86, absent(ARM), many(BASE, AMD64, ARM64), plan=plan_for(replace(RULE, base=Base.MERGE)))

    assert question(found, str(BASE)).becomes == ("linux/arm64/v8",)
    assert found.reason == "merged from 2 sources"
    assert any("does not exist" in note for note in found.notes)


@pytest.mark.parametrize(
    "outcomes",
    [
        [FOUND_X86, FOUND_ARM, absent(BASE)],
        [FOUND_X86, FOUND_ARM, many(BASE, AMD64)],
        [absent(X86), absent(ARM), absent(BASE)],
        [failed(X86, TimedOut("slow")), FOUND_ARM, absent(BASE)],
    ],
    ids=["serve", "pass", "refuse", "trouble"],
)
def test_every_source_is_in_the_explanation(outcomes: list[Outcome]) -> None:
    """Whatever was decided, each source that was asked has its line, in the rule's order."""
    found = explained(*outcomes)

    assert [asked.source for asked in found.questions] == [str(outcome.source) for outcome in outcomes]


def test_explanation_is_words_and_numbers() -> None:
    """It can be written as JSON as it stands."""
    found = explained(FOUND_X86, FOUND_ARM, absent(BASE))
    plain = (str, bool, float, tuple)

    assert all(isinstance(getattr(found, each.name), plain) for each in fields(found))
    assert all(isinstance(getattr(asked, each.name), plain) for asked in found.questions for each in fields(asked))


def test_found_image_without_platform_says_so() -> None:
    """A config that names no platform is no surprise with a blank; where nothing is merged nobody reads the config."""
    found: Found = single(ARM)

    assert (
        question(explained(FOUND_X86, found, absent(BASE)), str(ARM)).says
        == "one image, whose config names no platform"
    )
    assert question(explained(single(BASE), plan=plan_for(PASSTHROUGH)), str(BASE)).says == (
        "one image, of a platform that nobody asked for"
    )
