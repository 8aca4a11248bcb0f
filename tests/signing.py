"""Keys and tokens for tests, as a token service makes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

SERVICE, ISSUER, REALM = "manifuse.test", "issuer.test", "https://auth.test/token"


@cache
def rsa_key(name: str = "", bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the same key for the same *name*."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def pem(key: PrivateKey) -> bytes:
    """Write the public half."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def access(name: str, *actions: str) -> dict[str, Any]:
    """Return an entry of the claim `access`."""
    return {"type": "repository", "name": name, "actions": list(actions or ("pull",))}


@dataclass(frozen=True)
class Service:
    """A token service with one key."""

    key: PrivateKey
    algorithm: str = "RS256"

    def publish(self, path: Path) -> Path:
        """Write its public key to a file."""
        path.write_bytes(pem(self.key))
        return path

    def token(self, now: float, *granted: dict[str, Any], headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Make a token; a claim that is None is left out."""
        said = {
            "iss": ISSUER,
            "aud": SERVICE,
            "sub": "alice",
            "exp": int(now) + 300,
            "nbf": int(now),
            "access": list(granted),
            **claims,
        }
        written = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(written, self.key, self.algorithm, headers=headers)
