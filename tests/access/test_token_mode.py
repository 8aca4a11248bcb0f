"""access.mode = "token": the distribution token protocol, tokens verified by configured keys (S12)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.utils import base64url_encode
from yarl import URL

from conftest import Clock, Proxy, StartProxy
from images import push, push_pair
from private import basic
from proxy.access.keys import read_keys
from proxy.access.tokens import Terms, Tokens
from proxy.watched import Watched
from scripted import Origin
from signing import ISSUER, REALM, SERVICE, Service, access, rsa_key

TAG = "/v2/kimoqi/alpine/manifests/1.0"
GRANTED = access("kimoqi/alpine")


@pytest.fixture
def service() -> Service:
    """The token service that is configured."""
    return Service(rsa_key())


@pytest.fixture
def keys(service: Service, tmp_path: Path) -> Path:
    """Its public key."""
    return service.publish(tmp_path / "key.pem")


@pytest.fixture
async def proxy(origin: Origin, other: Origin, start: StartProxy, rule: dict[str, Any], keys: Path) -> Proxy:
    """A proxy in front of two registries with the same name."""
    push_pair(origin.registry)
    push(other.registry, "kimoqi/alpine")
    token = {"realm": REALM, "service": SERVICE, "issuer": ISSUER, "keys": [keys]}
    return await start(origin, other, rule=[rule], upstream={"push": True}, access={"mode": "token", "token": token})


async def status(proxy: Proxy, token: str, path: str = TAG, method: str = "GET") -> int:
    """Ask with a token."""
    return (await proxy.get(path, method, Authorization=f"Bearer {token}")).status


@pytest.mark.parametrize(
    ("path", "method", "scope"),
    [
        ("/v2/", "GET", ""),
        ("/v2/_catalog", "GET", ""),
        (TAG, "GET", "repository:kimoqi/alpine:pull"),
        (TAG, "PUT", "repository:kimoqi/alpine:pull,push"),
        (TAG, "DELETE", "repository:kimoqi/alpine:pull,push,delete"),
        ("/v2/kimoqi/alpine/blobs/uploads/", "POST", "repository:kimoqi/alpine:pull,push"),
        ("/v2/kimoqi/alpine/tags/list?ns=origin1", "GET", "repository:origin1/kimoqi/alpine:pull"),
        ("/v2/origin1/kimoqi/alpine/tags/list", "GET", "repository:origin1/kimoqi/alpine:pull"),
        ("/origin1/v2/kimoqi/alpine/tags/list", "GET", "repository:origin1/kimoqi/alpine:pull"),
        ("/v2/kimoqi/alpine/tags/list?ns=nobody", "GET", ""),
    ],
)
@pytest.mark.parametrize("who", [None, basic("alice")])
async def test_a_stranger_is_told_what_to_get(
    proxy: Proxy, origin: Origin, path: str, method: str, scope: str, who: str | None
) -> None:
    """Where a token is to be had and what it has to be for; nobody is asked, nothing is told of what there is."""
    answer = await proxy.get(path, method, **({"Authorization": who} if who else {}))
    assert answer.status == 401
    wanted = f'Bearer realm="{REALM}",service="{SERVICE}"' + (f',scope="{scope}"' if scope else "")
    assert answer.headers["WWW-Authenticate"] == wanted
    assert orjson.loads(answer.body)["errors"][0]["code"] == "UNAUTHORIZED"
    assert origin.requests == []


async def test_a_token_lets_its_bearer_pull(proxy: Proxy, service: Service, clock: Clock) -> None:
    """What it names, and nothing else: that needs another token, which the challenge asks for."""
    token = service.token(clock(), GRANTED)
    assert await status(proxy, token, "/v2/") == 200
    assert await status(proxy, token) == 200
    refused = await proxy.get("/v2/kimoqi/alpine-x86/manifests/1.0", Authorization=f"Bearer {token}")
    assert refused.status == 401
    assert 'scope="repository:kimoqi/alpine-x86:pull"' in refused.headers["WWW-Authenticate"]
    assert await status(proxy, token, "/v2/kimoqi/alpine/blobs/uploads/", "POST") == 401
    pushing = service.token(clock(), access("kimoqi/alpine", "pull", "push"))
    assert await status(proxy, pushing, "/v2/kimoqi/alpine/blobs/uploads/", "POST") == 202


async def test_a_name_means_one_upstream(proxy: Proxy, service: Service, clock: Clock) -> None:
    """The same repository elsewhere is another one, however it is addressed."""
    here, there = service.token(clock(), GRANTED), service.token(clock(), access("origin1/kimoqi/alpine"))
    for path in ("/v2/origin1/kimoqi/alpine/manifests/1.0", f"{TAG}?ns=origin1", f"/origin1{TAG}"):
        assert await status(proxy, here, path) == 401
        assert await status(proxy, there, path) == 200
    assert await status(proxy, there) == 401


async def test_a_catalog_shows_what_the_token_names(proxy: Proxy, service: Service, clock: Clock) -> None:
    """What else there is isn't theirs to know."""
    answer = await proxy.get("/v2/_catalog", Authorization=f"Bearer {service.token(clock(), GRANTED)}")
    assert orjson.loads(answer.body) == {"repositories": ["kimoqi/alpine"]}


BAD: dict[str, Callable[[Service, float], str]] = {
    "another key": lambda service, now: Service(rsa_key("other")).token(now, GRANTED),
    "another service": lambda service, now: service.token(now, GRANTED, aud="other"),
    "no service": lambda service, now: service.token(now, GRANTED, aud=None),
    "another issuer": lambda service, now: service.token(now, GRANTED, iss="other"),
    "no issuer": lambda service, now: service.token(now, GRANTED, iss=None),
    "expired": lambda service, now: service.token(now, GRANTED, exp=int(now) - 11),
    "without an end": lambda service, now: service.token(now, GRANTED, exp=None),
    "an end that is text": lambda service, now: service.token(now, GRANTED, exp="never"),
    "an end that is infinite": lambda service, now: service.token(now, GRANTED, exp=float("inf")),
    "an end that no number holds": lambda service, now: service.token(now, GRANTED, exp=10**400),
    "not yet": lambda service, now: service.token(now, GRANTED, nbf=int(now) + 11),
    "from the future": lambda service, now: service.token(now, GRANTED, iat=int(now) + 11),
    "a kid that nobody knows": lambda service, now: service.token(now, GRANTED, headers={"kid": "nobody"}),
    "cut": lambda service, now: service.token(now, GRANTED)[:-4],
    "another payload": lambda service, now: _with_payload(service.token(now, GRANTED), now),
    "unsigned": lambda service, now: _unsigned(now, "none"),
    "unsigned in capitals": lambda service, now: _unsigned(now, "NONE"),
    "critical": lambda service, now: service.token(now, GRANTED, headers={"crit": ["exp"]}),
    "nothing": lambda service, now: "..",
    "not even that": lambda service, now: "x",
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_token_is_none(proxy: Proxy, origin: Origin, service: Service, clock: Clock, kind: str) -> None:
    """It isn't let in with an error of ours, and the answer doesn't repeat it."""
    token = BAD[kind](service, clock())
    answer = await proxy.get(TAG, Authorization=f"Bearer {token}")
    assert answer.status == 401
    assert token not in answer.body.decode() or len(token) < 3
    assert origin.requests == []


def _with_payload(token: str, now: float) -> str:
    head, _, signature = token.split(".")
    claims = {"iss": ISSUER, "aud": SERVICE, "exp": now + 300, "access": [access("kimoqi/alpine", "push")]}
    return f"{head}.{base64url_encode(orjson.dumps(claims)).decode()}.{signature}"


def _unsigned(now: float, algorithm: str) -> str:
    head = base64url_encode(orjson.dumps({"alg": algorithm, "typ": "JWT"})).decode()
    return _with_payload(f"{head}.x.", now)


@pytest.mark.parametrize(
    "access_claim",
    [
        None,
        {},
        "repository:kimoqi/alpine:pull",
        [1, None, "x", {}],
        [{"type": "repository", "name": "kimoqi/alpine"}],
        [{"type": "registry", "name": "kimoqi/alpine", "actions": ["*"]}],
        [{"type": "repository", "name": "KIMOQI/alpine", "actions": ["pull"]}],
        [{"type": "repository", "name": "kimoqi/*", "actions": ["pull"]}],
        [{"type": "repository", "name": "../kimoqi/alpine", "actions": ["pull"]}],
        [{"type": "repository", "name": "unknown.example/kimoqi/alpine", "actions": ["pull"]}],
        [{"type": "repository", "name": "kimoqi/alpine", "actions": "pull"}],
        [{"type": "repository", "name": "kimoqi/alpine", "actions": ["Pull", 1]}],
    ],
)
async def test_what_cannot_be_read_grants_nothing(
    proxy: Proxy, service: Service, clock: Clock, access_claim: Any
) -> None:
    """The token is good, what it grants isn't."""
    token = service.token(clock(), access=access_claim)
    assert await status(proxy, token, "/v2/") == 200
    assert await status(proxy, token) == 401


async def test_a_token_ends(proxy: Proxy, service: Service, clock: Clock) -> None:
    """Also one that was verified before, and hot answers with it."""
    token = service.token(clock(), GRANTED, exp=int(clock()) + 20)
    assert [await status(proxy, token) for _ in range(3)] == [200] * 3
    clock.advance(29)
    assert await status(proxy, token) == 200
    clock.advance(2)
    assert await status(proxy, token) == 401


async def test_a_key_that_is_gone_counts_no_more(proxy: Proxy, service: Service, keys: Path, clock: Clock) -> None:
    """Tokens of it are refused, hot or not, and those of the new one taken."""
    token = service.token(clock(), GRANTED)
    assert [await status(proxy, token) for _ in range(3)] == [200] * 3
    new = Service(rsa_key("new"))
    new.publish(keys)
    clock.advance(1.1)
    assert await status(proxy, new.token(clock(), GRANTED)) == 200
    assert await status(proxy, token) == 401


async def test_a_key_that_is_gone_ends_what_was_forgotten(
    service: Service, keys: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many tokens may come that one isn't remembered any more while a hot answer is still guarded by it."""
    monkeypatch.setattr("proxy.access.tokens._MOST", 2)
    terms = Terms(REALM, SERVICE, ISSUER)
    tokens = Tokens([Watched(keys, read_keys, clock)], terms, lambda name: ("origin0", name), clock)
    leases = []
    for number in range(4):
        caller = await tokens.admit(f"Bearer {service.token(clock(), GRANTED, sub=str(number))}")
        assert caller.lease is not None
        leases.append(caller.lease)
    assert [lease.holds(clock()) for lease in leases] == [False, False, True, True]
    Service(rsa_key("new")).publish(keys)
    clock.advance(1.1)
    tokens.look()
    assert not any(lease.holds(clock()) for lease in leases)


@pytest.mark.parametrize(
    "service",
    [
        Service(ec.generate_private_key(ec.SECP256R1()), "ES256"),
        Service(ec.generate_private_key(ec.SECP384R1()), "ES384"),
        Service(ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        Service(rsa_key(), "PS256"),
    ],
    ids=lambda service: service.algorithm,
)
async def test_kinds_of_keys(proxy: Proxy, service: Service, clock: Clock) -> None:
    """Whatever a token service may sign with."""
    assert await status(proxy, service.token(clock(), GRANTED)) == 200


@pytest.mark.parametrize("token", [b"\xff.b.c", b"e30\xe9.e30.AAAA", b"\xc3\xa9.b.c"])
async def test_bytes_that_are_no_text_are_no_token(proxy: Proxy, token: bytes) -> None:
    """Header values may have any byte; it is the client's fault, and no error of ours."""
    url = URL(proxy.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + b"\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 401 ")
