"""Doorkeepers: they find out who clients are. Their libraries are loaded only where they are used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from proxy.access.rights import READ_ALL, Right
from proxy.app.foundation import Foundation, behind
from proxy.app.houses import Doorkeeper
from proxy.merge.route import Address, route
from proxy.oci.reference import Repository
from proxy.settings.access import AccessSettings
from proxy.settings.keys import Settings
from proxy.settings.load import Problem, SettingsInvalid
from proxy.watched import Watched

Value = TypeVar("Value")

_LOOK = 1.0  # seconds between two looks at files, for hot answers, which look at nothing


@asynccontextmanager
async def doorkeeper(foundation: Foundation) -> AsyncIterator[Doorkeeper]:
    """Open the door as the mode says that is configured. Raises `SettingsInvalid` where its files can't be used."""
    settings, clock = foundation.settings, foundation.clock
    if settings.access.mode == "htpasswd":
        opened, look = _htpasswd(settings.access, clock, foundation.ticks)
    else:
        opened, look = _tokens(settings, clock, foundation.ticks)
    async with behind(_looking(look)):
        yield opened


def _htpasswd(
    access: AccessSettings, clock: Callable[[], float], ticks: Callable[[], float]
) -> tuple[Doorkeeper, Callable[[], None]]:
    from proxy.access.htpasswd import Htpasswd, read_users  # noqa: PLC0415 - bcrypt, which others don't need

    users = _watched(access.htpasswd, "access.htpasswd", read_users, ticks)
    rights = [
        Right(each.users, each.repositories, frozenset(each.actions), each.upstream) for each in access.allow
    ] or [READ_ALL]
    opened = Htpasswd(users, rights, access.realm, clock)
    return opened, opened.look


def _tokens(
    settings: Settings, clock: Callable[[], float], ticks: Callable[[], float]
) -> tuple[Doorkeeper, Callable[[], None]]:
    from proxy.access.keys import read_keys  # noqa: PLC0415 - cryptography, which others don't need
    from proxy.access.tokens import Terms, Tokens  # noqa: PLC0415 - the same

    access, names = settings.access.token, settings.names
    if access is None:
        raise AssertionError("checked with the settings")
    files = [_watched(path, f"access.token.keys[{n}]", read_keys, ticks) for n, path in enumerate(access.keys)]

    def routed(name: str) -> tuple[str, str]:
        return route(names, Address(), Repository.parse(name))

    opened = Tokens(files, Terms(str(access.realm), access.service, access.issuer), routed, clock)
    return opened, opened.look


def _watched(path: Path | None, key: str, read: Callable[[bytes], Value], ticks: Callable[[], float]) -> Watched[Value]:
    if path is None:
        raise AssertionError("checked with the settings")
    try:
        return Watched(path, read, ticks)
    except OSError as error:
        reason = f"the file can't be read: {error.strerror or type(error).__name__}"
        raise SettingsInvalid([Problem(str(path), key, reason)]) from None
    except ValueError as error:
        raise SettingsInvalid([Problem(str(path), key, str(error))]) from None


async def _looking(look: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_LOOK)
        look()
