"""S3: redirects carry no credential, and lead to no place that the upstream isn't at itself (CVE-2026-2376).

An upstream on loopback, as all are here, may name private neighbours. That one on a public address may not, by their
addresses or by names that stand for them, is in tests/upstream/test_guard.py and test_resolver.py, on the very parts
that every connection of this process goes through: no test may pretend to be at a public address.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from certificates import Authority
from images import X86
from proxy.oci.reference import Digest
from scripted import Origin, status
from security.conftest import StartProcess
from security.traps import ALICE, PASSING, SECRET, over_tls, trap, upstream
from upstream.peers import Tokens, basic_door

_LAYER = b"a layer"
_BLOB = f"/v2/kimoqi/alpine-x86/blobs/{Digest.of(_LAYER)}"
_MANIFEST = "/v2/kimoqi/alpine-x86/manifests/1.0"


async def test_another_origin_gets_no_credential(launch: StartProcess, origin: Origin, other: Origin) -> None:
    """Another port is another origin: neither `Authorization` nor a cookie goes there, whatever was said before."""
    other.registry.add_blob(X86, _LAYER)
    upstreams = [upstream(origin.url, f'blobs = "{each}"\n', name=each, alice=True) for each in ("stream", "cache")]
    process = await launch("".join(upstreams) + PASSING)
    for scheme in ("basic", "bearer"):
        origin.heal()
        moved = status(307, Location=f"{other.url}{_BLOB}?X-Sig=a%2Fb", Set_Cookie=f"session={SECRET}; Path=/")
        origin.fail("/blobs/", moved)
        basic_door(origin, ALICE) if scheme == "basic" else Tokens(origin)  # in front of the redirect
        for mode in ("stream", "cache"):
            answer = await process.get(f"/{mode}{_BLOB}", Authorization="Basic Y2xpZW50OnB3", Cookie="client=1")
            assert (answer.status, answer.body) == (200, _LAYER)

    assert other.requests
    for request in other.requests:
        assert not {"Authorization", "Cookie", "Proxy-Authorization"} & set(request.headers), request
        assert SECRET not in str(request.headers)
        assert request.query == "X-Sig=a%2Fb"
    assert "Y2xpZW50OnB3" not in str([request.headers for request in (*origin.requests, *other.requests)])


_NOWHERE = [
    "http://169.254.169.254/latest/meta-data",
    "http://2852039166/latest/meta-data",
    "http://0xa9fea9fe/latest/meta-data",
    "http://[::ffff:169.254.169.254]/latest/meta-data",
    "http://[64:ff9b::a9fe:a9fe]/latest/meta-data",
    "http://[2002:a9fe:a9fe::1]/latest/meta-data",
    "http://[fd00:ec2::254]/latest/meta-data",
    "http://100.100.100.200/latest/meta-data",
    "http://168.63.129.16/machine",
    "http://[fe80::1]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "ftp://127.0.0.1/x",
    "file:///etc/passwd",
    "http://[::1",
    "http://a:b@127.0.0.1:{port}/userinfo",
]


async def test_there_are_places_where_nobody_is_sent(launch: StartProcess, origin: Origin) -> None:
    """Metadata services, link-local addresses in all forms, whatever isn't http, loops: nor any client."""
    upstreams = upstream(origin.url) + upstream(origin.url, 'blobs = "redirect"\n', name="redirect")
    process = await launch(upstreams + PASSING)
    async with trap() as caught:
        for location in _NOWHERE:
            origin.heal()
            origin.fail(" /v2/", status(307, Location=location.format(port=caught.port)))
            for path in (f"/registry{_MANIFEST}", f"/registry{_BLOB}", f"/redirect{_BLOB}"):
                answer = await process.get(path)

                assert answer.status == 502, (location, path, answer)
                assert b"the upstream redirects to" in answer.body, (location, path, answer)
                assert "Location" not in answer.headers
        assert caught.caught == []
    hops: list[str] = []

    async def around(request: web.BaseRequest) -> web.StreamResponse:
        hops.append(request.path_qs)
        return web.Response(status=307, headers={"Location": f"{_BLOB}?hop={len(hops)}"})

    origin.fail("/blobs/", around)
    answer = await process.get(f"/registry{_BLOB}")

    assert answer.status == 502
    assert b"redirected more than 5 times" in answer.body
    assert len(hops) == 6


async def test_https_is_not_left(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """From https nobody is sent to http: not this process, and no client either."""
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    async with trap() as caught, over_tls(origin, authority, tmp_path) as url:
        keys = f'ca_file = "{tmp_path / "ca.pem"}"\n'
        upstreams = upstream(url, keys) + upstream(url, f'{keys}blobs = "redirect"\n', name="redirect")
        process = await launch(upstreams + PASSING)
        origin.fail(" /v2/", status(307, Location=f"http://127.0.0.1:{caught.port}/x"))
        for path in (f"/registry{_MANIFEST}", f"/registry{_BLOB}", f"/redirect{_BLOB}"):
            answer = await process.get(path)

            assert answer.status == 502, answer
            assert b"from https to http://" in answer.body
        assert caught.caught == []
