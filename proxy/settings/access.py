"""The keys of the section `access`: who may come in, and what they may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from proxy.oci.access import Action
from proxy.settings.section import Section
from proxy.settings.text import Duration, Url

_NEEDS = {"htpasswd": "htpasswd", "token": "token"}
"""Modes, and the key that each can't do without."""


class AllowSettings(Section):
    """What some users may do with some repositories. Whatever any of these allows is allowed."""

    users: tuple[str, ...] = ("**",)
    """Globs over user names."""
    repositories: tuple[str, ...] = ("**",)
    """Globs over repositories: * stays within a component, ** crosses slashes."""
    upstream: str = ""
    """Only repositories on this upstream; without it, on any."""
    actions: tuple[Action, ...] = (Action.PULL,)
    """What they may do: pull, push, delete."""


class TokenSettings(Section):
    """Tokens of a token service, as distribution's specification has them."""

    realm: Url
    """URL of the token service that clients are sent to."""
    service: str = Field(min_length=1)
    """What tokens have to be made for (`aud`)."""
    issuer: str = Field(min_length=1)
    """Who has to have made them (`iss`)."""
    keys: tuple[Path, ...] = Field(min_length=1)
    """Files with the public keys they are signed with: PEM, certificates or a JWK set; read again when they change."""


class AccessSettings(Section):
    """Who may come in."""

    mode: Literal["open", "htpasswd", "upstream", "token"] = "open"
    """Everybody; or whoever is in a file of passwords, has credentials that the upstream takes, or has a token."""
    realm: str = Field(default="manifuse", min_length=1)
    """What clients say that they need a user name and password for."""
    htpasswd: Path | None = None
    """The file of passwords, with bcrypt's hashes (`htpasswd -B`); read again when it changes."""
    allow: tuple[AllowSettings, ...] = ()
    """Who of that file may do what. Without any, everybody in it may pull everything."""
    token: TokenSettings | None = None
    """Which tokens count."""
    ttl: Duration = 60.0
    """With mode = "upstream": how long a permission that the upstream has granted counts without asking again."""


def contradictions(
    document: Mapping[str, Any], upstreams: list[tuple[str, Mapping[str, Any]]]
) -> Iterator[tuple[str, str]]:
    """Find what no single key shows, with the key it is about. Works on the raw document."""
    access = document.get("access")
    access = access if isinstance(access, Mapping) else {}
    mode = access.get("mode", "open")
    needed = _NEEDS.get(mode) if isinstance(mode, str) else None
    if needed and not access.get(needed):
        yield f"access.{needed}", f'this key is missing, mode = "{mode}" needs it'
    allowed = access.get("allow")
    if allowed and mode != "htpasswd":
        yield "access.allow", 'it goes with mode = "htpasswd": elsewhere upstream or token say what is allowed'
    names = [name for _, upstream in upstreams if isinstance(name := upstream.get("name"), str)]
    for number, allow in enumerate(allowed if isinstance(allowed, list | tuple) else ()):
        named = allow.get("upstream") if isinstance(allow, Mapping) else ""
        if named and named not in names:
            yield f"access.allow[{number}].upstream", f"the name of an upstream was expected: {', '.join(names)}"
    yield from _credentials(mode == "upstream", upstreams)


def _credentials(personal: bool, upstreams: list[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, str]]:
    """In mode `upstream` nobody sees anything by credentials that aren't their own."""
    clients = [key for key, upstream in upstreams if upstream.get("credentials") == "client"]
    if not personal:
        for key in clients:
            yield f"{key}.credentials", '"client" goes with access.mode = "upstream"'
        return
    if not clients:
        yield "access.mode", 'at least one upstream with credentials = "client" was expected'
    for key, upstream in upstreams:
        if upstream.get("credentials") not in (None, "client"):
            yield f"{key}.credentials", '"client" or none was expected: every client would see what these may see'
        elif upstream.get("client_certificate") is not None and upstream.get("credentials") is None:
            expected = 'credentials = "client" was expected beside it: every client would see what it may see'
            yield f"{key}.client_certificate", expected
