"""Who we are, from the settings down to what is sent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from conftest import Clock
from proxy.logins import logins
from proxy.oci.reference import Repository
from proxy.settings.keys import UpstreamSettings
from proxy.settings.load import SettingsInvalid
from proxy.upstream.credentials import Credential, Credentials, IdentityToken, Login

APP = Repository("team/app")
CONFIG = orjson.dumps({"auths": {"registry.example": {"username": "docker", "password": "pw"}}})


def read(credentials: Any, clock: Clock, environ: Mapping[str, str] | None = None) -> Credentials:
    """Read what settings say."""
    document = {"name": "main", "url": "https://registry.example", "credentials": credentials}
    return logins(UpstreamSettings.model_validate(document), "upstream[0]", environ or {}, clock)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"username": "alice", "password": "pw"}, Credential("alice", "pw")),
        ({"username": "alice", "password_file": "FOLDER/secret"}, Credential("alice", "of a file")),
        ({"username": "alice", "password_env": "PASSWORD"}, Credential("alice", "of the environment")),
        ({"identity_token": "refresh"}, IdentityToken("refresh")),
        ({"identity_token": "refresh", "username": "alice"}, IdentityToken("refresh", "alice")),
        ({"identity_token_file": "FOLDER/secret"}, IdentityToken("of a file")),
        ({"docker_config": "FOLDER/config.json"}, Credential("docker", "pw")),
        ("docker-config", Credential("docker", "pw")),
        (None, None),
        ([], None),
        ([{"match": "other/*", "identity_token": "x"}], None),
        (
            [{"match": "other/*", "identity_token": "x"}, {"match": "team/*", "username": "bob", "password": "pw"}],
            Credential("bob", "pw"),
        ),
    ],
)
async def test_every_way_leads_to_a_login(tmp_path: Path, clock: Clock, table: Any, expected: Login | None) -> None:
    """Whatever the settings name is read at the start."""
    (tmp_path / "secret").write_text("of a file\n")
    (tmp_path / "config.json").write_bytes(CONFIG)
    environ = {"PASSWORD": "of the environment", "DOCKER_CONFIG": str(tmp_path)}
    written = orjson.loads(orjson.dumps(table).replace(b"FOLDER", str(tmp_path).encode()))

    assert await read(written, clock, environ).of(APP) == expected


async def test_docker_s_own_file_is_at_home(tmp_path: Path, clock: Clock) -> None:
    """Without `DOCKER_CONFIG`; and where nobody has logged in there is nobody."""
    credentials = read("docker-config", clock, {"HOME": str(tmp_path)})
    assert await credentials.of(APP) is None
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_bytes(CONFIG)
    clock.advance(2)

    assert await credentials.of(APP) == Credential("docker", "pw")


@pytest.mark.parametrize("named", ["helper", "docker_config"])
async def test_a_helper_is_asked(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """By its own key, and where a docker configuration names it."""
    program = tmp_path / "docker-credential-test"
    program.write_text("""#!/bin/sh\nread server; echo "{\\"Username\\": \\"$server\\", \\"Secret\\": \\"pw\\"}"\n""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config = tmp_path / "config.json"
    config.write_bytes(orjson.dumps({"credsStore": "test"}))
    table = {"helper": "test"} if named == "helper" else {"docker_config": str(config)}

    assert await read(table, clock).of(APP) == Credential("registry.example", "pw")


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"username": "a", "password_file": "F/none"}, "F/none: KEY.password_file: the file can't be read: No such f"),
        ({"username": "a", "password_file": "F"}, "F: KEY.password_file: the file can't be read: Is a directory"),
        ({"username": "a", "password_file": "F/empty"}, "F/empty: KEY.password_file: the file can't be used: it is e"),
        ({"username": "a", "password_env": "NONE"}, "NONE: KEY.password_env: there is no such environment variable"),
        ({"identity_token_file": "F/none"}, "F/none: KEY.identity_token_file: the file can't be read: No such fil"),
        ({"docker_config": "F/none"}, "F/none: KEY.docker_config: the file can't be read: No such file or d"),
        ({"docker_config": "F/config.json"}, "F/config.json: KEY.docker_config: the file can't be used: it is not do"),
        ("docker-config", "F/config.json: KEY: the file can't be used: it is not docker's configuration"),
    ],
)
def test_what_can_not_be_used_stops_the_start(tmp_path: Path, clock: Clock, table: Any, problem: str) -> None:
    """With the file and its key, and nothing of what stands in it."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "config.json").write_text("planted-secret")
    written = orjson.loads(orjson.dumps(table).replace(b'"F', b'"' + str(tmp_path).encode()))

    with pytest.raises(SettingsInvalid) as caught:
        read(written, clock, {"DOCKER_CONFIG": str(tmp_path)})
    expected = (
        problem.replace("F/", f"{tmp_path}/").replace("F:", f"{tmp_path}:").replace("KEY", "upstream[0].credentials")
    )
    assert str(caught.value).startswith(expected)
    assert "planted-secret" not in str(caught.value)


def test_all_problems_are_told(clock: Clock) -> None:
    """Of several tables, each with its place."""
    tables = [{"username": "a", "password_env": name} for name in ("ONE", "TWO")]

    with pytest.raises(SettingsInvalid) as caught:
        read(tables, clock)
    assert [each.key for each in caught.value.problems] == [
        "upstream[0].credentials[0].password_env",
        "upstream[0].credentials[1].password_env",
    ]
