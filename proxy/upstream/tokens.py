"""Bearer tokens: fetched from the token service that a challenge names, and kept for whom they were issued."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import orjson
from yarl import URL

from proxy.oci.errors import BadAnswer, Overloaded, Refused, RegistryError
from proxy.upstream.credentials import Credential, IdentityToken, Login
from proxy.upstream.shared import Shared
from proxy.upstream.transport import Server, Transport

_MAX_TOKEN: Final = 1024 * 1024  # bytes of a token answer, as containers/image allows
_MAX_TOKENS: Final = 4096  # kept tokens; one for each repository pulled from, and for each credential
_MAX_RENEWED: Final = 256  # kept refresh tokens that took the place of configured ones
_DEFAULT_SECONDS: Final = 60.0  # the token specification's default and minimum for `expires_in`
_SKEW: Final = 10.0  # seconds before its end at which a token is renewed
_CLIENT: Final = "manifuse"
# GCR says 404, Artifactory 401, ACR 400 of a POST that they don't know; containerd's list.
_NO_POST: Final = frozenset({400, 401, 404, 405})


@dataclass(frozen=True, slots=True)
class Service:
    """What a Bearer challenge says about where tokens come from."""

    realm: str
    service: str


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; *since* and *until* are in the clock's seconds."""

    text: str = field(repr=False)
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token is for: the key under which it is kept, so that two credentials never share one."""

    service: Service
    scope: str
    login: Login | None


class Tokens:
    """The tokens for one upstream, of everybody in whose name it is asked."""

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        """Take what is needed; *clock* gives seconds that never go backwards."""
        self._transport = transport
        self._clock = clock
        self._kept: OrderedDict[Grant, Token] = OrderedDict()
        self._fetching = Shared[Grant, Token]()
        self._renewed: OrderedDict[IdentityToken, str] = OrderedDict()
        self._posts = True

    def age(self, token: Token) -> float:
        """Return for how many seconds a token has been kept."""
        return self._clock() - token.since

    def forget(self, grant: Grant, token: Token) -> None:
        """Drop a token that was refused, and only that: another caller may have renewed it meanwhile."""
        if self._kept.get(grant) == token:
            del self._kept[grant]

    async def get(self, grant: Grant, longest: float = math.inf, server: Server | None = None) -> Token:
        """Return a token that lasts a while, kept or fetched; one fetch at a time for each grant.

        Args:
            longest: Seconds after which a kept token doesn't count, however long it lasts.
            server: The token service as the one sees it who asks, where that isn't as everybody does.

        Raises:
            Refused: The token service says no.
            NoAnswer: It can't be asked.
        """
        token = self._kept.get(grant)
        if token is not None and token.until > self._clock() and self.age(token) < longest:
            self._kept.move_to_end(grant)
            return token
        return await self._fetching.do(grant, partial(self._fetch_and_keep, grant, server))

    async def _fetch_and_keep(self, grant: Grant, server: Server | None) -> Token:
        token = self._kept[grant] = await self._fetch(grant, server or self._transport.tokens)
        self._kept.move_to_end(grant)
        if len(self._kept) > _MAX_TOKENS:
            self._kept.popitem(last=False)
        return token

    async def _fetch(self, grant: Grant, server: Server) -> Token:
        url = self._transport.bounds.realm(grant.service.realm)
        match grant.login:
            case IdentityToken() as identity:
                return await self._exchanged(url, grant, identity, server)
            case login:
                return await self._got(url, grant, login, server)

    async def _exchanged(self, url: URL, grant: Grant, identity: IdentityToken, server: Server) -> Token:
        """Exchange a refresh token: by POST, or as a password by GET where POST isn't known and there is a name."""
        fallback = identity.as_password
        if self._posts or fallback is None:
            status, body = await self._posted(url, grant, identity, server)
            if status == 200:
                return self._read(body, identity)
            self._renewed.pop(identity, None)  # the configured one may be better
            if fallback is None or status not in _NO_POST:
                raise self._failure(status, None, grant.scope)
        token = await self._got(url, grant, fallback, server)
        self._posts = False
        return token

    async def _posted(self, url: URL, grant: Grant, identity: IdentityToken, server: Server) -> tuple[int, bytes]:
        """Ask by OAuth2's POST; return status and body. Raises `NoAnswer`."""
        form = {
            "grant_type": "refresh_token",
            "service": grant.service.service,
            "client_id": _CLIENT,
            "scope": grant.scope,
            "refresh_token": self._renewed.get(identity, identity.token),
        }
        body = urlencode({name: value for name, value in form.items() if value}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
        async with self._transport.document(
            "POST", url, headers, body=body, redirects=False, server=server, about=grant.scope
        ) as response:
            if response.status == 429 or response.status >= 500:
                raise self._failure(response.status, response, grant.scope)
            return response.status, await self._transport.read(response, _MAX_TOKEN, "token answer")

    async def _got(self, url: URL, grant: Grant, login: Credential | None, server: Server) -> Token:
        """Ask by GET, anonymously or by name."""
        scopes = [("scope", each) for each in grant.scope.split()]
        query = [(name, value) for name, value in (("service", grant.service.service), *scopes) if value]
        headers = {"Authorization": login.basic} if login else {}
        async with self._transport.document(
            "GET", url.extend_query(query), headers, redirects=False, server=server, about=grant.scope
        ) as response:
            if response.status != 200:
                raise self._failure(response.status, response, grant.scope)
            return self._read(await self._transport.read(response, _MAX_TOKEN, "token answer"), None)

    def _failure(self, status: int, response: aiohttp.ClientResponse | None, scope: str) -> RegistryError:
        name = f"the token service of {self._transport.name}"
        if status in (401, 403):
            return Refused(f"{name} refuses {f'access to {scope}' if scope else 'the credentials'}", seen=status)
        if status == 429 or status >= 500:
            wait = response.headers.get("Retry-After") if response else None
            return Overloaded(f"{name} answered {status}", retry_after=wait)
        return BadAnswer(f"{name} answered {status}")

    def _read(self, body: bytes, identity: IdentityToken | None) -> Token:
        """Read a token answer; a refresh token in it takes the place of the one that was exchanged."""
        try:
            document: Any = orjson.loads(body)
            text = document.get("token") or document.get("access_token")
            seconds = float(document.get("expires_in") or _DEFAULT_SECONDS)
            renewed = document.get("refresh_token")
        except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
            text, seconds, renewed = None, 0.0, None
        if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
            raise BadAnswer(f"the token service of {self._transport.name} answered without a usable token")
        if identity is not None and isinstance(renewed, str) and renewed:
            self._remember(identity, renewed)
        now = self._clock()
        return Token(text, now, now + max(seconds, _DEFAULT_SECONDS) - _SKEW)

    def _remember(self, identity: IdentityToken, renewed: str) -> None:
        self._renewed[identity] = renewed
        self._renewed.move_to_end(identity)
        if len(self._renewed) > _MAX_RENEWED:
            self._renewed.popitem(last=False)
