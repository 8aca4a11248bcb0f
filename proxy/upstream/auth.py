"""Authenticating to one upstream: anonymous, Basic, Bearer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from proxy.oci.challenge import Challenge
from proxy.oci.errors import BadAnswer, NoAnswer, Overloaded, Refused, RegistryError
from proxy.upstream.credentials import Credential
from proxy.upstream.guard import check_realm
from proxy.upstream.transport import Transport

_MAX_TOKEN: Final = 1024 * 1024  # bytes of a token answer, as containers/image allows
_MAX_TOKENS: Final = 4096  # kept tokens; one for each repository pulled from
_DEFAULT_SECONDS: Final = 60.0  # the token specification's default and minimum for `expires_in`
_SKEW: Final = 10.0  # seconds before its end at which a token is renewed


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; *until* is in the clock's seconds."""

    text: str = field(repr=False)
    until: float


@dataclass(frozen=True, slots=True)
class _Service:
    """What a Bearer challenge says about where tokens come from."""

    realm: str
    service: str


class Authorizer:
    """What to put into `Authorization` for one upstream.

    An upstream is asked anonymously until it challenges; from then on its scheme is known and a token is
    fetched before the first request of a scope, not after its refusal. Tokens are kept here alone, by realm,
    service and scope: another upstream or credential has another `Authorizer`.
    """

    def __init__(
        self,
        transport: Transport,
        credential: Credential | None,
        realms: Collection[str],
        clock: Callable[[], float],
    ) -> None:
        """Take what is needed.

        Args:
            realms: Origins that token realms may have beside the upstream's own.
            clock: Seconds that never go backwards.
        """
        self._transport = transport
        self._credential = credential
        self._realms = realms
        self._clock = clock
        self._basic = False
        self._service: _Service | None = None
        self._tokens: OrderedDict[tuple[_Service, str], Token] = OrderedDict()
        self._fetching: dict[tuple[_Service, str], asyncio.Future[Token]] = {}

    @property
    def introduced(self) -> bool:
        """Whether it is known how to authenticate here."""
        return self._basic or self._service is not None

    @property
    def anonymous(self) -> bool:
        """Whether there are no credentials that could be wrong."""
        return self._credential is None

    async def header(self, scope: str) -> str | None:
        """Return the `Authorization` for *scope* as far as it is known. Raises `NoAnswer` or `Refused`."""
        service = self._service
        if service is not None:
            try:
                return f"Bearer {(await self._token(service, scope)).text}"
            except NoAnswer:
                if self._service == service:
                    self._service = None  # it may have moved: the upstream's next challenge says where to
                raise
        return self._credential.basic if self._basic and self._credential else None

    async def answer(self, challenges: Sequence[Challenge], scope: str, sent: str | None) -> str:
        """Return a new `Authorization` after a 401.

        Args:
            challenges: Those of the 401.
            sent: The `Authorization` that it refused.

        Raises:
            Refused: There is nothing better to send.
            NoAnswer: The token service can't be asked.
        """
        bearer = next((c for c in challenges if c.scheme == "bearer" and c.parameters.get("realm")), None)
        if bearer is not None:
            service = _Service(bearer.parameters["realm"], bearer.parameters.get("service", ""))
            self._forget(service, scope, sent)
            token = await self._token(service, scope)
            self._service = service  # only now: what can't be asked isn't worth remembering
            return f"Bearer {token.text}"
        if any(c.scheme == "basic" for c in challenges):
            if self._credential is None:
                raise Refused(f"{self._transport.name} asks for a user name and password, none is configured", seen=401)
            if sent != self._credential.basic:
                self._basic, self._service = True, None
                return self._credential.basic
        raise Refused(f"{self._transport.name} refuses the configured credentials", seen=401)

    def _forget(self, service: _Service, scope: str, sent: str | None) -> None:
        """Drop the token that was refused, and only that: another caller may have renewed it meanwhile."""
        kept = self._tokens.get((service, scope))
        if kept is not None and sent == f"Bearer {kept.text}":
            del self._tokens[service, scope]

    async def _token(self, service: _Service, scope: str) -> Token:
        """Return a token that lasts a while, kept or fetched; one fetch at a time for each scope.

        Its outcome, token or error, is that of all who wait for it. When the one who fetches leaves, the next does.
        """
        key = (service, scope)
        while True:
            token = self._tokens.get(key)
            if token is not None and token.until > self._clock():
                self._tokens.move_to_end(key)
                return token
            fetching = self._fetching.get(key)
            if fetching is None:
                return await self._fetch_for_all(key)
            await asyncio.wait([fetching])
            if not fetching.cancelled():
                return fetching.result()

    async def _fetch_for_all(self, key: tuple[_Service, str]) -> Token:
        outcome = self._fetching[key] = asyncio.get_running_loop().create_future()
        try:
            token = self._tokens[key] = await self._fetch(*key)
        except RegistryError as error:
            outcome.set_exception(error)
            outcome.exception()  # seen, also when nobody waits
            raise
        else:
            outcome.set_result(token)
        finally:
            outcome.cancel()  # nothing, where it has come
            del self._fetching[key]
        self._tokens.move_to_end(key)
        if len(self._tokens) > _MAX_TOKENS:
            self._tokens.popitem(last=False)
        return token

    async def _fetch(self, service: _Service, scope: str) -> Token:
        url = check_realm(self._transport.url, service.realm, self._realms)
        scopes = [("scope", each) for each in scope.split()]
        query = [(name, value) for name, value in (("service", service.service), *scopes) if value]
        headers = {"Authorization": self._credential.basic} if self._credential else {}
        async with self._transport.document(
            "GET", url.extend_query(query), headers, redirects=False, server=self._transport.tokens
        ) as response:
            if response.status in (401, 403):
                raise Refused(
                    f"the token service of {self._transport.name} refuses access to {scope}", seen=response.status
                )
            if response.status == 429 or response.status >= 500:
                raise Overloaded(
                    f"the token service of {self._transport.name} answered {response.status}",
                    retry_after=response.headers.get("Retry-After"),
                )
            if response.status != 200:
                raise BadAnswer(f"the token service of {self._transport.name} answered {response.status}")
            body = await self._transport.read(response, _MAX_TOKEN, "token answer")
        return self._read(body)

    def _read(self, body: bytes) -> Token:
        try:
            document: Any = orjson.loads(body)
            text = document.get("token") or document.get("access_token")
            seconds = float(document.get("expires_in") or _DEFAULT_SECONDS)
        except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
            text, seconds = None, 0.0
        if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
            raise BadAnswer(f"the token service of {self._transport.name} answered without a usable token")
        return Token(text, self._clock() + max(seconds, _DEFAULT_SECONDS) - _SKEW)
