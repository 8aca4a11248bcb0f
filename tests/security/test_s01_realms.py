"""S1: credentials go to no token service that the upstream merely names (CVE-2026-33540, CVE-2026-48978).

What needs names of the public DNS is in tests/upstream/test_guard.py and test_resolver.py, on the same functions:
`auth.docker.io` for Docker Hub, look-alikes, other suffixes, and siblings that stand for a private address.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from certificates import Authority
from images import push_pair
from scripted import Origin, status
from security.conftest import StartProcess
from security.traps import PASSING, SECRET, over_tls, trap, upstream
from upstream.peers import Tokens, sent

_MANIFEST = "/v2/kimoqi/alpine-x86/manifests/1.0"


def challenged(origin: Origin, realm: str) -> None:
    """Let *origin* send everybody to a token service at *realm*."""

    async def door(request: web.BaseRequest) -> web.StreamResponse:
        challenge = f'Bearer realm="{realm}",service="tests"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    origin.fail(" /v2/", door)


async def test_a_realm_elsewhere_is_not_even_asked(launch: StartProcess, origin: Origin) -> None:
    """Other hosts, other ports, addresses, localhost, userinfo, look-alikes: nothing arrives anywhere."""
    async with trap() as caught:
        process = await launch(upstream(origin.url, alice=True) + PASSING)
        for realm in (
            f"http://127.0.0.1:{caught.port}/token",
            f"http://localhost:{caught.port}/token",
            f"http://[::1]:{caught.port}/token",
            f"http://[::ffff:127.0.0.1]:{caught.port}/token",
            f"http://127.1:{caught.port}/token",
            f"http://2130706433:{caught.port}/token",
            f"http://0x7f000001:{caught.port}/token",
            f"https://127.0.0.1:{caught.port}/token",
            f"http://127.0.0.1:{origin.address[1]}@127.0.0.1:{caught.port}/token",
            f"http://alice:pw@127.0.0.1:{origin.address[1]}/token",
            f"http://127.0.0.1:{origin.address[1]}\\@127.0.0.1:{caught.port}/token",
            f"http://127.0.0.1.evil-example.com:{caught.port}/token",
            f"//127.0.0.1:{caught.port}/token",
            f"127.0.0.1:{caught.port}/token",
            "http://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
        ):
            challenged(origin, realm)
            answer = await process.get(_MANIFEST)

            assert answer.status == 502, (realm, answer)
            assert b"token realm" in answer.body, (realm, answer)
        assert set(sent(origin)) == {None}

        challenged(origin, f"{origin.url}/token")
        origin.fail("GET /token", status(307, Location=f"http://127.0.0.1:{caught.port}/token"))
        assert (await process.get(_MANIFEST)).status == 502
        assert str(sent(origin)[-1]).startswith("Basic ")  # to its own origin, and no further
        assert caught.caught == []
    assert SECRET not in process.log


async def test_a_listed_realm_gets_the_credentials(launch: StartProcess, origin: Origin, other: Origin) -> None:
    """What the operator lists is used, and nothing beside it."""
    push_pair(origin.registry)
    service = Tokens(other)
    Tokens(origin, realm=f"{other.url}/token", valid=service.valid)
    process = await launch(upstream(origin.url, f'auth_realms = ["{other.url}"]\n', alice=True) + PASSING)

    assert (await process.get(_MANIFEST)).status == 200
    assert len(service.asked) == 1
    assert str(sent(other)[0]).startswith("Basic ")
    assert not any(str(header).startswith("Basic") for header in sent(origin))


async def test_https_is_not_left(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """A registry on https sends nobody to a token service on http, by the operator's word either."""
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    async with trap() as caught, over_tls(origin, authority, tmp_path) as url:
        realm = f"http://127.0.0.1:{caught.port}"
        keys = f'ca_file = "{tmp_path / "ca.pem"}"\nauth_realms = ["{realm}"]\n'
        process = await launch(upstream(url, keys, alice=True) + PASSING)
        challenged(origin, f"{realm}/token")

        answer = await process.get(_MANIFEST)

        assert answer.status == 502
        assert b"plain http" in answer.body
        assert caught.caught == []
        assert set(sent(origin)) == {None}
