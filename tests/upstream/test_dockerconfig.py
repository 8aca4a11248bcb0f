"""Docker's `config.json`: whose login counts for which registry and repository."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest
from yarl import URL

from conftest import Clock
from proxy.oci.reference import Repository
from proxy.upstream.credentials import Credential, Credentials, Fixed, IdentityToken, Login
from proxy.upstream.dockerconfig import DockerConfig, Logins, read, server
from proxy.watched import Watched

REGISTRY = URL("https://registry.example.com")
AUTH = base64.b64encode(b"alice:wonder:land").decode()
ALICE = Credential("alice", "wonder:land")
APP = Repository("team/app")


def login(auths: dict[str, Any], url: URL = REGISTRY, repository: Repository = APP) -> Login | None:
    """Return the login that a file with *auths* has."""
    return read(url, orjson.dumps({"auths": auths})).of(repository)


def named(name: str) -> dict[str, str]:
    """Return the login of somebody."""
    return {"username": name, "password": "pw"}


@pytest.mark.parametrize(
    "entry",
    [{"auth": AUTH}, {"username": "alice", "password": "wonder:land"}, {"auth": AUTH, "email": "a@example.com"}],
)
def test_logins_are_read(entry: dict[str, str]) -> None:
    """A login is `auth`, base64 of user:password, or `username` and `password`."""
    assert login({"other.example.com": {"auth": "b3RoZXI6eA=="}, "registry.example.com": entry}) == ALICE


def test_an_identity_token_counts_before_a_password() -> None:
    """As `az acr login` writes it: a user name with an empty password, and an identity token."""
    entry = {"auth": base64.b64encode(b"0000-00:").decode(), "identitytoken": "refresh"}

    assert login({"registry.example.com": entry}) == IdentityToken("refresh", "0000-00")
    assert login({"registry.example.com": {"identitytoken": "refresh"}}) == IdentityToken("refresh")


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("registry.example.com", "https://registry.example.com"),
        ("https://registry.example.com", "https://registry.example.com"),
        ("https://registry.example.com/v2/", "https://registry.example.com"),
        ("registry.example.com:443", "https://registry.example.com"),
        ("registry.example.com", "https://registry.example.com:443"),
        ("registry.example.com:5000", "https://registry.example.com:5000"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("https://index.docker.io/v1/", "https://registry-1.docker.io"),
        ("docker.io", "https://registry-1.docker.io"),
        ("*.example.com", "https://registry.example.com"),
        ("https://*.example.com/v1/", "https://registry.example.com"),
        ("*.dkr.ecr.*.amazonaws.com", "https://123.dkr.ecr.eu-west-1.amazonaws.com"),
        ("reg?stry.*.com:5000", "https://registry.example.com:5000"),
    ],
)
def test_a_login_is_found_by_any_of_its_names(key: str, url: str) -> None:
    """Keys are hosts, with or without scheme, path, default port and globs; Docker Hub's is under index.docker.io."""
    assert login({key: {"auth": AUTH}}, URL(url)) == ALICE


@pytest.mark.parametrize(
    "key",
    [
        "registry.example.com:5000",
        "example.com",
        "evil.registry.example.com",
        "registry.example.com.evil.test",
        "",
        "*.com",
        "*",
        "*.*.example.com",
        "*.example.com:5000",
        "registry.example.com/other",
        "registry.example.com/team/ap",
        "registry.example.com/te",
    ],
)
def test_a_login_for_something_else_is_not_used(key: str) -> None:
    """Another host, another port and another path are something else; a glob stays between two dots."""
    assert login({key: {"auth": AUTH}, "index.docker.io": {"auth": AUTH}}) is None


@pytest.mark.parametrize(
    ("repository", "expected"),
    [("team/app", "app"), ("team/app/deep", "app"), ("team/application", "team"), ("other", "all")],
)
def test_the_longest_path_counts(repository: str, expected: str) -> None:
    """Of several logins for one registry the one that is nearest to the repository, component by component."""
    auths = {
        "registry.example.com": named("all"),
        "registry.example.com/team": named("team"),
        "https://registry.example.com/v2/team/app/": named("app"),
        "*.example.com/team/app": named("glob"),
    }
    for order in (auths, dict(reversed(auths.items()))):
        assert login(order, repository=Repository(repository)) == Credential(expected, "pw")


def test_docker_hub_has_paths_too() -> None:
    """Official images are below `library/`, as Docker Hub calls them."""
    auths = {"docker.io": named("all"), "https://index.docker.io/v1/library": named("official")}

    assert login(auths, URL("https://registry-1.docker.io"), Repository("library/alpine")) == Credential(
        "official", "pw"
    )


@pytest.mark.parametrize(
    "auths",
    [{}, {"registry.example.com": {}}, {"registry.example.com": None}, {"registry.example.com": "x"}],
)
def test_no_login_is_none(auths: dict[str, Any]) -> None:
    """An entry without a login, as credential helpers leave behind, is no credential."""
    assert login(auths) is None


def test_an_empty_entry_does_not_hide_a_login() -> None:
    """One registry may have several keys; the one that holds a login counts."""
    assert login({"registry.example.com": {}, "https://registry.example.com/v1/": {"auth": AUTH}}) == ALICE


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"auths": 5}', b'{"auths": "x"}', b"\xff", b'{"credHelpers": 1}'],
)
def test_a_broken_file_is_an_error(content: bytes) -> None:
    """A file that isn't docker's configuration stops the start instead of asking anonymously."""
    with pytest.raises(ValueError, match="not docker's configuration"):
        read(REGISTRY, content)


@pytest.mark.parametrize("auth", ["!!!", "YWxpY2U=", "/////w=="])
def test_a_broken_auth_is_an_error_that_does_not_repeat_it(auth: str) -> None:
    """What may be half a secret isn't shown; what is of no interest may be broken."""
    assert login({"other.example.com": {"auth": auth}}) is None
    with pytest.raises(ValueError, match="not base64 of user:password") as caught:
        login({"registry.example.com": {"auth": auth}})
    assert auth not in str(caught.value)


@pytest.mark.parametrize("name", ["../evil", "a/b", "/bin/sh", "-x", "", "a b", "a\n", 5])
@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_helper_s_name_leads_nowhere_else(key: str, name: object) -> None:
    """A file that somebody else may have written can't start any other program."""
    value = name if key == "credsStore" else {"registry.example.com": name}
    content = orjson.dumps({key: value})
    if name == "":
        assert read(REGISTRY, content) == Logins()
    else:
        with pytest.raises(ValueError, match="helper that can't be one"):
            read(REGISTRY, content)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://registry.example.com", "registry.example.com"),
        ("https://registry.example.com:443", "registry.example.com"),
        ("http://localhost:5000", "localhost:5000"),
        ("https://registry-1.docker.io", "https://index.docker.io/v1/"),
    ],
)
def test_helpers_know_a_registry_as_docker_calls_it(url: str, expected: str) -> None:
    """By its host; Docker Hub by the URL it had first."""
    assert server(URL(url)) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"credHelpers": {"registry.example.com": "ecr-login"}}, "ecr-login"),
        ({"credHelpers": {"registry.example.com": "ecr-login"}, "credsStore": "desktop"}, "ecr-login"),
        ({"credHelpers": {"registry.example.com": "gcloud"}, "auths": {"registry.example.com": named("a")}}, "gcloud"),
        ({"credHelpers": {"other.example.com": "gcloud"}, "auths": {"registry.example.com": named("a")}}, "a"),
        ({"credsStore": "desktop", "auths": {"registry.example.com": {}}}, "desktop"),
        ({"credsStore": "desktop", "auths": {"registry.example.com": named("a")}}, "a"),
        ({"credsStore": "desktop", "auths": {"registry.example.com/other": named("a")}}, "desktop"),
        ({"credHelpers": {"other.example.com": "gcloud"}}, None),
        ({}, None),
    ],
)
async def test_who_is_asked(tmp_path: Path, clock: Clock, document: dict[str, Any], expected: str | None) -> None:
    """The registry's own helper, a login in the file, the store, in this order."""
    path = tmp_path / "config.json"
    path.write_bytes(orjson.dumps(document))
    made: list[str] = []

    def helper(name: str) -> Credentials:
        made.append(name)
        return Fixed(Credential(name, "pw"))

    config = DockerConfig(Watched(path, lambda content: read(REGISTRY, content), clock), helper)

    for _ in range(2):
        assert await config.of(APP) == (Credential(expected, "pw") if expected else None)
    assert len(made) <= 1


async def test_a_file_that_changes_counts(tmp_path: Path, clock: Clock) -> None:
    """A `.dockerconfigjson` that Kubernetes has replaced is read without a restart."""
    path = tmp_path / ".dockerconfigjson"
    path.write_bytes(orjson.dumps({"auths": {"registry.example.com": named("old")}}))
    config = DockerConfig(Watched(path, lambda content: read(REGISTRY, content), clock), lambda name: Fixed())
    assert await config.of(APP) == Credential("old", "pw")
    path.write_bytes(orjson.dumps({"auths": {"registry.example.com": named("newer")}}))
    clock.advance(2)

    assert await config.of(APP) == Credential("newer", "pw")
