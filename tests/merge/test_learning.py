from dataclasses import replace

import pytest

from merge.builders import APP, TAG, artifact, entry, image, many, plan_for, single
from proxy.merge.decide import Hold, Keep, Pass, Refuse, Serve, Verdict
from proxy.merge.entry import Entry, Part
from proxy.merge.index import render
from proxy.merge.learning import learn, widen, widen_unchanged
from proxy.merge.outcome import Found
from proxy.merge.plan import Guessed, Plan, plan_tag
from proxy.merge.rule import PASSTHROUGH, Learned, default_rule
from proxy.oci.errors import ManifestUnknown, Refused, RegistryError, TimedOut

MEANS = {"x86": "linux/amd64", "amd64": "linux/amd64", "arm": "linux/arm64", "arm64": "linux/arm64"}
LEARNED = Learned("repository-suffix", ("amd64", "arm", "x86"), 0.0)
MERGED_THERE = Learned("", (), 0.0)


def planned(learned: Learned | None) -> Plan:
    """Return the plan of a tag of a repository of which so much was learned."""
    return plan_tag(default_rule(), "hub", APP, TAG, learned, 0.0)


def made(plan: Plan, *words: str, **means: str) -> tuple[Part, ...]:
    """Return what an index is made of where these words are there, each for what it means."""
    says = {word: MEANS[word] for word in words} | means
    hints = [(source, source.hint) for source in plan.sources]
    return tuple(
        Part(*source.place, digest=image(hint.token).digest, children=(image(hint.token, says[hint.token]),))
        for source, hint in hints
        if isinstance(hint, Guessed) and hint.convention == "repository-suffix" and hint.token in says
    )


def served(parts: tuple[Part, ...]) -> Serve:
    """Return the verdict on them."""
    return Serve(manifest=render([]), parts=parts, default_child=None)


def alone(plan: Plan) -> Found:
    """Return the name itself, a single image."""
    assert plan.base is not None
    return single(plan.base, "linux/amd64")


def test_learning_keeps_convention_and_words() -> None:
    """What came true is remembered, sorted, with its time."""
    plan = planned(None)

    assert learn(plan, served(made(plan, "x86", "arm")), 7.0) == Learned("repository-suffix", ("arm", "x86"), 7.0)


def test_a_word_that_meant_something_else_is_not_learned() -> None:
    """That `-arm` is arm/v7 says nothing about the other words for arm64."""
    plan = planned(None)

    assert learn(plan, served(made(plan, "x86", arm="linux/arm/v7")), 7.0) == Learned(
        "repository-suffix", ("x86",), 7.0
    )
    assert learn(plan, served(made(plan, arm="linux/arm/v7")), 7.0) is None


def test_what_was_learned_can_be_planned() -> None:
    """Learning from a plan and planning with it asks for what was found."""
    plan = planned(None)
    again = planned(learn(plan, served(made(plan, "x86", "arm")), 0.0))

    assert [each.place for each in again.sources] == [part.place for part in made(plan, "x86", "arm")]


def test_an_index_or_an_artifact_at_the_name_needs_no_guesses() -> None:
    """Its author merged it; a lone image may get company any time, and what isn't served teaches nothing."""
    plan = planned(None)
    assert plan.base is not None

    assert learn(plan, Pass(many(plan.base)), 7.0) == Learned("", (), 7.0)
    assert learn(plan, Pass(artifact(plan.base)), 7.0) == Learned("", (), 7.0)
    assert learn(plan, Pass(alone(plan)), 7.0) is None
    assert learn(plan, Refuse(ManifestUnknown("none")), 7.0) is None


def test_an_index_at_one_name_makes_no_words_forgotten() -> None:
    """They stay no guesses, so that being refused one of them isn't taken for its absence."""
    plan = planned(replace(LEARNED, tokens=("x86",)))
    assert plan.base is not None

    assert plan.guessing
    assert learn(plan, Pass(many(plan.base)), 7.0) is None


@pytest.mark.parametrize("words", [("x86", "arm"), ("amd64", "arm"), ("x86", "amd64", "arm")])
def test_every_platform_by_any_word_is_enough(words: tuple[str, ...]) -> None:
    """Where two words of one platform were learned, one of them will do."""
    plan = planned(LEARNED)

    assert widen(plan, served(made(plan, *words))) is None
    assert widen_unchanged(plan, merged(made(plan, *words))) is None


def merged(parts: tuple[Part, ...]) -> Entry:
    """Return the entry of an index that is made of *parts*."""
    return replace(entry(), parts=parts)


def test_a_missing_platform_is_looked_for_by_all_its_words() -> None:
    """Within the convention, as what is there shows that it holds; also where a release is kept for it."""
    plan, narrowed = planned(LEARNED), planned(replace(LEARNED, tokens=("x86",)))
    parts = made(plan, "x86")

    assert narrowed.guessing
    assert widen(plan, served(parts)) == narrowed
    assert widen(plan, Keep(entry(), "incomplete", parts)) == narrowed
    assert widen_unchanged(plan, merged(parts)) == narrowed
    assert widen(narrowed, served(parts)) is None


def test_a_word_that_means_something_else_here_brings_nothing() -> None:
    """`-arm` is arm64 of other tags, and arm/v7 of this one."""
    plan, narrowed = planned(LEARNED), planned(replace(LEARNED, tokens=("x86",)))
    parts = made(plan, "x86", arm="linux/arm/v7")

    assert widen(plan, served(parts)) == narrowed
    assert widen_unchanged(plan, merged(parts)) == narrowed


def test_nothing_of_what_was_learned_is_as_if_nothing_was() -> None:
    """All conventions are asked, also where a single image is at the name itself, and where it isn't complete."""
    plan = planned(LEARNED)

    assert widen(plan, Refuse(ManifestUnknown("none exists"))) == planned(None)
    assert widen(plan, Pass(alone(plan))) == planned(None)
    assert widen_unchanged(plan, passed(alone(plan))) == planned(None)


def passed(found: Found) -> Entry:
    """Return the entry of what is served as it is."""
    return replace(entry(found), merged=False, descriptor=found.descriptor)


@pytest.mark.parametrize("learned", [LEARNED, MERGED_THERE])
def test_an_index_at_the_name_needs_no_other_words(learned: Learned) -> None:
    """It is served as it is."""
    plan = planned(learned)
    assert plan.base is not None

    assert widen(plan, Pass(many(plan.base))) is None
    assert widen(plan, Pass(artifact(plan.base))) is None
    assert widen_unchanged(plan, passed(many(plan.base))) is None


@pytest.mark.parametrize("error", [Refused("no"), TimedOut("slow")])
def test_no_answer_is_no_reason_to_ask_for_more(error: RegistryError) -> None:
    """The verdict is known already; and what is refused isn't missing."""
    verdicts: list[Verdict] = [Refuse(error), Hold(entry(), error)]

    assert [widen(planned(LEARNED), verdict) for verdict in verdicts] == [None, None]


def test_needless_guesses_are_made_after_all_where_no_index_is_at_the_name() -> None:
    """That its author merges was learned from another tag; a single image there may have company."""
    plan = planned(MERGED_THERE)

    assert widen(plan, Refuse(ManifestUnknown("none exists"))) == planned(None)
    assert widen(plan, Pass(alone(plan))) == planned(None)
    assert widen_unchanged(plan, passed(alone(plan))) == planned(None)


def test_a_plan_of_everything_is_as_wide_as_can_be() -> None:
    """Nothing is asked for twice without end."""
    for plan in (planned(None), plan_for(PASSTHROUGH)):
        assert widen(plan, Refuse(ManifestUnknown("none exists"))) is None
        assert widen(plan, Pass(alone(plan))) is None
