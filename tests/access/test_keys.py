"""Keys: what files may hold, and what each key may be used for."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from proxy.access.keys import read_keys
from signing import pem, rsa_key


def certificate() -> bytes:
    """Return a certificate of the usual key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token service")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, rsa_key().public_key(), 1, now, now + dt.timedelta(days=9))
    return builder.sign(rsa_key(), hashes.SHA256()).public_bytes(Encoding.PEM)


def jwk(**more: Any) -> dict[str, Any]:
    """Return the usual key as a JWK."""
    return {**jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key().public_key(), as_dict=True), **more} | {
        "key_ops": ["verify"]
    }


@pytest.mark.parametrize(
    "data",
    [
        pem(rsa_key()),
        certificate(),
        json.dumps({"keys": [jwk()]}).encode(),
        json.dumps(jwk(use="sig")).encode(),
        b"a comment\n" + pem(rsa_key()) + b"\n" + pem(rsa_key()),
    ],
    ids=["pem", "certificate", "jwks", "jwk", "two"],
)
def test_the_same_key_in_other_clothes(data: bytes) -> None:
    """By thumbprint and fingerprint it is the same."""
    names = [key.names for key in read_keys(data)]
    assert names[0] == read_keys(pem(rsa_key()))[0].names
    assert all(key.algorithms == ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512") for key in read_keys(data))


def test_names() -> None:
    """The set's own name, RFC 7638's thumbprint of its example key, libtrust's fingerprint."""
    example = {
        "kty": "RSA",
        "n": (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
            "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
            "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
            "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
        ),
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    (key,) = read_keys(json.dumps({"keys": [example]}).encode())
    assert {"2011-04-29", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"} < key.names
    fingerprint = next(name for name in key.names if ":" in name)
    assert [len(group) for group in fingerprint.split(":")] == [4] * 12
    assert key.algorithms == ("RS256",)


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (ec.generate_private_key(ec.SECP256R1()), ("ES256",)),
        (ec.generate_private_key(ec.SECP384R1()), ("ES384",)),
        (ec.generate_private_key(ec.SECP521R1()), ("ES512",)),
        (ed25519.Ed25519PrivateKey.generate(), ("EdDSA",)),
    ],
)
def test_one_kind_of_signature_for_each_curve(key: Any, algorithms: tuple[str, ...]) -> None:
    """What a token's header says picks none that doesn't fit."""
    (found,) = read_keys(pem(key))
    assert found.algorithms == algorithms


def _private() -> bytes:
    return rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _other() -> bytes:
    public = dsa.generate_private_key(2048).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no public key"),
    "text": (b"hello", "no public key"),
    "list": (b"[]", "no public key"),
    "empty set": (b'{"keys": []}', "no public key"),
    "for encryption": (b'{"keys": [{"kty": "RSA", "use": "enc"}]}', "no public key"),
    "shared secret": (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "secret key"),
    "private JWK": (b'{"keys": [{"kty": "RSA", "d": "c2VjcmV0"}]}', "secret key"),
    "half a JWK": (b'{"keys": [{"kty": "RSA", "n": "c2VjcmV0"}]}', "can't be used"),
    "for no algorithm": (json.dumps(jwk(alg="none")).encode(), "can't be used"),
    "an algorithm that is no word": (json.dumps(jwk(alg=["RS256"])).encode(), "can't be used"),
    "deep": (b"[" * 100_000, "no public key"),
    "private": (_private(), "private key"),
    "small": (pem(rsa_key("small", 1024)), "RSA key of 1024 bits"),
    "another curve": (pem(ec.generate_private_key(ec.SECP256K1())), "neither RSA"),
    "DSA": (_other(), "neither RSA"),
    "no PEM": (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "public key in it that can't be read"),
    "no certificate": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "certificate in it that can't"),
    "many": (pem(rsa_key()) * 65, "more than 64"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_key_to_verify_with(kind: str) -> None:
    """A sentence says why, and nothing of what is in the file."""
    data, reason = BAD[kind]
    with pytest.raises(ValueError, match=reason) as refused:
        read_keys(data)
    assert "c2VjcmV0" not in str(refused.value)
