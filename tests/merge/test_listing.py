"""Which virtual names are listed, by what sources are called alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge.builders import APP, GUESSING, RULE, plan_for, template
from proxy.merge.convention import CONVENTIONS
from proxy.merge.listing import listed_repositories, listed_tags
from proxy.merge.plan import plan_tag
from proxy.merge.rule import PASSTHROUGH, Base, OnPartial, Rule, default_rule
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository, Tag

AMD64, ARM64, ARMV7 = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "arm", "v7")
SIGNATURE = "sha256-" + "a" * 64 + ".sig"
WHOLE = replace(RULE, require=(AMD64, ARM64), on_partial=OnPartial.FAIL)


def tags_of(rule: Rule, offers: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the tags of `kimoqi/alpine` on `hub` where repositories offer these; `upstream//repository` elsewhere."""
    places = {}
    for name, found in offers.items():
        upstream, _, repository = name.rpartition("//")
        places[upstream or "hub", Repository(repository)] = frozenset(map(Tag, found))
    return [str(tag) for tag in listed_tags(rule, "hub", APP, places)]


def test_the_union_is_sorted_by_bytes() -> None:
    """What any source or the name itself offers is listed once."""
    offers = {
        "kimoqi/alpine": ["b", "Z"],
        "kimoqi/alpine-x86": ["1.0", "b"],
        "kimoqi/alpine-arm": ["1.0", "1.10", "1.9"],
    }

    assert tags_of(RULE, offers) == ["1.0", "1.10", "1.9", "Z", "b"]


@pytest.mark.parametrize(
    ("source", "tag", "expected"),
    [
        ("kimoqi/alpine", "1.0", ["1.0"]),
        ("kimoqi/alpine", "1.0-x86", ["1.0", "1.0-x86"]),
        ("kimoqi/alpine-x86", "1.0", ["1.0"]),
        ("kimoqi/alpine-x86", "1.0-x86", ["1.0-x86"]),
        ("kimoqi/alpine-s390x", "1.0", []),
        ("quay//kimoqi/alpine", "1.0", []),
        ("quay//kimoqi/alpine-x86", "1.0", []),
        ("other/alpine-x86", "1.0", []),
    ],
)
def test_a_source_leads_back(source: str, tag: str, expected: list[str]) -> None:
    """A source's tag may belong to the virtual tag of the same name, or to one without its suffix."""
    assert tags_of(GUESSING, {source: [tag]}) == expected


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_guess_leads_back_to_its_tag(convention: str) -> None:
    """Whatever a convention makes of a virtual tag is listed under that tag."""
    rule = replace(GUESSING, conventions=(convention,), base=Base.IGNORE)

    for each in plan_for(rule).sources:
        assert "1.0" in tags_of(rule, {each.repository: [each.tag]})


def test_an_ignored_base_brings_no_tags() -> None:
    """Tags of the virtual name itself count only where that is asked."""
    assert tags_of(replace(GUESSING, base=Base.IGNORE), {"kimoqi/alpine": ["1.0"]}) == []


def test_signatures_are_listed_where_they_were_pushed() -> None:
    """A source's companions belong to its images; those of the name itself are its own."""
    assert tags_of(RULE, {"kimoqi/alpine-x86": [SIGNATURE]}) == []
    assert tags_of(default_rule(), {"kimoqi/alpine": [SIGNATURE, f"sha256-{'b' * 64}-amd64"]}) == [
        SIGNATURE,
        f"sha256-{'b' * 64}-amd64",
    ]


@pytest.mark.parametrize("on_partial", list(OnPartial))
@pytest.mark.parametrize("require", [(), (AMD64, ARM64)])
def test_a_tag_has_to_be_complete_where_nothing_less_is_served(
    on_partial: OnPartial, require: tuple[Platform, ...]
) -> None:
    """Without `require` every written source has to be there; the name itself may always be whole."""
    rule = replace(RULE, on_partial=on_partial, require=require)
    offers = {"kimoqi/alpine": ["base"], "kimoqi/alpine-x86": ["1.0", "2.0"], "kimoqi/alpine-arm": ["1.0"]}

    assert tags_of(rule, offers) == ["1.0", *(["2.0"] if on_partial is OnPartial.SERVE else []), "base"]


def test_a_source_without_a_platform_may_bring_any() -> None:
    """Only its image's config tells, so it can't be said that anything is missing."""
    rule = replace(WHOLE, sources=(template("{repository}-x86:{tag}"), template("{repository}-arm:{tag}")))

    assert tags_of(rule, {"kimoqi/alpine-x86": ["1.0"], "kimoqi/alpine-arm": []}) == ["1.0"]


@pytest.mark.parametrize(
    ("says", "wanted", "listed"),
    [
        ("linux/arm", ARMV7, True),
        ("linux/arm/v7", Platform("linux", "arm"), True),
        ("linux/arm/v6", ARMV7, False),
        ("linux/arm64", ARMV7, False),
    ],
)
def test_a_platform_may_be_left_open(says: str, wanted: Platform, *, listed: bool) -> None:
    """What the rule leaves out of a platform the config may complete."""
    rule = replace(WHOLE, sources=(template("{repository}-x86:{tag}", says),), require=(wanted,))

    assert tags_of(rule, {"kimoqi/alpine-x86": ["1.0"]}) == (["1.0"] if listed else [])


@pytest.mark.parametrize(
    ("offers", "listed"),
    [
        ({"kimoqi/alpine-x86": ["1.0"], "kimoqi/alpine-arm": ["1.0"]}, True),
        ({"kimoqi/alpine-x86": ["1.0"], "kimoqi/alpine-aarch64": ["1.0"]}, True),
        ({"kimoqi/alpine-x86": ["1.0"], "kimoqi/alpine-amd64": ["1.0"]}, False),
        ({"kimoqi/alpine": ["1.0-x86", "1.0-arm64"]}, True),
        ({"kimoqi/alpine-x86": ["1.0"], "kimoqi/alpine": ["1.0-arm64"]}, False),
    ],
)
def test_a_word_stands_for_what_it_may_mean(offers: dict[str, list[str]], *, listed: bool) -> None:
    """Guesses are complete by what their words may mean, within the one convention that wins."""
    rule = replace(GUESSING, on_partial=OnPartial.HOLD, require=(AMD64, ARM64))
    silent = {str(repository): list[str]() for _, repository in rule.repositories("hub", APP)}

    assert ("1.0" in tags_of(rule, silent | offers)) is listed


def test_guesses_alone_are_never_incomplete() -> None:
    """Without `require` nothing says which of the guesses should be there."""
    assert tags_of(replace(GUESSING, on_partial=OnPartial.FAIL), {"kimoqi/alpine-x86": ["1.0"]}) == ["1.0"]


def test_a_fixed_source_belongs_to_every_tag() -> None:
    """A source without `{tag}` is there for each of them, or for none."""
    rule = replace(
        WHOLE,
        sources=(template("{repository}-x86:{tag}", "linux/amd64"), template("{name}-arm:stable", "linux/arm64")),
    )

    assert tags_of(rule, {"kimoqi/alpine-x86": ["1.0"], "alpine-arm": ["stable"]}) == ["1.0"]
    assert tags_of(rule, {"kimoqi/alpine-x86": ["1.0"], "alpine-arm": ["1.0"]}) == []


def test_a_source_that_was_not_asked_may_be_there() -> None:
    """A repository that is made of the tag has no list that could be asked for beforehand."""
    rule = replace(
        WHOLE,
        sources=(template("{repository}-x86:{tag}", "linux/amd64"), template("{name}-{tag}:arm", "linux/arm64")),
    )

    assert tags_of(rule, {"kimoqi/alpine-x86": ["1.0", "Capital"]}) == ["1.0"]


def test_hidden_sources_are_left_out_of_their_own_repository() -> None:
    """`1.0-amd64` is a source, `1.0` is what is merged from it, `edge` is the name's own."""
    rule = replace(default_rule(), hide_sources=True)
    offers = {"kimoqi/alpine": ["1.0-amd64", "1.0-arm64", "edge", SIGNATURE]}

    assert tags_of(rule, offers) == ["1.0", "edge", SIGNATURE]
    assert tags_of(default_rule(), offers) == ["1.0", "1.0-amd64", "1.0-arm64", "edge", SIGNATURE]


def test_a_name_that_is_its_own_source_is_never_hidden() -> None:
    """`{repository}:{tag}` is the base, written down."""
    rule = replace(RULE, sources=(template("{repository}:{tag}"),), hide_sources=True)

    assert tags_of(rule, {"kimoqi/alpine": ["1.0"]}) == ["1.0"]


@given(
    st.sampled_from([RULE, WHOLE, GUESSING, default_rule(), PASSTHROUGH]),
    st.dictionaries(
        st.sampled_from(["kimoqi/alpine", "kimoqi/alpine-x86", "kimoqi/alpine-arm"]),
        st.lists(st.sampled_from(["1.0", "2.0", "1.0-x86", "1.0-arm", SIGNATURE]), max_size=5),
    ),
)
def test_what_is_listed_can_be_asked_for(rule: Rule, offers: dict[str, list[str]]) -> None:
    """Every listed tag's plan asks for something that is offered (law 12)."""
    offered = {("hub", repository, tag) for repository, found in offers.items() for tag in found}

    for tag in tags_of(rule, offers):
        plan = plan_tag(rule, "hub", APP, Tag(tag), None, 0.0)
        assert offered & {source.place for source in (*plan.sources, *filter(None, [plan.base]))}


ELSEWHERE = Rule(
    name="elsewhere",
    match="team/*",
    upstream="hub",
    sources=(
        template("{repository}:{tag}"),
        template("builds/{name}/{name}:{tag}"),
        template("{repository}-arm:{tag}", upstream="site"),
    ),
)


def repositories(*rules: Rule, places: Sequence[str], upstream: str = "hub") -> list[str]:
    """Return what is listed for *upstream* where there are these *places*."""
    pairs = [(place.partition("/")[0], Repository(place.partition("/")[2])) for place in places]
    return sorted(listed_repositories(rules, ["hub", "site"], upstream, pairs))


@pytest.mark.parametrize(
    ("rules", "places", "expected"),
    [
        ((default_rule(),), ["hub/a-x86", "hub/b"], ["a", "a-x86", "b"]),
        ((PASSTHROUGH,), ["hub/a-x86", "hub/b"], ["a-x86", "b"]),
        (
            (RULE,),
            ["hub/kimoqi/alpine-x86", "hub/other/alpine-x86"],
            ["kimoqi/alpine", "kimoqi/alpine-x86", "other/alpine-x86"],
        ),
        ((ELSEWHERE,), ["site/team/app-arm", "site/team/app-x86", "hub/x"], ["team/app", "x"]),
        ((ELSEWHERE,), ["hub/team/app-arm"], ["team/app-arm"]),
        ((replace(PASSTHROUGH, match="a"), default_rule()), ["hub/a-x86"], ["a-x86"]),
    ],
)
def test_a_catalog_has_what_sources_may_belong_to(
    rules: tuple[Rule, ...], places: list[str], expected: list[str]
) -> None:
    """Sources on any upstream bring the virtual repositories that the rule in force merges from them."""
    assert repositories(*rules, places=places) == expected


def test_a_catalog_speaks_of_one_upstream() -> None:
    """What is merged into another upstream's namespace isn't in this one's."""
    assert repositories(ELSEWHERE, places=["site/team/app-arm"], upstream="site") == ["team/app-arm"]


def test_hidden_sources_are_left_out_of_every_catalog() -> None:
    """But what is merged is there, and what is merged from others never hidden."""
    hiding = replace(default_rule(), hide_sources=True)
    places = ["hub/a", "hub/a-x86", "hub/a-arm", "hub/a-arm-x86", "hub/b"]

    assert repositories(hiding, places=places) == ["a", "a-arm", "b"]
    assert repositories(replace(ELSEWHERE, hide_sources=True), places=["site/team/app-arm"], upstream="site") == []
