"""Docker's `config.json`, as `docker login` writes it and as Kubernetes mounts a `.dockerconfigjson` secret.

What it says: `auths`, `credHelpers` and `credsStore`. Keys may name a path, as containers' `auth.json` and Kubernetes
do, and have globs in the host, as Kubernetes has. A helper that is named for this registry counts most, then a login in
the file, then the store.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import orjson
from yarl import URL

from proxy.oci.reference import DOCKER_HUB, Repository
from proxy.upstream.credentials import Credential, Credentials, IdentityToken, Login
from proxy.upstream.helper import NAME
from proxy.watched import Watched

_HUB: Final = "https://index.docker.io/v1/"  # what docker has always called it
_VERSION: Final = re.compile(r"^/v[12](?=/|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Logins:
    """What the file says of one registry.

    Attributes:
        by_path: Logins for the repositories at and below a path, the longest first; the empty path is all of them.
        helper: Who is asked about this registry.
        store: Who is asked about all registries.
    """

    by_path: tuple[tuple[str, Login], ...] = ()
    helper: str = ""
    store: str = ""

    def of(self, repository: Repository) -> Login | None:
        """Return the login in the file with the longest path that leads to *repository*."""
        return next((login for path, login in self.by_path if f"{repository}/".startswith(path)), None)


class DockerConfig:
    """The credentials that docker would use."""

    def __init__(self, file: Watched[Logins], helper: Callable[[str], Credentials]) -> None:
        """Take what is needed.

        Args:
            helper: Makes the one of that name.
        """
        self._file = file
        self._helper = helper
        self._helpers: dict[str, Credentials] = {}

    async def of(self, repository: Repository, *, refused: Login | None = None) -> Login | None:
        """Return the login for *repository*. Raises `NoAnswer` where a helper has none to give now."""
        said = self._file.content
        if said.helper:
            return await self._named(said.helper).of(repository, refused=refused)
        login = said.of(repository)
        if login is None and said.store:
            return await self._named(said.store).of(repository, refused=refused)
        return login

    def _named(self, name: str) -> Credentials:
        if name not in self._helpers:
            self._helpers[name] = self._helper(name)
        return self._helpers[name]


def server(url: URL) -> str:
    """Return what helpers know the registry at *url* by."""
    return _HUB if _is_hub(url) else str(url.host_port_subcomponent)


def read(url: URL, content: bytes) -> Logins:
    """Read what a file says of the registry at *url*. Raises `ValueError`, without repeating what may be a secret."""
    try:
        document: Any = orjson.loads(content)
        auths: dict[str, Any] = dict(document.get("auths") or {})
        helpers: dict[str, Any] = dict(document.get("credHelpers") or {})
        store = document.get("credsStore") or ""
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        raise ValueError("it is not docker's configuration") from None
    found = sorted(_logins(url, auths), key=lambda each: (-len(each[0]), each[1]))
    named = next((name for key, name in helpers.items() if _split(key)[0] in _names(url)), "")
    return Logins(tuple((path, login) for path, _, login in found), _checked(named), _checked(store))


def _logins(url: URL, auths: dict[str, Any]) -> Iterator[tuple[str, bool, Login]]:
    """Yield path, whether the host is a glob, and login."""
    names = _names(url)
    for key, value in auths.items():
        host, path = _split(key)
        exact = host in names
        if (exact or any(_fits(name, host) for name in names)) and isinstance(value, dict):
            login = _login(value)
            if login is not None:
                yield path, not exact, login


def _checked(name: object) -> str:
    if not name:
        return ""
    if not isinstance(name, str) or re.fullmatch(NAME, name) is None:
        raise ValueError("it names a credential helper that can't be one")
    return name


def _is_hub(url: URL) -> bool:
    return url.host in DOCKER_HUB and url.is_default_port()


def _names(url: URL) -> frozenset[str]:
    """Return what this registry may be called there: Docker Hub's login is under index.docker.io."""
    if _is_hub(url):
        return DOCKER_HUB
    return frozenset({str(url.host_port_subcomponent), f"{url.host_subcomponent}:{url.port}"})


def _split(key: str) -> tuple[str, str]:
    """Return host and path of a key, the path with a slash at its end and without the version of an API."""
    host, slash, rest = key.removeprefix("https://").removeprefix("http://").partition("/")
    path = _VERSION.sub("", f"{slash}{rest}").strip("/")
    return host, f"{path}/" if path else ""


def _fits(name: str, glob: str) -> bool:
    """Match as Kubernetes does: * stays between two dots, and the port is the same."""
    host, _, port = name.partition(":")
    pattern, _, pattern_port = glob.partition(":")
    labels, patterns = host.split("."), pattern.split(".")
    if not {"*", "?"} & set(pattern) or port != pattern_port or len(labels) != len(patterns):
        return False
    return all(fnmatchcase(label, each) for label, each in zip(labels, patterns, strict=True))


def _login(value: dict[str, Any]) -> Login | None:
    username, password = str(value.get("username") or ""), str(value.get("password") or "")
    if not (username and password) and value.get("auth"):
        username, password = _decoded(str(value["auth"]))
    if value.get("identitytoken"):
        return IdentityToken(str(value["identitytoken"]), username)
    return Credential(username, password) if username and password else None


def _decoded(auth: str) -> tuple[str, str]:
    try:
        username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise ValueError("it has an auth that is not base64 of user:password")
    return username, password.rstrip("\0")
