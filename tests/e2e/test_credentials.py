"""A private registry for real: every way to say who we are, pushed and pulled with."""

import os
import time
from pathlib import Path

import pytest

from e2e import wire
from e2e.manifuse import StartProxy
from e2e.peers import Client, Registry

_OCI = "application/vnd.oci.image.manifest.v1+json"


def push(registry: str, repository: str) -> bytes:
    """Push an artifact with an empty layer through the proxy. Returns its manifest."""
    digest = wire.push_blob(registry, repository, b"{}")
    described = f'{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{digest}","size":2}}'
    body = f'{{"schemaVersion":2,"mediaType":"{_OCI}","config":{described},"layers":[{described}]}}'.encode()
    wire.push_manifest(registry, repository, "1.0", body, _OCI)
    return body


@pytest.fixture
def logged_in(private_registry: Registry, skopeo: Client, tmp_path: Path) -> Path:
    """A docker configuration that a real client has written."""
    account, path = private_registry.account, tmp_path / "config.json"
    assert account is not None
    login = ("--username", account.username, "--password", account.password, "--tls-verify=false")
    skopeo("login", "--authfile", str(path), *login, private_registry.address)
    return path


def helper(folder: Path, private_registry: Registry) -> None:
    """Write a credential helper that knows this registry, to be found on the path."""
    account, program = private_registry.account, folder / "docker-credential-e2e"
    assert account is not None
    answer = f'{{"ServerURL":"%s","Username":"{account.username}","Secret":"{account.password}"}}'
    known = f'[ "$1 $server" = "get {private_registry.address}" ]'
    not_found = 'echo "credentials not found in native keychain"; exit 1'
    program.write_text(f"#!/bin/sh\nread -r server\n{known} || {{ {not_found}; }}\nprintf '{answer}' \"$server\"\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    "credentials",
    [
        'credentials = { helper = "e2e" }',
        'credentials = { docker_config = "FOLDER/config.json" }',
        'credentials = { docker_config = "FOLDER/store.json" }',
        'credentials = [{ match = "other/**", identity_token = "x" }, { match = "**", helper = "e2e" }]',
    ],
    ids=["a helper", "a login", "a store", "several"],
)
def test_a_private_registry_is_pushed_to_and_pulled_from(
    private_registry: Registry,
    logged_in: Path,
    start_proxy: StartProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    credentials: str,
) -> None:
    """Whoever comes through the proxy needs no account; who doesn't is refused."""
    helper(tmp_path, private_registry)
    (tmp_path / "store.json").write_text('{"credsStore": "e2e"}')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    mine = credentials.replace("FOLDER", str(logged_in.parent))
    proxy = start_proxy(f'[[upstream]]\nname = "private"\nurl = "{private_registry.url}"\npush = true\n{mine}\n')
    repository = f"team/app{len(credentials)}"

    body = push(proxy.address, repository)

    assert wire.manifest(proxy.address, repository, "1.0").body == body
    assert wire.manifest(private_registry.address, repository, "1.0").status == 401


def test_a_login_that_comes_later_counts(
    private_registry: Registry, logged_in: Path, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """Refused at first; a client logs in, and the same process is told that there is no such image."""
    path = tmp_path / "mounted.json"
    path.write_text('{"auths": {}}')
    login = f'credentials = {{ docker_config = "{path}" }}'
    proxy = start_proxy(f'[[upstream]]\nname = "private"\nurl = "{private_registry.url}"\n{login}\n')
    assert wire.manifest(proxy.address, "team/none", "1.0").status == 403
    logged_in.rename(path)
    deadline = time.monotonic() + 20

    while (status := wire.manifest(proxy.address, "team/none", "1.0").status) != 404:
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
