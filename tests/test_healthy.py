"""The image's health check: where it asks, and what it makes of the answer."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from certificates import Authority
from conftest import Clock
from proxy.app import serve
from proxy.healthy import main, where
from proxy.settings.keys import Settings
from proxy.settings.load import load
from scripted import Origin


@pytest.mark.parametrize(
    ("document", "environ", "expected"),
    [
        ({}, {}, ("127.0.0.1", 5081, False)),
        ({"admin_listen": "10.0.0.1:81"}, {}, ("10.0.0.1", 81, False)),
        ({"admin_listen": "10.0.0.1:81"}, {"MANIFUSE_ADMIN_LISTEN": "0.0.0.0:82"}, ("127.0.0.1", 82, False)),
        ({}, {"MANIFUSE_ADMIN_LISTEN": ":82"}, ("127.0.0.1", 82, False)),
        ({}, {"MANIFUSE_ADMIN_LISTEN": "[::]:82"}, ("::1", 82, False)),
        ({"tls": {"admin": True}}, {}, ("127.0.0.1", 5081, True)),
        ({"tls": {"admin": True}}, {"MANIFUSE_TLS__ADMIN": "false"}, ("127.0.0.1", 5081, False)),
        ({"tls": "no section"}, {"MANIFUSE_TLS__ADMIN": "True"}, ("127.0.0.1", 5081, True)),
    ],
)
def test_it_asks_where_the_service_listens(
    document: dict[str, Any], environ: dict[str, str], expected: tuple[str, int, bool]
) -> None:
    """The environment wins over the file, and all interfaces are asked on loopback."""
    assert where(document, environ) == expected


def test_without_a_word_both_mean_the_same() -> None:
    """The default is the service's."""
    settings = load(None)

    assert where({}, {}) == (*settings.admin_listen, settings.tls.admin)


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_it_says_whether_the_service_answers(
    origin: Origin, tmp_path: Path, clock: Clock, *, secure: bool
) -> None:
    """By the address and the scheme that it has, with a certificate for other names."""
    settings: dict[str, Any] = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "cache": {"dir": tmp_path}}
    if secure:
        certificate, key = Authority().server("proxy.example").write(tmp_path)
        settings["tls"] = {"certificate": certificate, "key": key, "admin": True}
    upstream = {"name": "origin", "url": origin.url}
    async with serve(Settings.model_validate({**settings, "upstream": [upstream]}), clock) as running:
        file = tmp_path / "manifuse.toml"
        file.write_text('admin_listen = "{}:{}"\n'.format(*running.admin) + f"[tls]\nadmin = {str(secure).lower()}\n")
        there = await asyncio.to_thread(main, [str(file)], {})
        moved = await asyncio.to_thread(main, ["/nowhere"], {"MANIFUSE_CONFIG": str(file)})
        file.write_text(file.read_text().replace(str(secure).lower(), str(not secure).lower()))
        misled = await asyncio.to_thread(main, [str(file)], {})
    gone = await asyncio.to_thread(main, [str(file)], {})

    assert (there, moved, misled, gone) == (0, 0, 1, 1)


async def test_probes_need_no_client_certificate(origin: Origin, tmp_path: Path, clock: Clock) -> None:
    """Neither Kubernetes' nor the image's can show one; whoever wants the other pages has to, where it is required."""
    authority = Authority()
    certificate, key = authority.server().write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    tls = {"certificate": certificate, "key": key, "client_ca": tmp_path / "ca.pem", "client_auth": "required"}
    ports = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "cache": {"dir": tmp_path / "cache"}}
    upstream = {"name": "origin", "url": origin.url}
    settings = Settings.model_validate({**ports, "tls": {**tls, "admin": True}, "upstream": [upstream]})
    pages = ("/healthz", "/readyz", "/metrics", "/explain/a:1", "/hooks/origin")
    async with serve(settings, clock) as running:
        file = tmp_path / "manifuse.toml"
        file.write_text('admin_listen = "{}:{}"\n[tls]\nadmin = true\n'.format(*running.admin))
        checked = await asyncio.to_thread(main, [str(file)], {})

        async def answers(trust: ssl.SSLContext) -> list[int]:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
                return [(await session.get("https://{}:{}{}".format(*running.admin, page))).status for page in pages]

        without = await answers(authority.trusting())
        shown = await answers(authority.trusting(authority.client("node").write(tmp_path / "client")))
        theirs = authority.trusting(Authority().client("node").write(tmp_path / "theirs"))
        with pytest.raises(aiohttp.ClientError):
            await answers(theirs)
        with pytest.raises(aiohttp.ClientError):
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.trusting())) as session:
                await session.get("https://{}:{}/v2/".format(*running.registry))

    assert checked == 0
    assert without == [200, 200, 403, 403, 403]
    assert shown[:3] == [200, 200, 200]
    assert 403 not in shown


def test_it_costs_next_to_nothing() -> None:
    """Nothing of what reads a configuration, asks or answers is loaded."""
    loaded = "import sys, proxy.healthy; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-Ic", loaded], capture_output=True, text=True, check=True).stdout

    assert set(found.split()) & {"pydantic", "aiohttp", "click", "uvloop"} == set()
