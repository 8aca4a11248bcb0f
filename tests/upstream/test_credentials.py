"""Where user names and passwords come from."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest
from yarl import URL

from proxy.upstream.credentials import Credential, from_docker_config, from_file

REGISTRY = URL("https://registry.example.com")
AUTH = base64.b64encode(b"alice:wonder:land").decode()
ALICE = Credential("alice", "wonder:land")


def logins(home: Path, auths: dict[str, Any]) -> Path:
    """Write docker's `config.json` below *home*, which is returned."""
    folder = home / ".docker"
    folder.mkdir()
    (folder / "config.json").write_bytes(orjson.dumps({"auths": auths}))
    return home


def test_a_credential_never_shows_its_password() -> None:
    """Neither `repr` nor `str` of a credential has the password in it."""
    assert "wonder" not in f"{ALICE!r} {ALICE}"
    assert "alice" in repr(ALICE)


def test_basic_is_base64_of_utf_8() -> None:
    """Basic authentication sends user and password as UTF-8 (RFC 7617)."""
    assert Credential("jürgen", "pä:ß").basic == "Basic " + base64.b64encode("jürgen:pä:ß".encode()).decode()


@pytest.mark.parametrize(
    ("written", "password"),
    [("secret", "secret"), ("secret\n", "secret"), ("secret\r\n", "secret"), (" se cret \n\n", " se cret \n")],
)
def test_a_newline_at_the_end_of_a_password_file_does_not_count(tmp_path: Path, written: str, password: str) -> None:
    """Editors put one newline behind a password; everything else is the password."""
    path = tmp_path / "password"
    path.write_bytes(written.encode())

    assert from_file("alice", path) == Credential("alice", password)


def test_a_missing_password_file_is_an_error(tmp_path: Path) -> None:
    """A password file that isn't there can't be mistaken for no credentials."""
    with pytest.raises(FileNotFoundError):
        from_file("alice", tmp_path / "none")


@pytest.mark.parametrize(
    "login",
    [{"auth": AUTH}, {"username": "alice", "password": "wonder:land"}, {"auth": AUTH, "email": "a@example.com"}],
)
def test_docker_logins_are_read(tmp_path: Path, login: dict[str, str]) -> None:
    """A login is `auth`, base64 of user:password, or `username` and `password`."""
    home = logins(tmp_path, {"other.example.com": {"auth": "b3RoZXI6eA=="}, "registry.example.com": login})

    assert from_docker_config(REGISTRY, {}, home) == ALICE


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
    ],
)
def test_a_login_is_found_by_any_of_its_names(tmp_path: Path, key: str, url: str) -> None:
    """Keys are hosts, with or without scheme, path and default port; Docker Hub's is under index.docker.io."""
    home = logins(tmp_path, {key: {"auth": AUTH}})

    assert from_docker_config(URL(url), {}, home) == ALICE


@pytest.mark.parametrize(
    "key",
    ["registry.example.com:5000", "example.com", "evil.registry.example.com", "registry.example.com.evil.test", ""],
)
def test_a_login_for_another_registry_is_not_used(tmp_path: Path, key: str) -> None:
    """Another host and another port are another registry."""
    home = logins(tmp_path, {key: {"auth": AUTH}, "index.docker.io": {"auth": AUTH}})

    assert from_docker_config(REGISTRY, {}, home) is None


@pytest.mark.parametrize(
    "auths", [{}, {"registry.example.com": {}}, {"registry.example.com": None}, {"registry.example.com": "x"}]
)
def test_no_login_is_none(tmp_path: Path, auths: dict[str, Any]) -> None:
    """An entry without a login, as credential helpers leave behind, is no credential."""
    assert from_docker_config(REGISTRY, {}, logins(tmp_path, auths)) is None


def test_an_empty_entry_does_not_hide_a_login(tmp_path: Path) -> None:
    """One registry may have several keys; the one that holds a login counts."""
    home = logins(tmp_path, {"registry.example.com": {}, "https://registry.example.com/v1/": {"auth": AUTH}})

    assert from_docker_config(REGISTRY, {}, home) == ALICE


def test_no_file_is_none(tmp_path: Path) -> None:
    """Who never logged in has no file, and asks anonymously."""
    assert from_docker_config(REGISTRY, {}, tmp_path) is None


def test_docker_config_names_the_folder(tmp_path: Path) -> None:
    """`DOCKER_CONFIG` counts before the home folder, as for docker itself."""
    home = logins(tmp_path, {"registry.example.com": {"auth": AUTH}})

    assert from_docker_config(REGISTRY, {"DOCKER_CONFIG": str(home / ".docker")}, Path("/nowhere")) == ALICE


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"auths": 5}', b'{"auths": "x"}', b"\xff"])
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    """A file that isn't docker's configuration stops the start instead of asking anonymously."""
    path = logins(tmp_path, {}) / ".docker/config.json"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"config\.json can't be used"):
        from_docker_config(REGISTRY, {}, tmp_path)


@pytest.mark.parametrize("auth", ["!!!", "YWxpY2U=", "/////w=="])
def test_a_broken_auth_is_an_error_that_does_not_repeat_it(tmp_path: Path, auth: str) -> None:
    """What may be half a secret isn't shown."""
    home = logins(tmp_path, {"registry.example.com": {"auth": auth}})

    with pytest.raises(ValueError, match="not base64 of user:password") as caught:
        from_docker_config(REGISTRY, {}, home)
    assert auth not in str(caught.value)
