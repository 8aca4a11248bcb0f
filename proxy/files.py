"""The files that settings name: certificates, passwords, secrets. All are read at once, and told of at once."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from proxy.settings.keys import CredentialSettings, HooksSettings, Settings, UpstreamSettings
from proxy.settings.load import Problem, SettingsInvalid
from proxy.upstream.credentials import Credential, from_docker_config, from_file

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Files:
    """What stands in them, by upstream.

    Attributes:
        tls: How to check certificates, None for the system's way.
        credentials: Who we are there, None for nobody in particular.
        hooks: The secret that notifications must have; empty where none is configured.
    """

    tls: Mapping[str, ssl.SSLContext | None]
    credentials: Mapping[str, Credential | None] = field(repr=False)
    hooks: str = field(repr=False)


def read(settings: Settings, environ: Mapping[str, str]) -> Files:
    """Read all files that *settings* name. Raises `SettingsInvalid` with the problems of all of them."""
    problems: list[Problem] = []

    def tried(work: Callable[[], Read], otherwise: Read) -> Read:
        try:
            return work()
        except SettingsInvalid as invalid:
            problems.extend(invalid.problems)
            return otherwise

    tls, credentials = {}, {}
    for number, each in enumerate(settings.upstream):
        key = f"upstream[{number}]"
        tls[each.name] = tried(partial(_tls, each, key), None)
        credentials[each.name] = tried(partial(_credential, each, key, environ), None)
    hooks = tried(partial(_secret, settings.hooks), "")
    if problems:
        raise SettingsInvalid(problems)
    return Files(tls, credentials, hooks)


def _tls(settings: UpstreamSettings, key: str) -> ssl.SSLContext | None:
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


def _credential(settings: UpstreamSettings, key: str, environ: Mapping[str, str]) -> Credential | None:
    match settings.credentials:
        case CredentialSettings(username=username, password=password, password_file=path):
            if password is not None:
                return Credential(username, password.get_secret_value())
            try:
                return from_file(username, path or Path())
            except (OSError, UnicodeDecodeError) as error:
                reason = f"the file can't be read: {type(error).__name__}"
                raise SettingsInvalid([Problem(str(path), f"{key}.credentials.password_file", reason)]) from None
        case "docker-config":
            try:
                return from_docker_config(settings.url, environ, Path(environ.get("HOME") or "/"))
            except ValueError as error:
                raise SettingsInvalid([Problem("docker-config", f"{key}.credentials", str(error))]) from None
        case _:
            return None


def _secret(settings: HooksSettings) -> str:
    """Return the secret that notifications must have; empty where none is configured."""
    if settings.secret is not None:
        return settings.secret.get_secret_value()
    if settings.secret_file is None:
        return ""
    try:
        return settings.secret_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"the file can't be read: {type(error).__name__}"
        raise SettingsInvalid([Problem(str(settings.secret_file), "hooks.secret_file", reason)]) from None
