"""Logins, tokens and challenges as they stand in headers."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.access import (
    EVERYBODY,
    Action,
    Login,
    Resource,
    basic_challenge,
    bearer_challenge,
    read_basic,
    read_bearer,
)
from proxy.oci.challenge import parse_challenges
from proxy.oci.reference import Repository


def encoded(data: bytes) -> str:
    """Write a Basic header."""
    return "Basic " + b64encode(data).decode()


@pytest.mark.parametrize(
    ("header", "login"),
    [
        (encoded(b"alice:secret"), Login("alice", "secret")),
        (encoded(b"alice:with:colons"), Login("alice", "with:colons")),
        (encoded(b"alice:"), Login("alice", "")),
        (encoded("alice:naïve".encode()), Login("alice", "naïve")),
        (encoded("alice:naïve".encode("latin-1")), Login("alice", "naïve")),
        ("basic " + b64encode(b"a:b").decode(), Login("a", "b")),
        (encoded(b"alice"), None),
        (encoded(b":secret"), None),
        (encoded(b"alice:a\0b"), None),
        ("Basic", None),
        ("Basic !!!", None),
        ("Basic YTpi x", None),
        ("Bearer YTpi", None),
        ("", None),
    ],
)
def test_basic(header: str, login: Login | None) -> None:
    """RFC 7617; a NUL would end a password for some who check it, and not for others."""
    assert read_basic(header) == login


@given(st.text())
def test_whatever_is_sent_is_read_or_not(header: str) -> None:
    """No text is an error of ours."""
    read_basic(header)
    read_basic(f"Basic {header}")
    read_bearer(header)


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Bearer", None), ("Basic abc", None), ("", None)],
)
def test_bearer(header: str, token: str | None) -> None:
    """RFC 6750."""
    assert read_bearer(header) == token


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)), st.text())
def test_challenges_are_read_as_they_were_meant(realm: str, scope: str) -> None:
    """By the parser that reads those of upstreams; nothing in them ends a header."""
    for written in (basic_challenge(realm), bearer_challenge(realm, "service", scope)):
        assert written.isascii()
        assert written.isprintable()
    (found,) = parse_challenges([basic_challenge(realm)])
    assert found.parameters["realm"] == realm
    (found,) = parse_challenges([bearer_challenge("https://a/token", "s", "repository:a/b:pull", "invalid_token")])
    assert found.parameters == {
        "realm": "https://a/token",
        "service": "s",
        "scope": "repository:a/b:pull",
        "error": "invalid_token",
    }


def test_secrets_are_not_shown() -> None:
    """Neither by a login nor by an error that holds one."""
    assert "secret" not in repr(Login("alice", "secret"))


def test_everybody_may_do_everything() -> None:
    """Where nobody has to say who they are."""
    assert EVERYBODY.known
    assert EVERYBODY.may(Action.DELETE, Resource("hub", Repository("team/app")))
