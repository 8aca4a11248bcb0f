from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge.builders import BASE, RULE, artifact, attestation, guessed, image, many, single, source, written
from proxy.merge.compose import Composition, compose, select
from proxy.merge.index import order
from proxy.merge.outcome import Found
from proxy.merge.plan import Source
from proxy.merge.rule import Attestations, Trust
from proxy.oci.content import ATTESTATION, REFERENCE_TYPE, SUBJECT_DIGEST

X86, ARM = guessed("x86", "linux/amd64", "linux/386"), guessed("arm", "linux/arm64/v8", "linux/arm/v7", "linux/arm/v6")


def put(*found: Found, trust: Trust = Trust.AUTO, attestations: Attestations = Attestations.KEEP) -> Composition:
    """Compose *found* by the rule of the README."""
    return compose(replace(RULE, trust=trust, attestations=attestations), found)


def platforms(composition: Composition) -> list[str]:
    """Return the children's platforms, in the order of the sources."""
    return [str(child.descriptor.platform) for child in composition.children]


def sources(composition: Composition) -> list[Source]:
    """Return where the children come from."""
    return [child.source for child in composition.children]


# What the hint says, what the config says, and the outcome under auto, rule, config and reject; "" means left out.
WRITTEN, GUESSED, NONE = written("s", "linux/arm64"), guessed("arm", "linux/arm64/v8", "linux/arm/v7"), source("s")
TABLE = [
    (WRITTEN, "linux/arm64", ["linux/arm64/v8"] * 4),
    (WRITTEN, "linux/aarch64", ["linux/arm64/v8"] * 4),
    (WRITTEN, "linux/arm64/v9", ["linux/arm64/v9"] * 4),
    (WRITTEN, "linux/amd64", ["linux/arm64/v8", "linux/arm64/v8", "linux/amd64", ""]),
    (WRITTEN, "windows/arm64@10.0.1", ["linux/arm64/v8", "linux/arm64/v8", "windows/arm64/v8 (10.0.1)", ""]),
    (WRITTEN, "", ["linux/arm64/v8"] * 4),
    (written("s", "linux/arm"), "linux/arm/v6", ["linux/arm/v6"] * 4),
    (written("s", "linux/arm"), "", ["linux/arm/v7"] * 4),
    (written("s", "linux/arm/v7"), "linux/arm/v6", ["linux/arm/v7", "linux/arm/v7", "linux/arm/v6", ""]),
    (written("s", "windows/amd64"), "windows/amd64@10.0.1", ["windows/amd64 (10.0.1)"] * 4),
    (GUESSED, "linux/arm64", ["linux/arm64/v8"] * 4),
    (GUESSED, "linux/arm/v7", ["linux/arm/v7"] * 4),
    (GUESSED, "linux/amd64", ["linux/amd64", "linux/arm64/v8", "linux/amd64", ""]),
    (GUESSED, "linux/arm/v6", ["linux/arm/v6", "linux/arm64/v8", "linux/arm/v6", ""]),
    (GUESSED, "", ["linux/arm64/v8"] * 4),
    (NONE, "linux/x86_64", ["linux/amd64"] * 4),
    (NONE, "", [""] * 4),
]


@pytest.mark.parametrize(
    ("of", "says", "trust", "becomes"),
    [(of, says, trust, row[i]) for of, says, row in TABLE for i, trust in enumerate(Trust)],
)
def test_trust_decides_whose_word_counts(of: Source, says: str, trust: Trust, becomes: str) -> None:
    """A written platform wins by default, a guess yields; `rule`, `config` and `reject` turn that around."""
    composition = put(single(of, says), trust=trust)

    assert platforms(composition) == ([becomes] if becomes else [])
    assert len(composition.omissions) == (0 if becomes else 1)


def test_trusts_are_in_the_tables_order() -> None:
    """The table above reads auto, rule, config, reject."""
    assert list(Trust) == [Trust.AUTO, Trust.RULE, Trust.CONFIG, Trust.REJECT]


@pytest.mark.parametrize("trust", Trust)
@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        (WRITTEN, "hub/kimoqi/alpine-s:1.0 says it is linux/amd64, the rule says linux/arm64/v8"),
        (GUESSED, "hub/kimoqi/alpine-arm:1.0 says it is linux/amd64, its name says arm"),
    ],
)
def test_every_disagreement_is_reported(of: Source, sentence: str, trust: Trust) -> None:
    """Whoever wins, the contradiction is said."""
    assert put(single(of, "linux/amd64"), trust=trust).mismatches == (sentence,)


@pytest.mark.parametrize(
    ("of", "says"), [(WRITTEN, "linux/arm64"), (WRITTEN, ""), (GUESSED, "linux/arm/v7"), (NONE, "linux/386")]
)
def test_agreement_is_not_reported(of: Source, says: str) -> None:
    """A config that agrees, or says nothing, contradicts nobody."""
    assert put(single(of, says)).mismatches == ()


def test_two_sources_make_two_children() -> None:
    """Descriptors stay as they were found, but for the platform."""
    found = [single(written("x86", "linux/amd64"), "linux/amd64"), single(written("arm", "linux/arm64"), "linux/arm64")]
    composition = put(*found)

    assert platforms(composition) == ["linux/amd64", "linux/arm64/v8"]
    assert [replace(child.descriptor, platform=None) for child in composition.children] == [f.descriptor for f in found]
    assert (composition.mismatches, composition.clashes, composition.omissions) == ((), (), ())


@pytest.mark.parametrize("found", [[X86, ARM], [ARM, X86]])
def test_careless_cross_build_is_told_apart_by_name(found: list[Source]) -> None:
    """Both configs say amd64, one image is called arm: the guess counts after all, in either order."""
    composition = put(*(single(each, "linux/amd64") for each in found))
    arm = next(child for child in composition.children if child.source == ARM)

    assert sorted(platforms(composition)) == ["linux/amd64", "linux/arm64/v8"]
    assert str(arm.descriptor.platform) == "linux/arm64/v8"
    assert composition.mismatches == ("hub/kimoqi/alpine-arm:1.0 says it is linux/amd64, its name says arm",)
    assert composition.clashes == ()


def test_careless_cross_build_clashes_where_configs_are_trusted() -> None:
    """`config` means it: the second amd64 image is left out."""
    composition = put(single(X86, "linux/amd64"), single(ARM, "linux/amd64"), trust=Trust.CONFIG)

    assert sources(composition) == [X86]
    assert len(composition.clashes) == 1


def test_a_word_against_the_rule_takes_nobodys_place() -> None:
    """With `config`, too: an image in front that says another's platform yields to that one (S18)."""
    liar, honest = written("liar", "linux/arm64"), written("honest", "linux/amd64")
    composition = put(single(liar, "linux/amd64"), single(honest, "linux/amd64"), trust=Trust.CONFIG)

    assert sources(composition) == [honest]
    assert composition.clashes == (f"{liar} is left out: {honest} is linux/amd64, too, and the rule says so",)


def test_guess_does_not_take_a_platform_that_is_there() -> None:
    """An image called arm that says amd64 doesn't push a real arm64 image out, nor the amd64 one."""
    aarch64 = guessed("aarch64", "linux/arm64/v8")
    composition = put(single(X86, "linux/amd64"), single(ARM, "linux/amd64"), single(aarch64, "linux/arm64"))

    assert sources(composition) == [X86, aarch64]
    assert len(composition.clashes) == 1


def test_lone_lie_is_believed() -> None:
    """Without a rival, an image called arm that says amd64 is amd64."""
    assert platforms(put(single(ARM, "linux/amd64"))) == ["linux/amd64"]


def test_first_source_wins_a_platform() -> None:
    """One entry per platform; the loser is named with the winner (law 5)."""
    first, second = written("a", "linux/amd64"), written("b", "linux/amd64")
    composition = put(single(first, "linux/amd64"), single(second, "linux/amd64"))

    assert sources(composition) == [first]
    assert composition.clashes == (
        "hub/kimoqi/alpine-b:1.0 is left out: hub/kimoqi/alpine-a:1.0 is linux/amd64, too, and comes first",
    )
    assert composition.omissions == ()


def test_an_index_with_two_images_of_one_platform_keeps_its_first() -> None:
    """The sentence names the image that lost: its source is in the index all the same."""
    other = image("other", "linux/amd64")
    composition = put(many(written("a", "linux/amd64"), AMD64, other))

    assert [child.descriptor for child in composition.children] == [AMD64]
    assert composition.clashes == (
        f"{other.digest} of hub/kimoqi/alpine-a:1.0 is left out: "
        f"{AMD64.digest} of hub/kimoqi/alpine-a:1.0 is linux/amd64, too, and comes first",
    )


def test_an_index_that_loses_one_of_its_platforms_is_not_left_out() -> None:
    """The sentence is about that image: the others are served."""
    composition = put(single(written("a", "linux/amd64"), "linux/amd64"), many(BASE, AMD64, ARM64))

    assert sources(composition) == [written("a", "linux/amd64"), BASE]
    assert composition.clashes == (
        f"{AMD64.digest} of hub/kimoqi/alpine:1.0 is left out: "
        "hub/kimoqi/alpine-a:1.0 is linux/amd64, too, and comes first",
    )


def test_same_image_twice_is_no_clash() -> None:
    """Two names of one image and one platform lose nothing."""
    first = single(written("a", "linux/amd64"), "linux/amd64")
    second = replace(first, source=written("b", "linux/amd64"))
    composition = put(first, second)

    assert sources(composition) == [first.source]
    assert composition.clashes == ()


def test_base_joins_as_the_last_source() -> None:
    """A single image at the virtual name fills a gap, and loses to a source of the same platform."""
    x86 = single(written("x86", "linux/amd64"), "linux/amd64")

    assert platforms(put(x86, single(BASE, "linux/arm64"))) == ["linux/amd64", "linux/arm64/v8"]
    assert sources(put(x86, single(BASE, "linux/amd64"))) == [x86.source]


def test_variants_are_different_platforms() -> None:
    """A v6 and a v7 image live side by side."""
    composition = put(single(source("six"), "linux/arm/v6"), single(source("seven"), "linux/arm/v7"))

    assert platforms(composition) == ["linux/arm/v6", "linux/arm/v7"]


def test_two_windows_versions_live_side_by_side() -> None:
    """The written platform names no version: each image keeps its own."""
    old, new = written("ltsc2019", "windows/amd64"), written("ltsc2022", "windows/amd64")
    composition = put(single(old, "windows/amd64@10.0.17763.1"), single(new, "windows/amd64@10.0.20348.1"))

    assert platforms(composition) == ["windows/amd64 (10.0.17763.1)", "windows/amd64 (10.0.20348.1)"]


AMD64, ARM64, V7, V6 = (image(each, f"linux/{each}") for each in ("amd64", "arm64/v8", "arm/v7", "arm/v6"))


@pytest.mark.parametrize(
    ("of", "children", "brings"),
    [
        (source("s"), [AMD64, ARM64], [AMD64, ARM64]),
        (written("s", "linux/arm64"), [AMD64, ARM64], [ARM64]),
        (written("s", "linux/arm"), [AMD64, V7, V6], [V7, V6]),
        (written("s", "linux/arm/v6"), [AMD64, V7, V6], [V6]),
        (written("s", "linux/s390x"), [AMD64, ARM64], []),
        (written("s", "linux/s390x"), [AMD64], [AMD64]),
        (written("s", "linux/s390x"), [], []),
        (guessed("arm", "linux/arm64", "linux/arm/v7"), [AMD64, ARM64, V7], [ARM64, V7]),
        (guessed("s390x", "linux/s390x"), [AMD64, ARM64], [AMD64, ARM64]),
        (written("s", "linux/amd64"), [AMD64, attestation(AMD64), ARM64, attestation(ARM64)], [AMD64]),
        (written("s", "linux/s390x"), [AMD64, attestation(AMD64)], [AMD64]),
        (source("s"), [image("x", "unknown/unknown"), image("y"), AMD64], [AMD64]),
    ],
)
def test_platform_selects_among_an_indexs_entries(of: Source, children: Sequence[object], brings: list[object]) -> None:
    """Entries carry their own platforms; a lone image is always brought, and a guess that fits nothing brings all."""
    found = many(of, *children)  # type: ignore[arg-type]

    assert list(select(of, found.kind.children)) == brings


@pytest.mark.parametrize("trust", Trust)
def test_entries_of_an_index_speak_for_themselves(trust: Trust) -> None:
    """A name that fits none of several entries contradicts none of them, and takes none of their platforms."""
    composition = put(many(guessed("s390x", "linux/s390x"), AMD64, ARM64), trust=trust)

    assert platforms(composition) == ["linux/amd64", "linux/arm64/v8"]
    assert composition.mismatches == ()


def test_malformed_attestation_is_neither_image_nor_trouble() -> None:
    """An entry that attests something unreadable is left out; the images beside it are served."""
    odd = replace(
        image("odd", "unknown/unknown"),
        annotations={SUBJECT_DIGEST: "sha256:../../etc/passwd", REFERENCE_TYPE: ATTESTATION},
    )

    assert [child.descriptor for child in put(many(source("s"), AMD64, odd)).children] == [AMD64]


@pytest.mark.parametrize(
    ("trust", "becomes"),
    [
        (Trust.AUTO, ["linux/arm64/v8"]),
        (Trust.RULE, ["linux/arm64/v8"]),
        (Trust.CONFIG, ["linux/amd64"]),
        (Trust.REJECT, []),
    ],
)
def test_lone_image_of_an_index_is_judged_like_any(trust: Trust, becomes: list[str]) -> None:
    """Buildx wraps one image in an index for its provenance; its label may lie like a config."""
    composition = put(many(written("arm", "linux/arm64"), AMD64, attestation(AMD64)), trust=trust)

    assert platforms(composition)[:1] == becomes
    assert len(composition.mismatches) == 1


def test_index_without_the_rules_platform_is_an_omission() -> None:
    """It exists and brings nothing; the report says why."""
    composition = put(many(written("s", "linux/s390x"), AMD64, ARM64))

    assert composition.children == ()
    assert composition.omissions == (
        "hub/kimoqi/alpine-s:1.0 is left out: it is an index without an entry for the rule's platform",
    )


def test_artifact_is_an_omission() -> None:
    """A Helm chart is never a child."""
    composition = put(artifact(written("x86", "linux/amd64")))

    assert composition.children == ()
    assert composition.omissions == ("hub/kimoqi/alpine-x86:1.0 is left out: it is not a runnable image",)


@pytest.mark.parametrize(
    ("found", "trust", "reason"),
    [
        (single(source("s")), Trust.AUTO, "names no platform"),
        (single(written("s", "linux/arm64"), "linux/amd64"), Trust.REJECT, "trust is reject"),
        (many(source("s"), attestation(AMD64)), Trust.AUTO, "an index without an entry"),
    ],
)
def test_omission_says_why(found: Found, trust: Trust, reason: str) -> None:
    """Nothing that was found disappears without a sentence."""
    (omission,) = put(found, trust=trust).omissions

    assert omission.startswith("hub/kimoqi/alpine-s:1.0 is left out: ")
    assert reason in omission


def test_attestations_follow_their_images() -> None:
    """Provenance of both sources is kept, as unknown/unknown, with its annotations."""
    x86 = many(written("x86", "linux/amd64"), AMD64, attestation(AMD64))
    arm = many(written("arm", "linux/arm64"), ARM64, attestation(ARM64))
    composition = put(x86, arm)

    assert [child.descriptor for child in composition.children] == [
        AMD64,
        ARM64,
        attestation(AMD64),
        attestation(ARM64),
    ]
    assert sources(composition) == [x86.source, arm.source, x86.source, arm.source]


def test_attestations_can_be_dropped() -> None:
    """Some consumers stumble over unknown/unknown."""
    composition = put(many(source("s"), AMD64, attestation(AMD64)), attestations=Attestations.DROP)

    assert [child.descriptor for child in composition.children] == [AMD64]


@pytest.mark.parametrize("platform", ["", "linux/amd64"])
def test_attestation_gets_the_unknown_platform(platform: str) -> None:
    """Podman would take an entry without a platform for any machine."""
    entry = replace(attestation(AMD64), platform=image("x", platform).platform)
    composition = put(many(source("s"), AMD64, entry))

    assert [child.descriptor for child in composition.children] == [AMD64, attestation(AMD64)]


@pytest.mark.parametrize(
    "found",
    [
        [many(written("s", "linux/amd64"), AMD64, ARM64, attestation(ARM64))],
        [many(source("s"), AMD64, attestation(image("elsewhere")))],
        [single(written("x86", "linux/amd64"), "linux/amd64"), many(source("s"), AMD64, attestation(AMD64))],
    ],
    ids=["subject not selected", "subject unknown", "subject lost its platform"],
)
def test_dangling_attestation_is_left_out(found: list[Found]) -> None:
    """An attestation is kept only if its subject survived (law 5)."""
    assert [child.descriptor.attests for child in put(*found).children] == [None]


def test_attestation_of_what_a_source_does_not_bring_is_left_out() -> None:
    """Nobody has looked at it: what a source has beside its platform may not even be there (law 9)."""
    arm = many(written("arm", "linux/arm64"), AMD64, ARM64, attestation(AMD64), attestation(ARM64))
    composition = put(replace(single(written("x86", "linux/amd64"), "linux/amd64"), descriptor=AMD64), arm)

    assert [child.descriptor for child in composition.children] == [AMD64, ARM64, attestation(ARM64)]


def test_attestation_of_two_sources_is_kept_once() -> None:
    """Two names of one index don't double its provenance."""
    first = many(written("a", "linux/amd64"), AMD64, attestation(AMD64))
    composition = put(first, replace(first, source=written("b", "linux/amd64")))

    assert [child.descriptor for child in composition.children] == [AMD64, attestation(AMD64)]


def test_nothing_found_composes_nothing() -> None:
    """No sources, no children, no sentences."""
    assert put() == Composition((), (), (), ())


_words = st.sampled_from(
    ["", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm", "linux/386", "windows/amd64@1"]
)
_written = [written("amd64", "linux/amd64"), written("arms", "linux/arm")]
_guessed = [X86, ARM, guessed("arm64", "linux/arm64/v8")]
_hinted = st.sampled_from([*_written, *_guessed, source("plain"), BASE])
_children = st.lists(
    st.sampled_from([AMD64, ARM64, V7, V6, attestation(AMD64), attestation(V6), image("no")]), max_size=6
)
founds = st.lists(
    st.builds(single, _hinted, _words)
    | st.builds(lambda of, children: many(of, *children), _hinted, _children)
    | st.builds(artifact, _hinted),
    max_size=5,
    unique_by=lambda found: found.source,
)


@given(founds, st.sampled_from(Trust), st.sampled_from(Attestations))
def test_every_composition_makes_a_valid_index(found: list[Found], trust: Trust, attestations: Attestations) -> None:
    """One image per platform, a platform for each, no dangling attestation: whatever was found, it can be rendered."""
    composition = put(*found, trust=trust, attestations=attestations)

    assert len(order([child.descriptor for child in composition.children])) == len(composition.children)


@given(founds, st.sampled_from(Trust))
def test_no_source_disappears_silently(found: list[Found], trust: Trust) -> None:
    """Each source that was found is in the index, or in a sentence, or is the same image as another."""
    composition = put(*found, trust=trust)
    said = " ".join((*composition.clashes, *composition.omissions))
    served = {child.descriptor.digest for child in composition.children}

    for each in found:
        brought = {each.descriptor.digest, *(child.digest for child in each.kind.children)}
        assert each.source in sources(composition) or f"{each.source} is left out" in said or brought & served
