"""S17: secrets are where they are needed, and nowhere that anybody reads: logs, metrics, errors, the process list."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import quote

import bcrypt
import pytest
from aiohttp import web
from click.testing import CliRunner

from images import ARM, push_pair
from process import Process
from proxy.cli import main
from proxy.settings.load import load
from scripted import Fault, Origin, html, reset, status
from security.conftest import StartProcess
from security.upstreams import TAG, pair
from signing import ISSUER, REALM, SERVICE, Service, access, rsa_key

_USER = "robot"
_PASSWORD = "planted-password-1"
_HOOK = "planted-hook-secret-2"
_CLIENT = "planted-client-3"
_TOKEN = "planted-token-4"
_SIGNED = "planted-signature-5"
_SPOKEN = (
    _PASSWORD,
    _HOOK,
    _CLIENT,
    _TOKEN,
    _SIGNED,
    base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode(),
    base64.b64encode(f"someone:{_CLIENT}".encode()).decode(),
)
_HELPER = 'credentials = { helper = "planted", helper_lifetime = "1ms" }'
_COMMAND = str(Path(sys.executable).with_name("manifuse"))


def _config(origin: Origin, **upstream: str) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in upstream.items())
    credentials = f'credentials = {{ username = "{_USER}", password = "{_PASSWORD}" }}\n'
    return f'log_level = "debug"\n{pair(origin, upstream=lines + credentials)}\n[hooks]\nsecret = "{_HOOK}"\n'


def _door(origin: Origin) -> Fault:
    """Ask for a token, which the origin gives for the password."""

    async def door(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.path == "/token":
            known = request.headers.get("Authorization") == f"Basic {_SPOKEN[5]}"
            return web.json_response(
                {"token": _TOKEN} if known else {"details": _PASSWORD}, status=200 if known else 401
            )
        if request.headers.get("Authorization") == f"Bearer {_TOKEN}":
            return None
        realm = f'Bearer realm="{origin.url}/token",service="{_SIGNED}"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})

    return door


def _hides(text: str, where: str) -> None:
    for secret in _SPOKEN:
        for form in (secret, quote(secret, safe=""), repr(secret)):
            assert form not in text, f"{where} tells {secret}:\n{text[:2000]}"


async def _ask_everything(process: Process) -> None:
    """Ask every route, as a client that has a secret of its own; no answer tells any."""
    basic = base64.b64encode(f"someone:{_CLIENT}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Cookie": f"session={_CLIENT}", "Proxy_Authorization": _CLIENT}
    digest = "sha256:" + "0" * 64
    repository = f"/v2/{ARM}"
    for path in (
        "/v2/",
        "/v2/_catalog",
        TAG,
        f"{repository}/manifests/{digest}",
        f"{repository}/blobs/{digest}",
        f"{repository}/tags/list?last={_CLIENT}&access_token={_CLIENT}",
        f"{repository}/referrers/{digest}?artifactType={_CLIENT}",
        f"/v2/kimoqi/none/manifests/1.0?ns=registry&password={_CLIENT}",
    ):
        for method in ("GET", "HEAD", "DELETE"):
            answer = await process.get(path, method, **headers)
            _hides(f"{sorted(answer.headers.items())}{answer.body!r}", f"the answer to {method} {path}")


async def _look_everywhere(process: Process) -> None:
    """Read what operators read."""
    for path in (
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/explain/kimoqi/alpine:1.0",
        "/explain/a:b:c",
        "/hooks/registry",
    ):
        answer = await process.page(path, Authorization=f"Bearer {_CLIENT}")
        _hides(f"{answer.headers}{answer.body!r}", path)
    for name in ("cmdline", "status", "comm"):
        _hides(_shown(process.process.pid, name), name)
    assert '"event": "request"' in process.log
    _hides(process.log, "the log")


def _shown(pid: int, name: str) -> str:
    """Return what the system shows of a process to everybody."""
    return Path(f"/proc/{pid}/{name}").read_text().replace("\0", " ")


def _troubles() -> dict[str, Fault]:
    """Return what upstreams do; those that can, say our own secrets back to us."""
    echo: dict[str, Any] = {"WWW_Authenticate": f'Basic realm="{_PASSWORD}"', "Content_Type": "application/json"}
    body = f'{{"errors":[{{"code":"DENIED","message":"bad password {_PASSWORD}, token {_TOKEN}"}}]}}'.encode()
    return {
        "401": status(401, body, **echo),
        "403": status(403, body, **echo),
        "429": status(429, body, Retry_After="1", **echo),
        "500": status(500, body, **echo),
        "418": status(418, body, **echo),
        "login page": html(),
        "text": status(200, body, Content_Type="text/plain"),
        "a foreign realm": status(401, WWW_Authenticate=f'Bearer realm="https://evil.example/?{_PASSWORD}"'),
        "a realm with a password": status(401, WWW_Authenticate=f'Bearer realm="https://u:{_PASSWORD}@evil.example/"'),
        "a private redirect": status(307, Location=f"http://169.254.169.254/?signature={_SIGNED}"),
        "a redirect with a password": status(307, Location=f"https://u:{_SIGNED}@cdn.example/"),
        "a redirect to nobody": status(307, Location=f"http://127.0.0.1:1/?signature={_SIGNED}"),
        "reset": reset(),
    }


@pytest.mark.parametrize("blobs", ["stream", "cache"])
async def test_nothing_tells_a_secret(launch: StartProcess, origin: Origin, blobs: str) -> None:
    """While all is well, and with every kind of trouble: no log line, metric, page, answer or process list."""
    push_pair(origin.registry)
    origin.fail("", _door(origin))
    process = await launch(_config(origin, blobs=f'"{blobs}"'))
    assert (await process.get(TAG)).status == 200
    assert any(request.headers.get("Authorization") == f"Bearer {_TOKEN}" for request in origin.requests)
    await _ask_everything(process)
    for fault in _troubles().values():
        origin.fail(" /v2/", fault)
        await _ask_everything(process)
        await _look_everywhere(process)
    origin.heal()
    await _look_everywhere(process)
    assert "internal error" not in process.log


async def test_events_keep_theirs(launch: StartProcess, origin: Origin) -> None:
    """A right and a wrong secret of a notification, and one that is posted to the wrong place."""
    push_pair(origin.registry)
    process = await launch(_config(origin))
    body = b'{"repository":"kimoqi/alpine-arm","tag":"1.0"}'
    for path, secret, expected in (
        ("/hooks/registry", _HOOK, 202),
        ("/hooks/registry", _CLIENT, 401),
        (f"/hooks/{_HOOK}", _HOOK, 404),
        ("/v2/", _HOOK, 405),
    ):
        at = process.url if path == "/v2/" else process.admin
        headers = {"Authorization": f"Bearer {secret}"}
        async with process.session.post(at.origin().join(at.with_path(path)), data=body, headers=headers) as answer:
            assert answer.status == expected, path
            _hides(await answer.text() if _HOOK not in path else "", path)
    _hides(process.log, "the log")


async def test_what_clients_log_in_with(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """Passwords and tokens of clients, right, wrong and misspelt, and the admin port's token, in each mode."""
    push_pair(origin.registry)
    hashed = bcrypt.hashpw(_CLIENT.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"someone:{hashed}\n")
    modes = {
        "htpasswd": ("", f'htpasswd = "{tmp_path / "htpasswd"}"'),
        "upstream": ('credentials = "client"', ""),
    }
    for mode, (upstream, keys) in modes.items():
        origin.heal()
        if mode == "upstream":
            origin.fail(" /v2/", _checking_password)
        top = f'log_level = "debug"\nadmin_token = "{_TOKEN}"\n'
        process = await launch(f'{top}{pair(origin, upstream=upstream)}[access]\nmode = "{mode}"\n{keys}\n')
        right, wrong = _SPOKEN[6], base64.b64encode(f"someone:{_CLIENT}!".encode()).decode()
        for given, expected in ((right, 200), (wrong, 401), (f"{right}!", 401), (_CLIENT, 401)):
            for scheme in ("Basic", "Bearer", "basic"):
                answer = await process.get(TAG, Authorization=f"{scheme} {given}")
                assert answer.status == (401 if scheme == "Bearer" else expected), (mode, scheme, given, answer)
                _hides(f"{answer.headers}{answer.body!r}", TAG)
        for given, expected in ((_TOKEN, 200), (_CLIENT, 401)):
            answer = await process.page("/metrics", Authorization=f"Bearer {given}")
            assert answer.status == expected
            _hides(answer.body.decode(), "/metrics")
        assert hashed not in process.log
        _hides(process.log, "the log")
        assert "internal error" not in process.log


async def _checking_password(request: web.BaseRequest) -> web.StreamResponse | None:
    if request.headers.get("Authorization") == f"Basic {_SPOKEN[6]}":
        return None
    return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})


async def test_commands_tell_none(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """`check` and `explain`, of a registry that refuses and says our own password back."""
    push_pair(origin.registry)
    origin.fail(" /v2/", _troubles()["403"])
    file = tmp_path / "commands.toml"
    file.write_text(f'{_config(origin)}\n[cache]\ndir = "{tmp_path / "commands"}"\n')
    runs = [["check", "--json"], ["explain", "kimoqi/alpine:1.0", "--json"], ["explain", "kimoqi/alpine:1.0"]]
    for arguments, output in zip(runs, await asyncio.gather(*(_run(run, file) for run in runs)), strict=True):
        assert "registry" in output or '"ok": true' in output, output
        _hides(output, " ".join(arguments))
    settings = load(file)
    _hides(f"{settings!r}{settings}{settings.model_dump()}", "the settings")


async def _run(arguments: list[str], file: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        _COMMAND, *arguments, "--config", str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode()


def test_wrong_configurations_tell_none(tmp_path: Path) -> None:
    """What is wrong with a configuration is told without what is secret in it."""
    good = _config(Origin(address=("127.0.0.1", 5000)))
    wrong = {
        "userinfo": good.replace("http://", f"http://u:{_PASSWORD}@"),
        "misspelled": good.replace("password =", "pasword =").replace("secret =", "secrett ="),
        "two of them": good.replace("secret =", "secret_file = 5\nsecret ="),
        "of another type": good.replace(f'"{_PASSWORD}"', f'["{_PASSWORD}"]').replace(
            f'"{_HOOK}"', f'{{a = "{_HOOK}"}}'
        ),
        "no TOML": good.replace(f'"{_PASSWORD}"', f'"{_PASSWORD}'),
        "in the wrong place": good.replace('url = "', f'url = "{_PASSWORD}'),
    }
    file = tmp_path / "manifuse.toml"
    for name, config in wrong.items():
        file.write_text(config)
        for arguments in (["check"], ["check", "--json"], ["explain", "a:1"], ["serve"]):
            result = CliRunner().invoke(main, [*arguments, "--config", str(file)])
            assert result.exit_code == 2, (name, result.output)
            _hides(f"{result.output}{result.stderr}", f"{arguments} of {name}")


async def test_what_a_token_says(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """A good one, one that nobody has signed, and one in a place where none belongs: no word and no part of them."""
    push_pair(origin.registry)
    service = Service(rsa_key())
    keys = service.publish(tmp_path / "key.pem")
    token = f'[access.token]\nrealm = "{REALM}"\nservice = "{SERVICE}"\nissuer = "{ISSUER}"\nkeys = ["{keys}"]\n'
    process = await launch(f'log_level = "debug"\n{pair(origin)}\n[access]\nmode = "token"\n{token}')
    granted = access("kimoqi/alpine")
    good = service.token(time(), granted, jti=_CLIENT)
    forged = Service(rsa_key("another")).token(time(), granted, jti=_CLIENT)
    for given, expected in ((good, 200), (forged, 401), (f"{good}x", 401), (good.replace(".", ". "), 401)):
        answer = await process.get(TAG, Authorization=f"Bearer {given}")
        assert answer.status == expected
        for part in (_CLIENT, *given.split(".")[1:]):
            assert part not in f"{answer.headers}{answer.body!r}{process.log}"
    assert "internal error" not in process.log


async def test_what_a_helper_says(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """What it prints is in no log, not even when it fails, and what it is told is no argument of its."""
    push_pair(origin.registry)
    origin.fail("", _door(origin))
    folder = tmp_path / "bin"
    folder.mkdir()
    helper = folder / "docker-credential-planted"
    helper.write_text(
        "#!/bin/sh\n[ $# = 1 ] || exit 3\n"
        f"echo 'failed with {_PASSWORD}' >&2\n[ -e {tmp_path}/broken ] && exit 1\n"
        f'echo \'{{"Username": "{_USER}", "Secret": "{_PASSWORD}"}}\'\n'
    )
    helper.chmod(0o755)
    config = f'log_level = "debug"\n{pair(origin, upstream=_HELPER)}'
    process = await launch(config, {"PATH": f"{folder}:{os.environ['PATH']}"})
    first = await process.get(TAG)
    assert first.status == 200, process.log
    (tmp_path / "broken").touch()
    origin.fail(" /v2/", status(401, WWW_Authenticate="Basic realm=x"))
    assert (await process.get("/v2/kimoqi/alpine/manifests/2.0")).status >= 400
    await _look_everywhere(process)
