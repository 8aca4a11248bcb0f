import pytest

from proxy.merge.convention import (
    CONVENTIONS,
    DEFAULT_CONVENTIONS,
    DEFAULT_TOKENS,
    TOKENS,
    meanings,
    template_for,
    tokens_for,
)
from proxy.oci.platform import Platform, normalize
from proxy.oci.reference import Repository, Tag


def platforms(*texts: str) -> tuple[Platform, ...]:
    """Read platforms as a configuration would."""
    return tuple(Platform.parse(text) for text in texts)


@pytest.mark.parametrize(
    ("convention", "source"),
    [
        ("repository-suffix", ("kimoqi/alpine-arm", "1.0")),
        ("tag-suffix", ("kimoqi/alpine", "1.0-arm")),
        ("repository-prefix", ("kimoqi/arm-alpine", "1.0")),
        ("namespace", ("arm/alpine", "1.0")),
        ("tag-prefix", ("kimoqi/alpine", "arm-1.0")),
    ],
)
def test_convention_names_a_source(convention: str, source: tuple[str, str]) -> None:
    """Each convention puts the word for the architecture in another place."""
    assert template_for(convention, "arm").expand(Repository("kimoqi/alpine"), Tag("1.0")) == source


def test_defaults_are_the_two_commonest_conventions() -> None:
    """With no rule written, suffixes of repository and tag are tried, with six words."""
    assert DEFAULT_CONVENTIONS == ("repository-suffix", "tag-suffix")
    assert DEFAULT_TOKENS == ("x86", "amd64", "x86_64", "arm", "arm64", "aarch64")
    assert set(DEFAULT_CONVENTIONS) <= set(CONVENTIONS)
    assert set(DEFAULT_TOKENS) <= set(TOKENS)


@pytest.mark.parametrize("token", TOKENS)
def test_token_means_normalized_platforms(token: str) -> None:
    """Every word means at least one platform, each once, in the words of an index."""
    found = TOKENS[token]

    assert found
    assert len(set(found)) == len(found)
    assert [normalize(platform) for platform in found] == list(found)


@pytest.mark.parametrize(
    ("wanted", "tokens"),
    [
        ([], DEFAULT_TOKENS),
        (["linux/amd64"], ("x86", "amd64", "x86_64", "x86-64", "x64")),
        (["linux/s390x"], ("s390x",)),
        (["linux/arm64"], ("arm", "arm64", "aarch64", "arm64v8", "armv8")),
        (["linux/s390x", "linux/ppc64le"], ("s390x", "ppc64le", "ppc64el")),
        (["linux/386"], ("x86", "i386", "386", "i686", "x86_32")),
        (["windows/amd64"], ("winamd64", "windows-amd64")),
        (["linux/arm/v5"], ("arm", "armel", "armv5", "arm32v5")),
        (["plan9/mips"], ()),
    ],
)
def test_tokens_are_those_that_may_mean_the_platforms(wanted: list[str], tokens: tuple[str, ...]) -> None:
    """Only words that may mean a wanted platform are tried, in the order of the platforms."""
    assert tokens_for(platforms(*wanted)) == tokens


def test_token_of_two_platforms_is_tried_once() -> None:
    """`arm` may be arm64 and arm/v7; asking twice would bring the same image twice."""
    tokens = tokens_for(platforms("linux/arm64", "linux/arm/v7"))

    assert len(set(tokens)) == len(tokens)
    assert tokens.count("arm") == 1


def test_bare_arm_means_every_variant() -> None:
    """A rule that wants `linux/arm` looks for all names of all variants."""
    assert {"armv7", "arm32v6", "armel", "arm32v5", "rpi"} <= set(tokens_for(platforms("linux/arm")))
    assert "arm64" not in tokens_for(platforms("linux/arm"))


@pytest.mark.parametrize(
    ("token", "wanted", "likeliest"),
    [
        ("x86", [], "linux/amd64"),
        ("x86", ["linux/386"], "linux/386"),
        ("x86", ["linux/386", "linux/amd64"], "linux/amd64"),
        ("arm", [], "linux/arm64/v8"),
        ("arm", ["linux/amd64", "linux/arm/v7"], "linux/arm/v7"),
        ("arm", ["linux/arm64", "linux/arm/v7"], "linux/arm64/v8"),
        ("arm", ["linux/arm/v5"], "linux/arm/v5"),
        ("arm", ["linux/s390x"], "linux/arm64/v8"),
        ("armel", [], "linux/arm/v6"),
        ("armel", ["linux/arm/v5"], "linux/arm/v5"),
        ("armhf", [], "linux/arm/v7"),
    ],
)
def test_wanted_platform_is_the_likeliest_meaning(token: str, wanted: list[str], likeliest: str) -> None:
    """A word means what the rule looks for, before what it usually means."""
    found = meanings(token, platforms(*wanted))

    assert str(found[0]) == likeliest
    assert set(found) == set(TOKENS[token])
