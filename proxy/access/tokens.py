"""Bearer tokens of the distribution token protocol: JWTs, verified by keys of the configuration and by no others.

Whatever a token says of keys (`jwk`, `jku`, `x5c`, `x5u`) counts for nothing (S12). Its `kid` only picks among those
that are configured, and never makes anybody fetch one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from proxy.access.keys import Key, Keys
from proxy.oci.access import Action, Caller, Resource, bearer_challenge, read_bearer
from proxy.oci.errors import RegistryError, Unauthorized
from proxy.oci.lease import Lease
from proxy.virtual.recent import Recent
from proxy.watched import Watched

Routed = Callable[[str], tuple[str, str]]
"""Finds upstream and repository of a name in a token. Raises `RegistryError` for a name that leads nowhere."""

_MAX_TOKEN: Final = 32 * 1024  # characters; what is longer isn't looked at
_MOST: Final = 10_000  # tokens that were verified and needn't be again
_LEEWAY: Final = 10.0  # seconds that clocks may differ
_TIMES: Final = ("exp", "nbf", "iat")
_FOREVER: Final = float(2**53)  # seconds; what is no number, or larger than any float, isn't before it either


@dataclass(frozen=True, slots=True)
class Terms:
    """What a token has to say, and where clients get one.

    Attributes:
        realm: URL of the token service.
        service: What its tokens have to be for (`aud`).
        issuer: Who has to have made them (`iss`).
    """

    realm: str
    service: str
    issuer: str

    def challenge(self, scope: str) -> str:
        """Write the `WWW-Authenticate` for somebody who needs a token, for *scope*."""
        return bearer_challenge(self.realm, self.service, scope)


@dataclass(frozen=True, slots=True)
class Access:
    """What a token's claim of that name grants."""

    granted: frozenset[tuple[Action, str, str]] = frozenset()

    def __call__(self, action: Action, resource: Resource) -> bool:
        """Whether it grants this."""
        return (action, resource.upstream, resource.repository) in self.granted


class Tokens:
    """Lets in whoever brings a token that was signed with a configured key, for what the token says."""

    def __init__(
        self, files: Sequence[Watched[Keys]], terms: Terms, routed: Routed, clock: Callable[[], float]
    ) -> None:
        """Take what is needed; *clock* has seconds since the epoch."""
        self._files = files
        self._terms = terms
        self._routed = routed
        self._clock = clock
        self._keys = [file.content for file in files]
        self._callers: Recent[bytes, Caller] = Recent(_MOST, _end)  # whoever is forgotten can't be told of new keys

    def look(self) -> None:
        """See whether keys have changed; if so, no token that was verified counts any more, also in hot answers."""
        keys = [file.content for file in self._files]
        if all(now is before for now, before in zip(keys, self._keys, strict=True)):
            return
        self._keys = keys
        for caller in self._callers:
            _end(caller)
        self._callers = Recent(_MOST, _end)

    async def admit(self, authorization: str | None, client: str | None = None) -> Caller:
        """Return who sent this `Authorization`: without a token somebody who is told where to get one.

        Raises `Unauthorized` for a token that doesn't count.
        """
        token = read_bearer(authorization or "")
        if token is None:
            return Caller(may=Access(), known=False, challenge=self._terms.challenge)
        self.look()
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._callers.get(key, self._clock())
        if known is not None:
            return known
        caller, until = self._caller(self._claims(token))
        self._callers.put(key, caller, until)
        return caller

    def _caller(self, claims: Mapping[str, Any]) -> tuple[Caller, float]:
        """Return who a token speaks of, and until when. *claims* are verified."""
        lease = Lease()
        lease.until = float(claims["exp"]) + _LEEWAY
        access = Access(frozenset(self._granted(claims.get("access"))))
        subject = claims.get("sub")
        name = subject if isinstance(subject, str) else ""
        return Caller(name, access, lease=lease, challenge=self._terms.challenge), lease.until

    def _claims(self, token: str) -> Mapping[str, Any]:
        """Verify signature, audience, issuer and times. Raises `Unauthorized`, without a word of the token."""
        try:
            if len(token) > _MAX_TOKEN or not token.isascii():
                raise jwt.InvalidTokenError
            for key in self._fitting(jwt.get_unverified_header(token)):
                try:
                    claims: dict[str, Any] = self._decoded(token, key)
                except jwt.InvalidSignatureError:
                    continue
                self._check_times(claims)
                return claims
        except jwt.PyJWTError as error:
            raise self._refusal(_reason(error)) from None
        raise self._refusal("no configured key has signed it")

    def _fitting(self, header: Mapping[str, Any]) -> Iterator[Key]:
        """Go through the keys that a token's header may mean: its `kid`, or without one all of its algorithm."""
        name, algorithm = header.get("kid"), header.get("alg")
        for keys in self._keys:
            for key in keys:
                if algorithm in key.algorithms and (name is None or name in key.names):
                    yield key

    def _decoded(self, token: str, key: Key) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.key,
            algorithms=key.algorithms,
            audience=self._terms.service,
            issuer=self._terms.issuer,
            # Times are judged below, by the service's own clock.
            options={
                "require": ["exp", "aud", "iss"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_sub": False,
            },
        )

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._clock()
        for name in _TIMES:
            value = claims.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _FOREVER:
                raise jwt.DecodeError
        if now >= claims["exp"] + _LEEWAY:
            raise jwt.ExpiredSignatureError
        if now < max(claims.get("nbf", 0), claims.get("iat", 0)) - _LEEWAY:
            raise jwt.ImmatureSignatureError

    def _granted(self, access: object) -> Iterator[tuple[Action, str, str]]:
        """Read the claim `access`; what can't be read grants nothing."""
        for entry in access if isinstance(access, list) else []:
            match entry:
                case {"type": "repository", "name": str(name), "actions": list(actions)}:
                    try:
                        place = self._routed(name)
                    except RegistryError:
                        continue  # it leads to no repository of ours
                    for action in Action:
                        if action in actions or "*" in actions:
                            yield action, *place

    def _refusal(self, reason: str) -> Unauthorized:
        challenge = bearer_challenge(self._terms.realm, self._terms.service, error="invalid_token")
        return Unauthorized(f"the token doesn't count: {reason}", challenge=challenge)


def _end(caller: Caller) -> None:
    if caller.lease is not None:
        caller.lease.live = False


def _reason(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "it has expired"
        case jwt.ImmatureSignatureError():
            return "its time hasn't come"
        case jwt.InvalidAudienceError():
            return "it is for another service"
        case jwt.InvalidIssuerError():
            return "it is of another issuer"
        case jwt.MissingRequiredClaimError(claim=claim):
            return f"it has no {claim}"
        case _:
            return "it isn't a token that can be verified"
