"""Where an upstream's user name and password come from. A secret's `repr` never shows it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from yarl import URL

from proxy.oci.reference import DOCKER_HUB

_log: Final = structlog.get_logger("upstream")


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password."""

    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The `Authorization` header for them."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def from_file(username: str, path: Path) -> Credential:
    """Read a password file; a newline at its end isn't part of the password. Raises `OSError`."""
    return Credential(username, path.read_text().removesuffix("\n").removesuffix("\r"))


def from_docker_config(url: URL, environ: Mapping[str, str], home: Path) -> Credential | None:
    """Look *url* up among the `auths` of docker's `config.json`, as `docker login` writes them.

    Returns None where there is no such file or no login for this registry.
    Raises `ValueError` where the file can't be read as what it should be.
    """
    path = Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    try:
        document = orjson.loads(path.read_bytes())
        auths: dict[str, Any] = dict(document.get("auths") or {})
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be used: {type(error).__name__}") from None
    for key, value in auths.items():
        if _host(key) in _names(url) and isinstance(value, dict) and (found := _decode(value, path)) is not None:
            return found
    if document.get("credsStore") or document.get("credHelpers"):
        _log.warning(
            "no login found: credential helpers are not asked, only what stands in the file counts",
            file=str(path),
            registry=str(url.origin()),
        )
    return None


def _names(url: URL) -> frozenset[str]:
    """Return what this registry may be called there: Docker Hub's login is under index.docker.io."""
    if url.host in DOCKER_HUB and url.is_default_port():
        return DOCKER_HUB
    return frozenset({str(url.host_port_subcomponent), f"{url.host_subcomponent}:{url.port}"})


def _host(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _decode(value: dict[str, Any], path: Path) -> Credential | None:
    if value.get("username") and value.get("password"):
        return Credential(str(value["username"]), str(value["password"]))
    if not value.get("auth"):
        return None
    try:
        username, colon, password = base64.b64decode(str(value["auth"]), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise ValueError(f"{path} has an auth that is not base64 of user:password")
    return Credential(username, password.rstrip("\0"))
