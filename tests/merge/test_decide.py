"""What is decided on what came of the sources."""

from __future__ import annotations

from dataclasses import replace

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
)
from merge.verdicts import ARM, DENIED, FOUND_ARM, FOUND_X86, SLOW, X86, error, served, verdict
from proxy.merge.decide import Hold, Serve
from proxy.merge.freshness import Freshness
from proxy.merge.index import render
from proxy.merge.outcome import Outcome
from proxy.merge.plan import Source
from proxy.merge.rule import PASSTHROUGH, Base, Learned, OnPartial, Trust
from proxy.oci.errors import BadAnswer, NoAnswer, Overloaded, Refused, RegistryError, Unreachable
from proxy.oci.mediatype import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX


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
