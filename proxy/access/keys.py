"""Public keys that tokens may be signed with: PEM, certificates or a JWK set, each for the algorithms that fit it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_MIN_RSA: Final = 2048  # bits
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", re.DOTALL)
_MOST: Final = 64  # keys in one file


@dataclass(frozen=True, slots=True)
class Key:
    """A key that tokens may be signed with.

    Attributes:
        algorithms: Those that fit it; what a token's header says picks among them, and never any other.
        names: What a token's `kid` may call it: the name in its JWK set, its thumbprint (RFC 7638), or its
            fingerprint as libtrust writes it, which is what distribution's token servers send.
    """

    key: PublicKey
    algorithms: tuple[str, ...]
    names: frozenset[str]


Keys = tuple[Key, ...]


def read_keys(data: bytes) -> Keys:
    """Read all public keys of a file. Raises `ValueError` where there are none, or one that mustn't be used."""
    found = tuple(_pem(data) if _BLOCK.search(data) else _jwks(data))
    if not found:
        raise ValueError("there is no public key in it, neither PEM nor a JWK set")
    if len(found) > _MOST:
        raise ValueError(f"there are more than {_MOST} keys in it")
    return found


def _pem(data: bytes) -> Iterator[Key]:
    for block in _BLOCK.finditer(data):
        kind = block[1]
        if b"PRIVATE" in kind:
            raise ValueError("there is a private key in it: only the token service should have that")
        yield _key(_loaded(kind, block[0]))


def _loaded(kind: bytes, block: bytes) -> object:
    try:
        if kind == b"CERTIFICATE":
            return x509.load_pem_x509_certificate(block).public_key()
        return load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"there is a {kind.decode().lower()} in it that can't be read") from None


def _jwks(data: bytes) -> Iterator[Key]:
    try:
        document: Any = json.loads(data)
        entries = document.get("keys", [document])
    except (ValueError, AttributeError, RecursionError):
        return
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        if "d" in entry or entry.get("kty") == "oct":
            raise ValueError("there is a secret key in it: only the token service should have that")
        try:
            loaded = jwt.PyJWK(entry)
        except (jwt.PyJWTError, NotImplementedError, TypeError) as error:  # of an `alg` that is none, and of no word
            raise ValueError(f"a key of the set can't be used: {type(error).__name__}") from None
        yield _key(loaded.key, entry)


def _key(loaded: object, entry: Mapping[str, Any] | None = None) -> Key:
    """Say what a key may be used for. Raises `ValueError` for one that is too weak, or of another kind."""
    match loaded:
        case rsa.RSAPublicKey(key_size=size):
            if size < _MIN_RSA:
                raise ValueError(f"there is an RSA key of {size} bits in it, {_MIN_RSA} are the least")
            key: PublicKey = loaded
            algorithms: tuple[str, ...] = _RSA
        case ec.EllipticCurvePublicKey() if loaded.curve.name in _CURVES:
            key, algorithms = loaded, _CURVES[loaded.curve.name]
        case ed25519.Ed25519PublicKey():
            key, algorithms = loaded, ("EdDSA",)
        case _:
            raise ValueError("there is a key in it that is neither RSA, P-256, P-384, P-521 nor Ed25519")
    entry = entry or {}
    if "alg" in entry:
        algorithms = tuple(each for each in algorithms if each == entry["alg"])
    given = {str(entry["kid"])} if "kid" in entry else set()
    return Key(key, algorithms, frozenset({_thumbprint(key), _fingerprint(key), *given}))


def _thumbprint(key: PublicKey) -> str:
    """Return the SHA-256 thumbprint of RFC 7638."""
    match key:
        case rsa.RSAPublicKey():
            written = jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True)
            names: tuple[str, ...] = ("e", "kty", "n")
        case ec.EllipticCurvePublicKey():
            written = jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)
            names = ("crv", "kty", "x", "y")
        case _:
            written = jwt.algorithms.OKPAlgorithm.to_jwk(key, as_dict=True)
            names = ("crv", "kty", "x")
    canonical = json.dumps({name: written[name] for name in names}, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()


def _fingerprint(key: PublicKey) -> str:
    """Return libtrust's: the first 240 bits of the key's hash in base 32, in groups of four."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode().rstrip("=")
    return ":".join(text[start : start + 4] for start in range(0, len(text), 4))
