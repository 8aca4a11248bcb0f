"""The files that settings name: certificates, passwords, secrets. All are read at once, and told of at once."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from proxy.settings.keys import HooksSettings, Settings, UpstreamSettings
from proxy.settings.load import Problem, SettingsInvalid
from proxy.upstream.credentials import Credentials, Fixed
from proxy.watched import Watched
from proxy.web.token import Token

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Tls:
    """How to meet an upstream over TLS; None is the system's way.

    Attributes:
        own: With our certificate, for the upstream itself and its token service.
        others: Without it, for whoever the upstream sends us to.
    """

    own: ssl.SSLContext | None = None
    others: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """What stands in them, by upstream.

    Attributes:
        tls: How to check certificates, and which to show.
        credentials: Who we are there.
        hooks: The secret that notifications must have; empty where none is configured.
        admin: The admin port's token, None where none is configured.
    """

    tls: Mapping[str, Tls]
    credentials: Mapping[str, Credentials] = field(repr=False)
    hooks: str = field(repr=False)
    admin: Token | None = field(repr=False)


def read(settings: Settings, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> Files:
    """Read all files that *settings* name. Raises `SettingsInvalid` with the problems of all of them.

    Args:
        clock: Seconds that never go backwards; files with credentials are read again when they change.
    """
    problems: list[Problem] = []

    def tried(work: Callable[[], Read], otherwise: Read) -> Read:
        try:
            return work()
        except SettingsInvalid as invalid:
            problems.extend(invalid.problems)
            return otherwise

    nobody: Credentials = Fixed()
    tls: dict[str, Tls] = {}
    credentials: dict[str, Credentials] = {}
    for number, each in enumerate(settings.upstream):
        key = f"upstream[{number}]"
        tls[each.name] = tried(partial(_tls, each, key), Tls())
        credentials[each.name] = tried(partial(_who, each, key, environ, clock), nobody)
    hooks = tried(partial(_secret, settings.hooks), "")
    admin = tried(partial(_admin, settings, clock), None)
    if settings.tls.certificate is not None:
        tried(partial(_certificate, settings), None)
    if problems:
        raise SettingsInvalid(problems)
    return Files(tls, credentials, hooks, admin)


def _who(each: UpstreamSettings, key: str, environ: Mapping[str, str], clock: Callable[[], float]) -> Credentials:
    """Return who we are to an upstream, or who we are not: nobody in particular, or each client."""
    if each.credentials in (None, "client"):
        return Fixed()
    from proxy.logins import logins  # noqa: PLC0415 - helpers and docker's files, memory that most don't need

    return logins(each, key, environ, clock)


def _certificate(settings: Settings) -> None:
    """Raise `SettingsInvalid` where the port's certificate can't be used."""
    from proxy.tls import context  # noqa: PLC0415 - the same

    context(settings.tls)


def _tls(settings: UpstreamSettings, key: str) -> Tls:
    """Return how to meet an upstream. Raises `SettingsInvalid` where a file can't be used."""
    others = _trust(settings, key)
    if settings.client_certificate is None:
        return Tls(others, others)
    own = _trust(settings, key) or ssl.create_default_context()
    try:
        own.load_cert_chain(settings.client_certificate, settings.client_key, password=_no_password)
    except OSError as error:  # ssl.SSLError is one
        reason = f"unusable, or not with its key: {_cause(error)}"
        where = f"{key}.client_certificate"
        raise SettingsInvalid([Problem(str(settings.client_certificate), where, reason)]) from None
    return Tls(own, others)


def _cause(error: OSError) -> str:
    """Say why a certificate can't be used, in OpenSSL's words or the system's."""
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(error.strerror or error).partition(" (_ssl")[0]


def _no_password() -> str:
    """Stand in for a terminal: a service can't be asked for the password of a key."""
    raise OSError("the key has a password")


def _trust(settings: UpstreamSettings, key: str) -> ssl.SSLContext | None:
    """Return how to check certificates, or None for the system's way."""
    if settings.ca_file is None and not settings.insecure_skip_verify:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise SettingsInvalid([Problem(str(settings.ca_file), f"{key}.ca_file", f"unusable: {error}")]) from None
    if settings.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _secret(settings: HooksSettings) -> str:
    """Return the secret that notifications must have; empty where none is configured."""
    if settings.secret is not None:
        return settings.secret.get_secret_value()
    if settings.secret_file is None:
        return ""
    try:
        return settings.secret_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"the file can't be read: {getattr(error, 'strerror', None) or type(error).__name__}"
        raise SettingsInvalid([Problem(str(settings.secret_file), "hooks.secret_file", reason)]) from None


def _admin(settings: Settings, clock: Callable[[], float]) -> Token | None:
    """Return the admin port's token, which follows its file."""
    path = settings.admin_token_file
    try:
        if settings.admin_token is not None:
            token = _not_empty(settings.admin_token.get_secret_value().encode())
            return Token(lambda: token)
        if path is None:
            return None
        watched = Watched(path, _not_empty, clock)
    except OSError as error:
        reason = f"the file can't be read: {error.strerror or type(error).__name__}"
        raise SettingsInvalid([Problem(str(path), "admin_token_file", reason)]) from None
    except ValueError as error:
        key = "admin_token" if path is None else "admin_token_file"
        raise SettingsInvalid([Problem(str(path or "configuration"), key, str(error))]) from None
    return Token(lambda: watched.content)


def _not_empty(data: bytes) -> str:
    """Read a token. Raises `ValueError`, which names no content."""
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("a token in UTF-8 was expected") from None
    if not text:
        raise ValueError("a token was expected, this is empty")
    return text
