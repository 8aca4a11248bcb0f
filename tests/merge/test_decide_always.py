"""What holds for every verdict, whatever came of the sources."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from merge.builders import (
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
from merge.verdicts import AMD64, ARM64, DENIED, SLOW, verdict
from proxy.merge.decide import Hold, Pass, Refuse, Serve
from proxy.merge.entry import Entry
from proxy.merge.outcome import Failed, Found, Outcome
from proxy.merge.plan import Plan, Source
from proxy.merge.rule import Base, OnPartial, Trust
from proxy.oci.errors import BadAnswer, ManifestUnknown, NoAnswer, Overloaded, Refused

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
