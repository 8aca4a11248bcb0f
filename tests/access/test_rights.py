"""What users may do."""

from __future__ import annotations

import pytest

from proxy.access.rights import READ_ALL, Right, granted
from proxy.oci.access import Action, Resource
from proxy.oci.reference import Repository

PUSH = frozenset({Action.PULL, Action.PUSH})
RIGHTS = [
    Right(("ci", "bot-*"), ("team/**",), PUSH),
    Right(("alice",), ("team/*",), frozenset({Action.PULL}), upstream="hub"),
    Right(("alice",), ("own/alice/**",), frozenset(Action)),
]


@pytest.mark.parametrize(
    ("user", "action", "upstream", "repository", "allowed"),
    [
        ("ci", "push", "hub", "team/app", True),
        ("ci", "push", "quay", "team/a/b", True),
        ("ci", "delete", "hub", "team/app", False),
        ("ci", "pull", "hub", "teams/app", False),
        ("bot-1", "pull", "hub", "team/app", True),
        ("bot", "pull", "hub", "team/app", False),
        ("alice", "pull", "hub", "team/app", True),
        ("alice", "pull", "quay", "team/app", False),
        ("alice", "pull", "hub", "team/a/b", False),
        ("alice", "push", "hub", "team/app", False),
        ("alice", "delete", "quay", "own/alice/x", True),
        ("alice2", "pull", "hub", "team/app", False),
        ("Alice", "pull", "hub", "team/app", False),
        ("", "pull", "hub", "team/app", False),
    ],
)
def test_any_right_is_enough(user: str, action: str, upstream: str, repository: str, *, allowed: bool) -> None:
    """Globs over all of a name; a right without an upstream is for all of them."""
    resource = Resource(upstream, Repository(repository))
    assert granted(RIGHTS, user)(Action(action), resource) is allowed


def test_reading_alone_is_the_rule() -> None:
    """What holds where nothing is written."""
    may = granted([READ_ALL], "anybody")
    resource = Resource("hub", Repository("team/a/b"))
    assert [action for action in Action if may(action, resource)] == [Action.PULL]


def test_no_right_is_none() -> None:
    """Nothing is allowed that nobody has allowed."""
    assert not granted([], "alice")(Action.PULL, Resource("hub", Repository("team/app")))
