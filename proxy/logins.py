"""Who we are to each upstream, from what settings say and the files, variables and helpers that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from proxy.settings.keys import CredentialSettings, UpstreamSettings
from proxy.settings.load import Problem, SettingsInvalid
from proxy.upstream import dockerconfig
from proxy.upstream.credentials import ByRepository, Credential, Credentials, Fixed, IdentityToken, Kept, Login, secret
from proxy.upstream.helper import Helper, Manners
from proxy.watched import Watched

Read = TypeVar("Read")


def logins(upstream: UpstreamSettings, key: str, environ: Mapping[str, str], clock: Callable[[], float]) -> Credentials:
    """Return who we are to *upstream*, whose place in the configuration is *key*.

    Args:
        clock: Seconds that never go backwards; files are read again when they change.

    Raises:
        SettingsInvalid: With the problems of all files and variables that can't be used.
    """
    reader = _Reader(upstream, environ, clock)
    if upstream.credentials == "docker-config":
        return reader.docker_login(f"{key}.credentials")
    choices: list[tuple[str, Credentials]] = []
    problems: list[Problem] = []
    for where, table in upstream.credential_tables:
        try:
            choices.append((table.match, reader.table(table, f"{key}.{where}")))
        except SettingsInvalid as invalid:
            problems.extend(invalid.problems)
    if problems:
        raise SettingsInvalid(problems)
    return ByRepository(choices)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads what says who we are to one upstream."""

    upstream: UpstreamSettings
    environ: Mapping[str, str]
    clock: Callable[[], float]

    def table(self, table: CredentialSettings, key: str) -> Credentials:
        """Return what one table means; *key* is its place in the configuration."""
        match table:
            case CredentialSettings(password=password) if password is not None:
                return Fixed(Credential(table.username, password.get_secret_value()))
            case CredentialSettings(password_file=Path() as path):
                return Kept(self._file(path, f"{key}.password_file", partial(_password, table.username)))
            case CredentialSettings(password_env=str() as name):
                return Fixed(Credential(table.username, self._variable(name, f"{key}.password_env")))
            case CredentialSettings(identity_token=token) if token is not None:
                return Fixed(IdentityToken(token.get_secret_value(), table.username))
            case CredentialSettings(identity_token_file=Path() as path):
                return Kept(self._file(path, f"{key}.identity_token_file", partial(_identity, table.username)))
            case CredentialSettings(docker_config=Path() as path):
                return self._docker(path, f"{key}.docker_config", self._manners(table))
            case CredentialSettings(helper=str() as name):
                return self._helper(self._manners(table), name)
            case _:
                raise AssertionError("a table without any way is refused before")

    def docker_login(self, key: str) -> Credentials:
        """Return what docker itself would use; without a file, nothing."""
        folder = Path(self.environ.get("DOCKER_CONFIG") or Path(self.environ.get("HOME") or "/") / ".docker")
        return self._docker(folder / "config.json", key, self._manners(CredentialSettings()), dockerconfig.Logins())

    def _docker(self, path: Path, key: str, manners: Manners, absent: dockerconfig.Logins | None = None) -> Credentials:
        file = self._file(path, key, partial(dockerconfig.read, self.upstream.url), absent)
        return dockerconfig.DockerConfig(file, partial(self._helper, manners, optional=True))

    def _helper(self, manners: Manners, name: str, *, optional: bool = False) -> Helper:
        return Helper(name, self.upstream.name, dockerconfig.server(self.upstream.url), manners, optional=optional)

    def _manners(self, table: CredentialSettings) -> Manners:
        return Manners(timeout=table.helper_timeout, lifetime=table.helper_lifetime, clock=self.clock)

    def _variable(self, name: str, key: str) -> str:
        if not self.environ.get(name):
            raise SettingsInvalid([Problem(name, key, "there is no such environment variable, or it is empty")])
        return self.environ[name]

    def _file(self, path: Path, key: str, means: Callable[[bytes], Read], absent: Read | None = None) -> Watched[Read]:
        try:
            return Watched(path, means, self.clock, absent)
        except OSError as error:
            reason = f"the file can't be read: {error.strerror or type(error).__name__}"
        except ValueError as error:
            reason = f"the file can't be used: {error}"
        raise SettingsInvalid([Problem(str(path), key, reason)])


def _password(username: str, content: bytes) -> Login:
    return Credential(username, secret(content))


def _identity(username: str, content: bytes) -> Login:
    return IdentityToken(secret(content), username)
