"""Who we are to an upstream, and for which of its repositories. A secret's `repr` never shows it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.oci import glob
from proxy.oci.reference import Repository
from proxy.watched import Watched


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password."""

    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The `Authorization` header for them."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """A refresh token of OAuth2, which only a token service takes.

    Attributes:
        username: For token services that take it as a password alone; empty where nobody has said.
    """

    token: str = field(repr=False)
    username: str = ""

    @property
    def as_password(self) -> Credential | None:
        """The same as user name and password, or None without a name."""
        return Credential(self.username, self.token) if self.username else None


Login = Credential | IdentityToken
"""Who we are to a registry."""


class Credentials(Protocol):
    """Who we are to one upstream, for each of its repositories."""

    async def of(self, repository: Repository, *, refused: Login | None = None) -> Login | None:
        """Return who we are there; None for nobody in particular.

        Args:
            repository: As the upstream calls it (Docker Hub: `library/alpine`); empty for what belongs to none.
            refused: What the upstream has just refused. Whoever can learn of a newer one looks for it now; who can't
                returns the same.

        Raises:
            NoAnswer: There should be a credential, but it can't be had now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same for all repositories, for as long as it lives; without a *login* nobody in particular."""

    login: Login | None = None

    async def of(self, repository: Repository, *, refused: Login | None = None) -> Login | None:
        """Return it."""
        return self.login


class Kept:
    """The same for all repositories, as a file says it now."""

    def __init__(self, file: Watched[Login]) -> None:
        self._file = file

    async def of(self, repository: Repository, *, refused: Login | None = None) -> Login | None:
        """Return what it says."""
        return self._file.content


class ByRepository:
    """Several, of which the first counts whose pattern fits the repository; without any, nobody in particular."""

    def __init__(self, choices: Sequence[tuple[str, Credentials]]) -> None:
        """Take globs over repositories, and who we are where they fit."""
        self._choices = tuple(choices)

    async def of(self, repository: Repository, *, refused: Login | None = None) -> Login | None:
        """Return what the one that counts says."""
        for pattern, credentials in self._choices:
            if glob.matches(pattern, repository):
                return await credentials.of(repository, refused=refused)
        return None


def secret(content: bytes) -> str:
    """Read a file that holds a secret alone; a newline at its end isn't part of it. Raises `ValueError`."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError("it is empty")
    return text
