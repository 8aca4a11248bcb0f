"""Who asks, and what they may do. Words of the distribution token specification: pull, push, delete."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from proxy.oci.lease import Lease
from proxy.oci.reference import Repository


class Action(StrEnum):
    """What may be done with a repository."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Resource:
    """A repository that somebody wants something of.

    Attributes:
        upstream: Whose namespace it is in.
        repository: Its name there.
        name: Its name in the scope of a token: that of the upstream in front, where it isn't the default one.
    """

    upstream: str
    repository: Repository
    name: str = ""


Grants = Callable[[Action, Resource], bool]
"""Whether something may be done with a repository."""


def _anything(action: Action, resource: Resource) -> bool:
    """Grant everything."""
    return True


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        name: What the log calls them; empty for nobody in particular.
        may: What they may do.
        known: Whether they have said who they are, or don't have to.
        lease: How long what they have said counts without being looked at again; None for as long as it may.
        challenge: Writes `WWW-Authenticate` for somebody who needs more than they have, for a scope, which is
            empty where none is known; None where asking anew would change nothing.
    """

    name: str = ""
    may: Grants = field(default=_anything, repr=False)
    known: bool = True
    lease: Lease | None = None
    challenge: Callable[[str], str] | None = field(default=None, repr=False)

    @property
    def limited(self) -> bool:
        """Whether there may be something that they may not do, though an upstream would let us."""
        return self.may is not _anything


EVERYBODY: Final = Caller()
"""Who asks where nobody has to say who they are."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and password, as a client sends them."""

    username: str
    password: str = field(repr=False)


def read_basic(authorization: str) -> Login | None:
    """Read the `Authorization` of RFC 7617; None where it isn't one. Bytes that are no UTF-8 are Latin-1."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        data = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    username, colon, password = text.partition(":")
    return Login(username, password) if colon and username and "\0" not in text else None


def read_bearer(authorization: str) -> str | None:
    """Read the token of RFC 6750; None where it isn't one."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def basic_challenge(realm: str) -> str:
    """Write the `WWW-Authenticate` that asks for a user name and password."""
    return f'Basic realm="{_quoted(realm)}", charset="UTF-8"'


def bearer_challenge(realm: str, service: str, scope: str = "", error: str = "") -> str:
    """Write the `WWW-Authenticate` that says where a token is to be had, and for what."""
    parameters = {"realm": realm, "service": service, "scope": scope, "error": error}
    return "Bearer " + ",".join(f'{name}="{_quoted(value)}"' for name, value in parameters.items() if value)


def _quoted(text: str) -> str:
    clean = "".join(c for c in text if c.isascii() and c.isprintable())
    return clean.replace("\\", "\\\\").replace('"', '\\"')
