"""What upstream tests share: how a client is opened, and a token service with the registry it guards."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from proxy.upstream.client import Upstream
from proxy.upstream.credentials import Credential
from scripted import Fault, Origin, Recorded

ALICE = Credential("alice", "wonder-land")
BOB = Credential("bob", "builder-yard")

Connect = Callable[..., Coroutine[Any, Any, Upstream]]
"""`await connect(origin, credential=..., realms=..., missing=..., limits=..., metrics=..., retries=...)`."""


@dataclass
class Tokens:
    """A token service at an origin, whose registry opens to its tokens alone.

    Attributes:
        realm: What the challenge names; empty means the origin's own service.
        seconds: How long it says that a token lasts.
        valid: The tokens that open the registry; taking one away revokes it.
    """

    origin: Origin
    realm: str = ""
    seconds: int = 300
    issued: int = 0
    valid: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Begin to guard."""
        self.origin.fail(" /v2/", self._door)
        self.origin.fail("GET /token", self._issue)

    @property
    def asked(self) -> list[Recorded]:
        """The requests for tokens so far."""
        return [request for request in self.origin.requests if request.path == "/token"]

    async def _door(self, request: web.BaseRequest) -> web.StreamResponse | None:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") in self.valid:
            return None
        realm = self.realm or f"{self.origin.url}/token"
        challenge = f'Bearer realm="{realm}",service="tests",scope="repository:else/where:pull,push"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async def _issue(self, request: web.BaseRequest) -> web.StreamResponse:
        """Hand out a token that says who it is for."""
        self.issued += 1
        basic = request.headers.get("Authorization", "").removeprefix("Basic ")
        token = f"{base64.b64decode(basic).decode().partition(':')[0] or 'anonymous'}.{self.issued}"
        self.valid.add(token)
        return web.json_response({"token": token, "expires_in": self.seconds})


def basic_door(origin: Origin, credential: Credential) -> None:
    """Let *origin* open to a user name and password alone."""

    async def door(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.headers.get("Authorization") == credential.basic:
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="tests"'})

    origin.fail(" /v2/", door)


def drips(times: int, pause: float, chunk: bytes = b".") -> Fault:
    """Send *chunk*, again and again, with a pause of so many seconds behind each."""

    async def fault(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(times * len(chunk))})
        await response.prepare(request)
        for _ in range(times):
            await response.write(chunk)
            await asyncio.sleep(pause)
        return response

    return fault


def sent(origin: Origin) -> list[str | None]:
    """Return the `Authorization` of every request so far, in their order."""
    return [request.headers.get("Authorization") for request in origin.requests]
