"""S12: tokens are verified by configured keys alone, whatever they say (CVE-2025-24976, CVE-2026-48524)."""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from jwt.utils import base64url_encode

from images import push_pair
from process import Process
from scripted import Origin
from security.conftest import StartProcess
from signing import ISSUER, REALM, SERVICE, Service, access, pem, rsa_key

TAG = "/v2/kimoqi/alpine/manifests/1.0"
CONFIG = """
[access]
mode = "token"
[access.token]
realm = "{realm}"
service = "{service}"
issuer = "{issuer}"
keys = ["{keys}"]
[[upstream]]
name = "registry"
url = "{url}"
"""
GRANTED = access("kimoqi/alpine")
GOOD, EVIL = Service(rsa_key()), Service(rsa_key("evil"))


@pytest.fixture
async def process(launch: StartProcess, origin: Origin, tmp_path: Path) -> Process:
    """A service that takes tokens of one key."""
    push_pair(origin.registry)
    keys = GOOD.publish(tmp_path / "key.pem")
    return await launch(CONFIG.format(realm=REALM, service=SERVICE, issuer=ISSUER, keys=keys, url=origin.url))


async def status(process: Process, token: str) -> int:
    """Ask with a token."""
    return (await process.get(TAG, Authorization=f"Bearer {token}")).status


def forged(headers: dict[str, Any]) -> str:
    """Make a token with another key, which says of keys what it likes."""
    return EVIL.token(time.time(), GRANTED, headers=headers)


def hand_made(head: dict[str, Any], secret: bytes) -> str:
    """Make a token that no library would: signed with HMAC by whatever bytes."""
    claims = {"iss": ISSUER, "aud": SERVICE, "exp": int(time.time()) + 300, "access": [GRANTED]}
    text = b".".join(base64url_encode(orjson.dumps(part)) for part in (head, claims))
    return (text + b"." + base64url_encode(hmac.digest(secret, text, hashlib.sha256))).decode()


async def test_a_good_token_is_taken(process: Process) -> None:
    """Else the other tests would show nothing."""
    assert await status(process, GOOD.token(time.time(), GRANTED)) == 200


async def test_a_token_brings_no_key(process: Process, origin: Origin) -> None:
    """Neither in it nor behind a URL: nothing is fetched."""
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key("evil").public_key(), as_dict=True)
    good = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key().public_key(), as_dict=True)
    for headers in (
        {"jwk": jwk},
        {"jwk": good},
        {"jku": f"{origin.url}/keys.json"},
        {"x5u": f"{origin.url}/cert.pem"},
        {"x5c": ["MIIB"]},
        {"jku": f"{origin.url}/keys.json", "kid": "evil"},
    ):
        assert await status(process, forged(headers)) == 401
    assert origin.requests == []


async def test_no_algorithm_but_the_keys_own(process: Process) -> None:
    """Not none, and not HMAC with the public key as its secret."""
    for algorithm in ("none", "None", "HS256", "ES256", "RS1", ""):
        for secret in (b"", pem(GOOD.key), pem(GOOD.key).strip()):
            assert await status(process, hand_made({"alg": algorithm, "typ": "JWT"}, secret)) == 401
    unsigned = hand_made({"alg": "none"}, b"").rpartition(".")[0] + "."
    assert await status(process, unsigned) == 401


async def test_names_of_keys_cost_nothing(process: Process, origin: Origin) -> None:
    """A thousand that nobody knows: nothing is fetched, and the good key stays."""
    for number in range(1000):
        assert await status(process, hand_made({"alg": "RS256", "kid": f"{number:x}"}, b"x")) == 401
    assert origin.requests == []
    assert await status(process, GOOD.token(time.time(), GRANTED)) == 200


async def test_what_it_says_is_checked(process: Process) -> None:
    """Audience, issuer, times and what it is for."""
    bad: list[dict[str, Any]] = [{"aud": "other"}, {"iss": "other"}, {"exp": 1}, {"nbf": 2**33}, {"access": []}]
    for claims in bad:
        assert await status(process, GOOD.token(time.time(), **{"access": [GRANTED], **claims})) == 401
