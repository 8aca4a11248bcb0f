import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.merge.convention import CONVENTIONS, TOKENS
from proxy.merge.template import Template, manifest_tool
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository, Tag
from strategies import repositories, tags

APP, TAG = Repository("kimoqi/alpine"), Tag("1.0")

# Every template that names repository and tag so that they can be told apart again.
_words = st.sampled_from(["x86", "arm64v8", "x86_64", "a.b"])
_paths = st.sampled_from(
    [
        "{repository}-TOKEN",
        "{repository}_TOKEN",
        "{repository}/TOKEN",
        "TOKEN-{repository}",
        "mirror/{repository}",
        "{repository}",
        "{namespace}/TOKEN-{name}",
        "{namespace}/{name}-TOKEN",
        "{namespace}/TOKEN/{name}",
        "{namespace}/{name}/{name}",
    ]
)
_names = st.sampled_from([":{tag}", ":{tag}-TOKEN", ":TOKEN-{tag}", ":v{tag}", ""])
templates = st.builds(
    lambda path, name, word: Template.parse((path + name).replace("TOKEN", word)), _paths, _names, _words
)


@given(templates, repositories, tags)
def test_what_was_expanded_is_matched_back(template: Template, repository: Repository, tag: Tag) -> None:
    """Going forward and back ends at the same virtual name, with or without a namespace."""
    source = template.expand(repository, tag)

    assert source is None or template.match(*source) == (repository, tag)
    assert source is None or template.tag(repository, *source) == tag


@given(templates, repositories)
def test_what_was_expanded_is_matched_back_without_a_tag(template: Template, repository: Repository) -> None:
    """A catalog has no tags: the source's repository alone leads back to the virtual one, and forward again."""
    source = template.repository(repository)

    assert source is None or template.match_repository(source) == repository


@given(templates, repositories)
def test_what_is_matched_without_a_tag_expands_to_the_source(template: Template, repository: Repository) -> None:
    """Going back from a repository is confirmed by going forward (law 12)."""
    virtual = template.match_repository(repository)

    assert virtual is None or template.repository(virtual) == repository


@pytest.mark.parametrize(
    ("text", "repository", "virtual"),
    [
        ("{repository}-x86:{tag}", "kimoqi/alpine-x86", "kimoqi/alpine"),
        ("{repository}-x86:stable", "kimoqi/alpine-x86", "kimoqi/alpine"),
        ("{repository}:{tag}-x86", "kimoqi/alpine", "kimoqi/alpine"),
        ("{namespace}/x86-{name}:{tag}", "kimoqi/x86-alpine", "kimoqi/alpine"),
        ("{namespace}/x86-{name}:{tag}", "x86-alpine", "alpine"),
        ("{repository}-x86:{tag}", "kimoqi/alpine-arm", None),
        ("{repository}-x86:{tag}", "-x86", None),
        ("{repository}-x86:{tag}", "a--x86", None),
        ("arm64/{name}:{tag}", "arm64/alpine", None),
        ("{repository}-{tag}:x86", "kimoqi/alpine-1.0", None),
        ("team/base:stable", "team/base", None),
    ],
)
def test_a_repository_leads_back(text: str, repository: str, virtual: str | None) -> None:
    """Nothing is made up where the template doesn't fit, leaves a part of the name open, or needs the tag."""
    assert Template.parse(text).match_repository(Repository(repository)) == virtual


@given(templates, repositories, tags)
def test_what_is_matched_expands_to_the_source(template: Template, repository: Repository, tag: Tag) -> None:
    """Going back is always confirmed by going forward (law 12)."""
    virtual = template.match(repository, tag)

    assert virtual is None or template.expand(*virtual) == (repository, tag)


@pytest.mark.parametrize(
    ("text", "repository", "tag"),
    [
        ("{repository}-x86:{tag}", "kimoqi/alpine-x86", "1.0"),
        ("{repository}-x86", "kimoqi/alpine-x86", "1.0"),
        ("{repository}:{tag}-x86", "kimoqi/alpine", "1.0-x86"),
        ("{repository}:x86-{tag}", "kimoqi/alpine", "x86-1.0"),
        ("{namespace}/x86-{name}:{tag}", "kimoqi/x86-alpine", "1.0"),
        ("amd64/{name}:{tag}", "amd64/alpine", "1.0"),
        ("{repository}/x86:{tag}", "kimoqi/alpine/x86", "1.0"),
        ("all:{name}-{tag}", "all", "alpine-1.0"),
        ("{name}/{tag}:x86", "alpine/1.0", "x86"),
        ("kimoqi/alpine-x86:1.0", "kimoqi/alpine-x86", "1.0"),
        ("kimoqi/alpine-x86", "kimoqi/alpine-x86", "1.0"),
    ],
)
def test_template_expands_to_a_source(text: str, repository: str, tag: str) -> None:
    """Fields stand for parts of the virtual name; without a tag, its tag is meant."""
    assert Template.parse(text).expand(APP, TAG) == (repository, tag)


def test_template_is_shown_with_its_tag() -> None:
    """What is shown is what is used."""
    assert str(Template.parse("{repository}-x86")) == "{repository}-x86:{tag}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "doesn't make an image name"),
        (":", "doesn't make an image name"),
        ("{}", "unknown field"),
        ("{0}", "unknown field"),
        ("{arch}-{repository}", "unknown field {arch}"),
        ("{repository.namespace}", "unknown field"),
        ("{repository[0]}", "unknown field"),
        ("{repository!r}", "unknown field"),
        ("{repository:>9}", "unknown field"),
        ("{repository:{tag}}", "unknown field"),
        ("{Repository}", "unknown field"),
        ("{repository", "is not an image template"),
        ("repository}", "is not an image template"),
        ("{{repository}}", "doesn't make an image name"),
        ("{repository}-X86", "doesn't make an image name"),
        ("-{repository}", "doesn't make an image name"),
        ("{repository}-:{tag}", "doesn't make an image name"),
        ("{repository}:-{tag}", "doesn't make an image name"),
        ("{repository}:{tag}:{tag}", "doesn't make an image name"),
        ("https://ghcr.io/{repository}", "doesn't make an image name"),
        ("ghcr.io:443/{repository}", "doesn't make an image name"),
        ("{repository}@sha256:{tag}", "doesn't make an image name"),
        ("../{repository}", "doesn't make an image name"),
        ("{repository} ", "doesn't make an image name"),
    ],
)
def test_bad_template_says_what_was_expected(text: str, reason: str) -> None:
    """Unknown fields, format tricks and names outside the grammar are refused when the template is made."""
    with pytest.raises(ValueError, match=reason):
        Template.parse(text)


@pytest.mark.parametrize(
    ("text", "repository", "tag"),
    [
        ("{repository}-x86:{tag}", "x" * 252, "1.0"),
        ("{repository}:{tag}-x86", "alpine", "1" * 125),
        ("mirror/{namespace}/{name}:{tag}", "alpine", "1.0"),
        ("{name}:{tag}", "a/b", "x" * 129),
        ("{tag}/{name}:x", "a/b", "LATEST"),
    ],
)
def test_source_that_breaks_the_grammar_does_not_exist(text: str, repository: str, tag: str) -> None:
    """Too long or of the wrong case: no registry has such an image, so there is nothing to ask for."""
    assert Template.parse(text).expand(Repository(repository), Tag(tag)) is None


def test_name_without_namespace_loses_the_slash() -> None:
    """`{namespace}/x86-{name}` of a name without a namespace is no path that starts with a slash."""
    template = Template.parse("{namespace}/x86-{name}:{tag}")

    assert template.expand(Repository("alpine"), TAG) == ("x86-alpine", "1.0")
    assert template.match(Repository("x86-alpine"), TAG) == ("alpine", "1.0")


@pytest.mark.parametrize(
    ("text", "repository", "tag"),
    [
        ("{repository}-x86:{tag}", "kimoqi/alpine-arm", "1.0"),
        ("{repository}-x86:{tag}", "-x86", "1.0"),
        ("{repository}-x86:{tag}", "a--x86", "1.0"),
        ("{repository}:{tag}-x86", "kimoqi/alpine", "-x86"),
        ("{repository}:{tag}-x86", "kimoqi/alpine", ".-x86"),
        ("{namespace}/{name}/{name}:{tag}", "a/b/c", "1.0"),
        ("{name}/{repository}:{tag}", "x/a/b", "1.0"),
        ("amd64/{name}:{tag}", "amd64/alpine", "1.0"),
        ("{repository}-x86:1.0", "alpine-x86", "1.0"),
        ("{namespace}/x:{tag}", "a/x", "1.0"),
        ("alpine:{tag}", "alpine", "1.0"),
    ],
)
def test_other_source_has_no_virtual_name(text: str, repository: str, tag: str) -> None:
    """Nothing is made up where the template doesn't fit, or leaves a part of the virtual name open."""
    assert Template.parse(text).match(Repository(repository), Tag(tag)) is None


@pytest.mark.parametrize(
    "text",
    ["amd64/{name}:{tag}", "all/{namespace}-{name}:{tag}", "all:{name}-{tag}", "{name}-{tag}:x", "{tag}/{tag}:{tag}"],
)
def test_tag_is_found_where_the_repository_is_known(text: str) -> None:
    """Templates that many virtual names lead to still have one tag for each of them."""
    template, repository = Template.parse(text), Repository("team/my-app")
    source = template.expand(repository, TAG)

    assert source is not None
    assert template.tag(repository, *source) == TAG
    assert template.tag(Repository("team/other"), *source) in {None, *([TAG] if text.startswith("{tag}") else [])}


def test_tag_is_none_where_it_does_not_matter() -> None:
    """A template without `{tag}` says nothing about tags."""
    assert Template.parse("{repository}-x86:stable").tag(APP, Repository("kimoqi/alpine-x86"), Tag("stable")) is None


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("{repository}-x86:{tag}", "kimoqi/alpine-x86"),
        ("{repository}:{tag}-x86", "kimoqi/alpine"),
        ("amd64/{name}:1", "amd64/alpine"),
        ("{repository}-{tag}:x86", None),
    ],
)
def test_repository_is_known_where_the_tag_plays_no_part(text: str, repository: str | None) -> None:
    """A digest can be looked for without a tag, unless the tag is part of the repository."""
    assert Template.parse(text).repository(APP) == repository


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("token", TOKENS)
def test_every_convention_makes_templates_of_every_token(convention: str, token: str) -> None:
    """No word of the table breaks the grammar of names."""
    source = Template.parse(CONVENTIONS[convention].replace("TOKEN", token)).expand(APP, TAG)

    assert source is not None
    assert token in "{}:{}".format(*source)


@pytest.mark.parametrize(
    ("text", "platform", "expanded"),
    [
        ("foo/bar-ARCH:v1", "linux/amd64", "foo/bar-amd64:v1"),
        ("foo/bar-ARCHVARIANT:v1", "linux/arm/v7", "foo/bar-armv7:v1"),
        ("foo/bar-ARCHVARIANT:v1", "linux/amd64", "foo/bar-amd64:v1"),
        ("foo/bar-OS-ARCH:v1", "windows/amd64", "foo/bar-windows-amd64:v1"),
        ("{repository}-ARCH", "linux/s390x", "{repository}-s390x:{tag}"),
        ("{repository}:OS_ARCH_VARIANT_{tag}", "linux/arm/v7", "{repository}:linux_arm_v7_{tag}"),
    ],
)
def test_manifest_tool_template_is_filled(text: str, platform: str, expanded: str) -> None:
    """manifest-tool's words are replaced; ours stay."""
    assert str(manifest_tool(text, Platform.parse(platform))) == expanded


@pytest.mark.parametrize("text", ["foo/bar-ARCH-ARCH:v1", "foo/bar-ARCH-VARIANT:v1", "foo/BAR-ARCH", ""])
def test_bad_manifest_tool_template_is_refused(text: str) -> None:
    """Each word is replaced once, as manifest-tool does it, and what comes out must be a template."""
    with pytest.raises(ValueError, match="is not an image template"):
        manifest_tool(text, Platform("linux", "amd64"))
