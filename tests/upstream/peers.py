"""What upstream tests share: how a client is opened, and a token service with the registry it guards."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from images import X86
from proxy.oci import mediatype
from proxy.oci.byterange import Part, Whole
from proxy.oci.mediatype import DOCKER_MANIFEST
from proxy.oci.reference import Digest
from proxy.upstream.client import Upstream
from proxy.upstream.credentials import Credential
from scripted import Fault, Origin, Recorded, status

ALICE = Credential("alice", "wonder-land")
BOB = Credential("bob", "builder-yard")

OTHER = Digest.of(b"something else")
DATA = bytes(range(256)) * 4096  # 1 MiB
BLOB = Digest.of(DATA)
CONFIG = {"mediaType": mediatype.DOCKER_CONFIG, "size": 2, "digest": Digest.of(b"{}")}
BODY = b'{"schemaVersion":2,"mediaType":"%s","config":%s}' % (DOCKER_MANIFEST.encode(), json.dumps(CONFIG).encode())

Connect = Callable[..., Coroutine[Any, Any, Upstream]]
"""`await connect(origin, credential=..., realms=..., missing=..., limits=..., metrics=..., retries=...)`."""


def bad(body: bytes, content_type: str = DOCKER_MANIFEST, code: int = 200, **headers: str) -> Fault:
    """Answer something that can't be used."""
    return status(code, body, Content_Type=content_type, **headers)


async def a_blob(upstream: Upstream, part: Part | None = None) -> bytes:
    """Return the bytes of `BLOB`, or a part of them."""
    async with upstream.blob(X86, BLOB, part or Whole()) as blob:
        return b"".join([chunk async for chunk in blob.chunks])


@dataclass
class Tokens:
    """A token service at an origin, whose registry opens to its tokens alone.

    Attributes:
        realm: What the challenge names; empty means the origin's own service.
        seconds: How long it says that a token lasts.
        valid: The tokens that open the registry; taking one away revokes it.
        logins: The `Authorization` that it takes; None for any.
    """

    origin: Origin
    realm: str = ""
    seconds: int = 300
    issued: int = 0
    valid: set[str] = field(default_factory=set)
    logins: set[str] | None = None

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
        if self.logins is not None and request.headers.get("Authorization") not in self.logins:
            return web.Response(status=401)
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
