from dataclasses import replace

import pytest

from merge.builders import APP, BASE, GUESSING, RULE, TAG, guessed, plan_for, source, template, written
from proxy.merge.convention import DEFAULT_TOKENS, NAMESPACE, REPOSITORY_SUFFIX
from proxy.merge.plan import LEARNED_NOTHING_SECONDS, Guessed, Plan, Source, Written, plan_tag
from proxy.merge.rule import PASSTHROUGH, Base, Learned, OnPartial, Rule, Trust, default_rule, find
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository, Tag


def names(plan: Plan) -> list[str]:
    """Return what is asked for, without the upstream."""
    return [f"{each.repository}:{each.tag}" for each in plan.sources]


def tokens(plan: Plan) -> list[str]:
    """Return the words that are guessed."""
    return [each.hint.token for each in plan.sources if isinstance(each.hint, Guessed)]


def plan(rule: Rule, learned: Learned | None = None, name: str = APP, tag: str = TAG, now: float = 0.0) -> Plan:
    """Plan a virtual tag on the upstream `hub`."""
    return plan_tag(rule, "hub", Repository(name), Tag(tag), learned, now)


@pytest.mark.parametrize(
    ("match", "repository", "matches"),
    [
        ("**", "a", True),
        ("**", "a/b/c", True),
        ("*", "a", True),
        ("*", "a/b", False),
        ("kimoqi/*", "kimoqi/alpine", True),
        ("kimoqi/*", "kimoqi/a/b", False),
        ("kimoqi/*", "kimoqi", False),
        ("kimoqi/*", "other/alpine", False),
        ("kimoqi/**", "kimoqi/a/b", True),
        ("kimoqi/**", "kimoqi", False),
        ("**/alpine", "a/b/alpine", True),
        ("**/alpine", "alpine", False),
        ("*/alpine", "a/b/alpine", False),
        ("kimoqi/al*e", "kimoqi/alpine", True),
        ("kimoqi/alpin?", "kimoqi/alpine", True),
        ("kimoqi?alpine", "kimoqi/alpine", False),
        ("kimoqi/alpine", "kimoqi/alpine", True),
        ("kimoqi/alpine", "kimoqi/alpine2", False),
        ("a.b/*", "axb/c", False),
        ("[a-z]", "b", False),
        ("", "a", False),
    ],
)
def test_glob_matches_repositories(match: str, repository: str, matches: bool) -> None:
    """`*` and `?` stay within a component, `**` crosses slashes, everything else is itself."""
    assert Rule(name="r", match=match).matches("hub", Repository(repository)) is matches


def test_rule_of_one_upstream_leaves_others_alone() -> None:
    """A rule without an upstream is for all of them."""
    assert replace(RULE, upstream="hub").matches("hub", APP)
    assert not replace(RULE, upstream="hub").matches("quay", APP)
    assert RULE.matches("quay", APP)


def test_first_rule_that_fits_is_used() -> None:
    """Rules are tried in their order; a name that none speaks of is passed through."""
    assert find([replace(RULE, match="x/*"), RULE, GUESSING], "hub", APP) is RULE
    assert find([RULE], "hub", Repository("other/app")) == PASSTHROUGH
    assert find([], "hub", APP) == PASSTHROUGH


def test_explicit_sources_are_planned_as_written() -> None:
    """Each source carries its platform; the virtual name itself is asked, too; nothing is guessed."""
    planned = plan_for(RULE)

    assert planned.sources == (written("x86", "linux/amd64"), written("arm", "linux/arm64"))
    assert planned.base == BASE
    assert not planned.guessing
    assert str(planned) == "kimoqi/alpine:1.0"


def test_source_without_platform_leaves_it_to_the_config() -> None:
    """No written platform is no hint."""
    assert plan_for(replace(RULE, sources=(template("{repository}-x86"),))).sources == (source("x86"),)


def test_source_may_be_on_another_upstream() -> None:
    """A source without an upstream is where the virtual name is."""
    planned = plan_for(replace(RULE, sources=(template("{repository}", upstream="arm-site"), template("a/{name}"))))

    assert planned.sources == (Source("arm-site", APP, TAG), Source("hub", Repository("a/alpine"), TAG))
    assert planned.base == BASE


def test_base_that_is_a_source_is_asked_once() -> None:
    """A rule may name the virtual name itself, as what it is for amd64."""
    planned = plan_for(replace(RULE, sources=(template("{repository}", "linux/amd64"),)))

    assert planned.sources == (Source("hub", APP, TAG, Written(Platform("linux", "amd64"))),)
    assert planned.base is None


@pytest.mark.parametrize("base", Base)
@pytest.mark.parametrize("rule", [RULE, GUESSING, PASSTHROUGH], ids=["written", "guessed", "none"])
def test_base_is_asked_unless_ignored(rule: Rule, base: Base) -> None:
    """`ignore` never asks for the virtual name, the others always do."""
    assert plan_for(replace(rule, base=base)).base == (None if base is Base.IGNORE else BASE)


def test_impossible_source_is_reported_not_asked() -> None:
    """A name that would break the grammar can't exist; the plan says so in words."""
    planned = plan(RULE, name="x" * 252)

    assert planned.sources == ()
    assert len(planned.impossible) == 2
    assert "{repository}-x86:{tag} makes no valid image name of" in planned.impossible[0]


def test_guesses_are_every_convention_with_every_token() -> None:
    """Nothing learned: two conventions times six words are asked, each source knowing what it may mean."""
    planned = plan_for(default_rule())

    assert len(planned.sources) == 2 * len(DEFAULT_TOKENS)
    assert names(planned)[0] == "kimoqi/alpine-x86:1.0"
    assert names(planned)[-1] == "kimoqi/alpine:1.0-aarch64"
    assert planned.sources[0] == guessed("x86", "linux/amd64", "linux/386")
    assert planned.guessing


def test_guesses_look_for_the_rules_platforms() -> None:
    """Platforms narrow the words and decide what an ambiguous one means."""
    rule = replace(GUESSING, conventions=(REPOSITORY_SUFFIX,), platforms=(Platform("linux", "arm", "v7"),))
    first = plan_for(rule).sources[0]

    assert "amd64" not in tokens(plan_for(rule))
    assert isinstance(first.hint, Guessed)
    assert str(first.hint.platforms[0]) == "linux/arm/v7"


def test_guess_that_is_the_name_itself_is_asked_once() -> None:
    """Under the namespace convention `arm64/alpine` is its own source; it is asked as the base."""
    planned = plan(replace(GUESSING, conventions=(NAMESPACE,)), name="arm64/alpine")

    assert "arm64/alpine:1.0" not in names(planned)
    assert "amd64/alpine:1.0" in names(planned)
    assert planned.base == Source("hub", Repository("arm64/alpine"), TAG)


def test_guess_that_is_the_ignored_name_is_asked() -> None:
    """Where the base is ignored, the same name is still a source."""
    planned = plan(replace(GUESSING, conventions=(NAMESPACE,), base=Base.IGNORE), name="arm64/alpine")

    assert "arm64/alpine:1.0" in names(planned)


def test_a_source_that_is_written_twice_is_one_source() -> None:
    """Two templates may make one name of some repositories, and a list may have a line too many."""
    twice = template("{namespace}/{name}-x86:{tag}", "linux/amd64")
    other = template("{repository}-x86:{tag}", "linux/386")
    rule = replace(RULE, sources=(*RULE.sources, twice, other))

    assert plan_for(rule).sources == (
        *plan_for(RULE).sources,
        replace(plan_for(RULE).sources[0], hint=Written(Platform("linux", "386"))),
    )


def test_impossible_guess_is_not_asked() -> None:
    """A guess too long for a name is none; the other convention goes on."""
    planned = plan(GUESSING, name="x" * 252)

    assert all(name.startswith("x" * 252 + ":") for name in names(planned))
    assert "repository-suffix" not in {s.hint.convention for s in planned.sources if isinstance(s.hint, Guessed)}


def test_learned_names_are_asked_outright() -> None:
    """One word for each platform is known: only those are asked, and no longer by HEAD first."""
    planned = plan(default_rule(), Learned("repository-suffix", ("arm", "x86"), 0.0))

    assert names(planned) == ["kimoqi/alpine-x86:1.0", "kimoqi/alpine-arm:1.0"]
    assert not planned.guessing


def test_platform_not_learned_goes_on_being_guessed() -> None:
    """The other architecture may be pushed later: its words are asked, those of the found one are not."""
    planned = plan(default_rule(), Learned("tag-suffix", ("x86",), 0.0))

    assert names(planned) == [f"kimoqi/alpine:1.0-{token}" for token in ("x86", "arm", "arm64", "aarch64")]
    assert planned.guessing


@pytest.mark.parametrize(
    ("learned", "asked"),
    [
        (("arm", "x86"), ["x86", "arm"]),
        (("amd64", "arm", "x86"), ["x86", "amd64", "arm"]),
        (("amd64", "arm64"), ["x86", "amd64", "arm", "arm64"]),
        (("aarch64", "x86_64"), ["x86", "amd64", "x86_64", "arm", "arm64", "aarch64"]),
    ],
)
def test_words_that_can_bring_nothing_new_are_not_asked(learned: tuple[str, ...], asked: list[str]) -> None:
    """Those behind a learned word of the same platform; before it they count for more, and `arm` may be arm/v7."""
    planned = plan(default_rule(), Learned("repository-suffix", learned, 0.0))

    assert tokens(planned) == asked
    assert planned.guessing is (set(asked) != set(learned))
    assert [
        each.hint.token for each in planned.sources if isinstance(each.hint, Guessed) and planned.is_guess(each)
    ] == [word for word in asked if word not in learned]


@pytest.mark.parametrize("age", [0.0, LEARNED_NOTHING_SECONDS])
def test_nothing_learned_is_believed_for_a_while(age: float) -> None:
    """An index at the name itself makes guessing needless, for ten minutes."""
    planned = plan(default_rule(), Learned("", (), 1000.0), now=1000.0 + age)

    assert planned.sources == ()
    assert planned.base == BASE
    assert not planned.guessing


@pytest.mark.parametrize(
    ("learned", "now"),
    [
        (Learned("", (), 1000.0), 1000.1 + LEARNED_NOTHING_SECONDS),
        (Learned("namespace", ("x86",), 1000.0), 1000.0),
        (None, 0.0),
    ],
    ids=["too old", "of a convention that the rule no longer has", "nothing"],
)
def test_what_no_longer_holds_is_not_believed(learned: Learned | None, now: float) -> None:
    """Then everything is asked again."""
    assert plan(default_rule(), learned, now=now) == plan_for(default_rule())


def test_words_that_the_rule_no_longer_has_are_not_believed() -> None:
    """Other platforms are looked for now, or another version of ours knew more words: the others still hold."""
    rule = replace(GUESSING, platforms=(Platform("linux", "amd64"),))
    learned = Learned("tag-suffix", ("amd64", "arm64", "vax"), 0.0)

    assert plan(rule, learned).learned == replace(learned, tokens=("amd64",))
    assert plan(rule, replace(learned, tokens=("vax",))) == plan(rule)


def test_learned_guess_is_believed_for_ever() -> None:
    """A convention that came true stays true; what is gone shows when it is asked."""
    learned = Learned("repository-suffix", ("arm", "x86"), 0.0)

    assert plan(default_rule(), learned, now=1e9) == plan(default_rule(), learned, now=0.0)


def test_explicit_rule_ignores_what_was_learned() -> None:
    """Written sources are asked whatever was guessed before they were written."""
    assert plan(RULE, Learned("", (), 0.0)) == plan_for(RULE)


@pytest.mark.parametrize("rule", [RULE, GUESSING], ids=["written", "guessed"])
@pytest.mark.parametrize(
    "tag", ["sha256-" + "a" * 64, "sha256-" + "a" * 64 + ".sig", "sha512-" + "0" * 128 + ".att", "sha256-ab.sbom"]
)
def test_tags_of_signatures_are_never_merged(rule: Rule, tag: str) -> None:
    """Cosign's and the referrers' fallback tags belong to a digest: whatever the rule says, they pass through."""
    planned = plan(replace(rule, require=(Platform("linux", "amd64"),), base=Base.IGNORE), tag=tag)

    assert planned.sources == ()
    assert planned.base == Source("hub", APP, Tag(tag))
    assert planned.passes_through
    assert not planned.guessing


@pytest.mark.parametrize(
    "tag", ["sha256", "sha256-", "sha256-xyz", "sha256-ab.tar", "1-sha256-ab", "sha1-ab", "latest"]
)
def test_other_tags_are_merged(tag: str) -> None:
    """Only the exact shape of those tags is set apart."""
    assert len(plan(RULE, tag=tag).sources) == 2


def test_rule_without_sources_passes_through() -> None:
    """Neither sources nor conventions: the name itself alone."""
    planned = plan_for(PASSTHROUGH)

    assert (planned.sources, planned.base, planned.guessing) == ((), BASE, False)


def test_repositories_are_all_that_may_be_merged() -> None:
    """A digest is looked for in the virtual repository and its sources, nowhere else (law 8)."""
    rule = replace(RULE, sources=(*RULE.sources, template("{repository}", upstream="arm-site"), template("a:{tag}-x")))

    assert rule.repositories("hub", APP) == (
        ("hub", "kimoqi/alpine"),
        ("hub", "kimoqi/alpine-x86"),
        ("hub", "kimoqi/alpine-arm"),
        ("arm-site", "kimoqi/alpine"),
        ("hub", "a"),
    )


def test_ignored_base_is_no_repository_of_the_rule() -> None:
    """What is never asked by tag is never asked by digest."""
    assert ("hub", APP) not in replace(RULE, base=Base.IGNORE).repositories("hub", APP)


def test_source_repository_made_of_the_tag_is_unknown() -> None:
    """Without a tag there is no such repository to look in."""
    assert replace(RULE, sources=(template("{repository}-{tag}:x86"),)).repositories("hub", APP) == (("hub", APP),)


def test_learning_narrows_the_repositories() -> None:
    """Guesses known to be wrong aren't looked in; a tag suffix needs no other repository at all."""
    suffix = default_rule().repositories("hub", APP, Learned("repository-suffix", ("arm", "x86"), 0.0))

    assert [name for _, name in suffix] == ["kimoqi/alpine", "kimoqi/alpine-x86", "kimoqi/alpine-arm"]
    assert default_rule().repositories("hub", APP, Learned("tag-suffix", ("arm", "x86"), 0.0)) == (("hub", APP),)
    assert len(default_rule().repositories("hub", APP)) == 1 + len(DEFAULT_TOKENS)


@pytest.mark.parametrize(
    "changed",
    [
        replace(RULE, trust=Trust.CONFIG),
        replace(RULE, base=Base.MERGE),
        replace(RULE, on_partial=OnPartial.FAIL),
        replace(RULE, require=(Platform("linux", "amd64"),)),
        replace(RULE, sources=RULE.sources[::-1]),
        replace(RULE, sources=RULE.sources[:1]),
        replace(RULE, default_platform=Platform("linux", "arm64")),
    ],
)
def test_fingerprint_changes_with_the_meaning(changed: Rule) -> None:
    """An entry that was kept for another rule doesn't count."""
    assert changed.fingerprint != RULE.fingerprint
    assert len(changed.fingerprint) == 16


@pytest.mark.parametrize(
    "changed", [replace(RULE, name="rule[7]"), replace(RULE, match="**"), replace(RULE, upstream="hub")]
)
def test_fingerprint_is_the_same_where_only_the_place_of_a_rule_changes(changed: Rule) -> None:
    """Where it stands, and what else it speaks of, changes nothing of what was made by it."""
    assert changed.fingerprint == RULE.fingerprint


def test_fingerprint_of_equal_rules_is_equal() -> None:
    """It is the same after a restart and in every worker, so it hangs on no address and no hash seed."""
    assert replace(RULE).fingerprint == RULE.fingerprint
    assert "0x" not in repr(RULE)
