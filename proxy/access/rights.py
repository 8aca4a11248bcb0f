"""What users may do with which repositories, as the configuration says. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.oci import glob
from proxy.oci.access import Action, Grants, Resource


@dataclass(frozen=True, slots=True)
class Right:
    """One permission: these users may do these things with these repositories.

    Attributes:
        users: Globs over user names.
        repositories: Globs over repositories: `*` stays within a component, `**` crosses slashes.
        upstream: Only those of this upstream; empty: of any.
    """

    users: tuple[str, ...]
    repositories: tuple[str, ...]
    actions: frozenset[Action]
    upstream: str = ""

    def allows(self, user: str, action: Action, resource: Resource) -> bool:
        """Whether this permission is *user*'s, and enough."""
        return (
            action in self.actions
            and self.upstream in ("", resource.upstream)
            and any(glob.matches(pattern, user) for pattern in self.users)
            and any(glob.matches(pattern, resource.repository) for pattern in self.repositories)
        )


READ_ALL = Right(("**",), ("**",), frozenset({Action.PULL}))
"""Whoever has a password may pull everything: what holds where no permission is written."""


def granted(rights: Sequence[Right], user: str) -> Grants:
    """Return what *user* may do: what any of *rights* allows."""
    return lambda action, resource: any(right.allows(user, action, resource) for right in rights)
