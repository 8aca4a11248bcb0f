"""From a source to the virtual tags that it belongs to."""

from __future__ import annotations

import pytest

from proxy.merge.inverse import affected
from proxy.merge.rule import Base, Rule, SourceTemplate, default_rule
from proxy.merge.template import Template
from proxy.oci.reference import Repository, Tag

EXPLICIT = Rule(
    name="explicit",
    match="team/*",
    sources=(
        SourceTemplate(Template.parse("{repository}-x86:{tag}")),
        SourceTemplate(Template.parse("builds/{repository}:{tag}-arm"), upstream="arm-site"),
    ),
)
SIGNATURE = "sha256-" + "a" * 64 + ".sig"
FIXED = Rule(name="fixed", match="team/*", sources=(SourceTemplate(Template.parse("team/base:stable")),))


def names(*rules: Rule, upstream: str = "hub", image: str) -> list[str]:
    """Return the virtual tags that a source belongs to."""
    repository, _, tag = image.partition(":")
    found = affected(rules, ["hub", "arm-site"], (upstream, Repository(repository), Tag(tag)))
    return [f"{each.upstream}/{each.repository}:{each.tag}" for each in found]


@pytest.mark.parametrize(
    ("upstream", "image", "expected"),
    [
        ("hub", "team/app-x86:1.0", ["hub/team/app-x86:1.0", "hub/team/app:1.0"]),
        (
            "arm-site",
            "builds/team/app:1.0-arm",
            ["arm-site/builds/team/app:1.0-arm", "hub/team/app:1.0", "arm-site/team/app:1.0"],
        ),
        ("hub", "builds/team/app:1.0-arm", ["hub/builds/team/app:1.0-arm"]),
        ("hub", "other/app-x86:1.0", ["hub/other/app-x86:1.0"]),
        ("hub", "team/app:1.0", ["hub/team/app:1.0"]),
    ],
)
def test_written_sources(upstream: str, image: str, expected: list[str]) -> None:
    """A source leads to the virtual tags whose rule asks for it, on every upstream whose names the rule makes of it."""
    assert names(EXPLICIT, upstream=upstream, image=image) == expected


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("team/app-arm64:1.0", ["hub/team/app-arm64:1.0", "hub/team/app:1.0"]),
        ("team/app:1.0-arm64", ["hub/team/app:1.0-arm64", "hub/team/app:1.0"]),
        ("team/charm:1.0", ["hub/team/charm:1.0"]),
    ],
)
def test_conventions(image: str, expected: list[str]) -> None:
    """A name that a convention makes leads back; one that only looks like it doesn't."""
    assert names(default_rule(), image=image) == expected


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (f"team/app-x86:{SIGNATURE}", ["hub/team/app-x86", "hub/team/app"]),
        (f"team/app:{SIGNATURE}", ["hub/team/app"]),
        (f"other/app-x86:{SIGNATURE}", ["hub/other/app-x86"]),
    ],
)
def test_a_signature_beside_a_source_belongs_to_the_virtual_name(image: str, expected: list[str]) -> None:
    """Companions of children are looked for in their sources, so a push there changes the virtual tag of that name."""
    assert names(EXPLICIT, image=image) == [f"{name}:{SIGNATURE}" for name in expected]


def test_a_companion_s_tag_is_never_made_of_another() -> None:
    """A template that changes tags doesn't change those of companions: they are named after a digest."""
    found = names(EXPLICIT, upstream="arm-site", image=f"builds/team/app:{SIGNATURE}")

    assert found == [
        f"{name}:{SIGNATURE}" for name in ("arm-site/builds/team/app", "hub/team/app", "arm-site/team/app")
    ]


def test_what_leaves_the_name_open_has_no_inverse() -> None:
    """A template without the virtual name in it leads nowhere: time will tell."""
    assert names(FIXED, image="team/base:stable") == ["hub/team/base:stable"]


def test_a_rule_that_ignores_the_name_is_not_affected_by_it() -> None:
    """With `base = "ignore"` a push to the virtual name changes nothing."""
    ignoring = Rule(name="ignoring", match="**", sources=EXPLICIT.sources, base=Base.IGNORE)

    assert names(ignoring, image="team/app:1.0") == []
