"""What a configuration means: rules, and the names and credentials of upstreams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.merge.convention import DEFAULT_CONVENTIONS
from proxy.merge.route import Address, route
from proxy.merge.rule import SourceTemplate
from proxy.merge.template import Template
from proxy.oci.errors import NameUnknown
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository
from proxy.settings.keys import CredentialSettings, UpstreamSettings
from proxy.settings.load import load
from settings.texts import SECRET, UPSTREAM


def upstream(**settings: Any) -> UpstreamSettings:
    """Return an upstream."""
    return UpstreamSettings.model_validate({"name": "registry", "url": "https://registry.example", **settings})


def test_the_password_is_there_for_those_who_need_it() -> None:
    """The composition root gets the password itself."""
    credentials = upstream(credentials={"username": "puller", "password": SECRET}).credentials

    assert isinstance(credentials, CredentialSettings)
    assert credentials.password is not None
    assert credentials.password.get_secret_value() == SECRET


def test_without_a_rule_the_default_conventions_hold(file: Path) -> None:
    """No rule written: repository suffix and tag suffix, for every name."""
    file.write_text(UPSTREAM)

    (rule,) = load(file).rules

    assert (rule.match, rule.conventions, rule.sources) == ("**", DEFAULT_CONVENTIONS, ())


def test_a_written_rule_replaces_the_default(file: Path) -> None:
    """With any rule written, the rules are those written, named by their place in the file."""
    file.write_text(
        UPSTREAM
        + '[[rule]]\nmatch = "a/*"\nsources = [{ image = "{repository}-x86", platform = "linux/amd64" }]\n'
        + '[[rule]]\nmatch = "b/*"\n'
    )

    first, second = load(file).rules

    assert first.sources == (SourceTemplate(Template("{repository}-x86:{tag}"), Platform("linux", "amd64")),)
    assert [(rule.name, rule.match) for rule in (first, second)] == [("rule[0]", "a/*"), ("rule[1]", "b/*")]
    assert (second.sources, second.conventions) == ((), ())


def test_a_template_is_filled_for_each_platform(file: Path) -> None:
    """manifest-tool's words become one source per platform, with the platform written."""
    file.write_text(
        '[[rule]]\nmatch = "*"\ntemplate = "{repository}-OS-ARCHVARIANT"\nplatforms = ["linux/amd64", "linux/arm/v7"]\n'
    )

    (rule,) = load(file).rules

    assert [(str(source.template), str(source.platform)) for source in rule.sources] == [
        ("{repository}-linux-amd64:{tag}", "linux/amd64"),
        ("{repository}-linux-armv7:{tag}", "linux/arm/v7"),
    ]
    assert rule.platforms == ()


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"url": "https://registry-1.docker.io"}, (401, 404)),
        ({"url": "https://index.docker.io"}, (401, 404)),
        ({"url": "https://registry-1.docker.io", "missing_status": [404]}, (404,)),
        ({"url": "https://registry.example"}, (404,)),
        ({"url": "https://registry.example", "missing_status": [403, 404]}, (403, 404)),
    ],
)
def test_docker_hub_says_401_of_what_is_missing(settings: dict[str, Any], missing: tuple[int, ...]) -> None:
    """Docker Hub's statuses for a missing repository are known; what is written counts more."""
    assert upstream(**settings).missing == missing


@pytest.mark.parametrize("word", ["registry", "REGISTRY", "registry.example", "mirror.example", "Mirror.Example"])
def test_an_upstream_answers_to_its_name_host_and_aliases(word: str) -> None:
    """An upstream is meant by its name, its URL's host and each alias, in any case."""
    names = upstream(aliases=["mirror.example"]).names(alone=False)

    assert names.claims(word)
    assert not names.claims("other.example")


def test_docker_hub_answers_to_all_its_names() -> None:
    """Clients call Docker Hub by several names; an upstream with one of them has them all."""
    by_url = upstream(name="hub", url="https://registry-1.docker.io").names(alone=False)
    by_alias = upstream(url="https://mirror.example", aliases=["docker.io"]).names(alone=False)

    for word in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        assert by_url.claims(word)
        assert by_alias.claims(word)


def test_the_only_upstream_is_the_default(file: Path) -> None:
    """One upstream takes every name; of several only the one that says so does."""
    file.write_text(UPSTREAM)
    alone = load(file).names
    file.write_text(UPSTREAM + '[[upstream]]\nname = "other"\nurl = "https://other.example"\n')
    several = load(file).names

    assert route(alone, Address(), Repository("team/app")) == ("registry", "team/app")
    with pytest.raises(NameUnknown):
        route(several, Address(), Repository("team/app"))
