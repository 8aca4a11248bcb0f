"""A client that trusts nothing: every answer is compared with the bytes that were pushed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

import aiohttp

from e2e.wire import INDEXES

PATIENCE: Final = 30.0  # seconds for a whole answer: what takes longer than that is hung


class Verdict(Enum):
    """What an answer was."""

    RIGHT = "right"  # a success with exactly the bytes that were pushed or merged
    ERROR = "an error"  # a status of 400 or more with the specification's words
    BROKEN = "broken off"  # the connection ended before the answer did
    HUNG = "hung"
    SHRUNKEN = "a shrunken index"
    WRONG = "wrong bytes"
    UNCHECKED = "an unchecked part"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client saw."""

    what: str
    verdict: Verdict
    status: int = 0
    cache: str = ""
    warned: bool = False
    retry_after: str = ""
    detail: str = ""

    @property
    def words(self) -> str:
        """The answer in a word or two, as in the table."""
        if self.verdict is Verdict.ERROR:
            return f"{self.status}"
        return str(self.verdict.value)

    @property
    def is_fresh(self) -> bool:
        """Whether the answer was right and nobody said that it may be old."""
        return self.verdict is Verdict.RIGHT and self.cache != "stale" and not self.warned


class Client:
    """Asks one proxy. Open it with `async with`."""

    def __init__(self, proxy: str) -> None:
        """Ask the proxy at *proxy*, a URL; each request has a connection of its own."""
        self._proxy = proxy
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
            auto_decompress=False,
        )

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close all connections."""
        await self._session.close()

    async def manifest(self, repository: str, reference: str, expected: bytes, method: str = "GET") -> Seen:
        """Ask for a manifest that has these bytes."""
        return await self._ask(method, f"/v2/{repository}/manifests/{reference}", expected)

    async def blob(self, repository: str, digest: str, expected: bytes) -> Seen:
        """Ask for a blob that has these bytes."""
        return await self._ask("GET", f"/v2/{repository}/blobs/{digest}", expected)

    async def part(self, repository: str, digest: str, expected: bytes) -> Seen:
        """Ask for a hundred bytes in the middle of a blob that has these bytes."""
        middle = len(expected) // 2
        piece = expected[middle : middle + 100]
        return await self._ask("GET", f"/v2/{repository}/blobs/{digest}", piece, f"bytes={middle}-{middle + 99}")

    async def _ask(self, method: str, path: str, expected: bytes, part: str = "") -> Seen:
        what = f"{method} {path} {part}".strip()
        headers = {"Accept": INDEXES} | ({"Range": part} if part else {})
        try:
            async with self._session.request(method, self._proxy + path, headers=headers) as response:
                return _judged(what, response, await response.read(), expected)
        except TimeoutError:
            return Seen(what, Verdict.HUNG)
        except aiohttp.ClientError as error:
            return Seen(what, Verdict.BROKEN, detail=repr(error))


def _judged(what: str, response: aiohttp.ClientResponse, body: bytes, expected: bytes) -> Seen:
    verdict = _success(response, body, expected) if response.status < 400 else _failure(response, body)
    return Seen(
        what,
        verdict,
        response.status,
        response.headers.get("X-Manifuse-Cache", ""),
        "Warning" in response.headers,
        response.headers.get("Retry-After", ""),
        body[:300].decode("utf-8", "replace"),
    )


def _success(response: aiohttp.ClientResponse, body: bytes, expected: bytes) -> Verdict:
    wanted = b"" if response.method == "HEAD" else expected
    length = response.headers.get("Content-Length", str(len(expected)))
    if response.status in (200, 206) and body == wanted and length == str(len(expected)):
        return Verdict.RIGHT
    if response.status == 206 and len(body) == len(expected):
        return Verdict.UNCHECKED  # nobody can hash a part; who puts the whole together does
    return Verdict.SHRUNKEN if _children(body) < _children(expected) else Verdict.WRONG


def _failure(response: aiohttp.ClientResponse, body: bytes) -> Verdict:
    """Clients read an error's body: it has to be there, and JSON."""
    if response.method == "HEAD":
        return Verdict.ERROR
    try:
        said = response.content_type == "application/json" and json.loads(body)["errors"][0]["code"]
    except (ValueError, LookupError, TypeError):
        said = False
    return Verdict.ERROR if said else Verdict.WRONG


def _children(body: bytes) -> int:
    try:
        return len(json.loads(body)["manifests"])
    except (ValueError, LookupError, TypeError):
        return 0
