"""Asking one registry: authenticated, with its quirks, and its statuses sorted into no, refused and no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
from yarl import URL

from proxy.oci.challenge import parse_challenges, pull_scope
from proxy.oci.errors import BadAnswer, NotFound, Overloaded, Refused, RegistryError
from proxy.oci.reference import DOCKER_HUB, Repository
from proxy.upstream.auth import Authorizer
from proxy.upstream.transport import Transport

Send = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Sends a request with the *headers* it is given, as often as it is called."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, for scopes, errors and URLs.

    Attributes:
        no_such: Statuses that mean "does not exist" here alone.
        scope: What a token has to allow; empty: to pull *repository*.
    """

    method: str
    repository: Repository
    path: str
    missing: type[NotFound]
    what: str
    no_such: frozenset[int] = frozenset()
    scope: str = ""


class Asker:
    """Questions to one registry."""

    def __init__(self, transport: Transport, authorizer: Authorizer, missing: Collection[int]) -> None:
        """Take what is needed.

        Args:
            missing: Statuses that mean "does not exist" here: Docker Hub says 401 of a missing repository.
        """
        self.transport = transport
        self.authorizer = authorizer
        self._missing = frozenset(missing) | {404}
        self._is_hub = transport.url.host in DOCKER_HUB

    @property
    def name(self) -> str:
        """The upstream's name in the configuration."""
        return self.transport.name

    @asynccontextmanager
    async def ask(
        self,
        question: Question,
        headers: Mapping[str, str],
        *,
        query: Mapping[str, str] | None = None,
        stream: bool = False,
        redirects: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for something of a repository, authenticated."""
        url = self.url(question.path, query or {})
        ask: Send = partial(self.transport.stream, url, redirects=redirects)
        if not stream:
            ask = partial(self.transport.document, question.method, url, redirects=redirects)
        async with self.authenticated(
            question, question.scope or pull_scope(self.remote(question.repository)), headers, ask
        ) as response:
            yield response

    @asynccontextmanager
    async def authenticated(
        self, question: Question, scope: str, headers: Mapping[str, str], ask: Send
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request with an `Authorization` for *scope*; after a 401 once more, with what it challenges for."""
        authorization = await self.authorized(self.authorizer.header(scope), question)
        for retry in (True, False):
            given = {**headers, "Authorization": authorization} if authorization else dict(headers)
            async with ask(headers=given) as response:
                if response.status != 401 or not retry:
                    yield response
                    return
                challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            if not challenges:
                raise self.failure(response, question)
            answer = self.authorizer.answer(challenges, scope, authorization)
            authorization = await self.authorized(answer, question)

    async def authorized(self, header: Awaitable[str | None], question: Question) -> str | None:
        """Wait for an `Authorization`.

        A refusal means "missing" where the operator said that it does, but never where credentials are
        configured: those that have expired must not make every image of the registry vanish (law 4).
        """
        try:
            return await header
        except Refused as refused:
            if refused.seen in self._missing and self.authorizer.anonymous:
                raise question.missing(f"{self.name} has no {question.what} of {question.repository}") from None
            raise refused from None

    def remote(self, repository: Repository) -> Repository:
        """Docker Hub's official images live under `library/`, which nobody writes."""
        return Repository(f"library/{repository}") if self._is_hub and "/" not in repository else repository

    def url(self, path: str, query: Mapping[str, str]) -> URL:
        """Return the URL of a path of the registry API."""
        base = self.transport.url
        return base.with_path(base.path.rstrip("/") + path, encoded=True).with_query(query)

    def failure(self, response: aiohttp.ClientResponse, question: Question) -> RegistryError:
        """Sort a status into no, refused and no answer."""
        status = response.status
        if status in self._missing | question.no_such:
            return question.missing(f"{self.name} has no {question.what} of {question.repository}")
        if status in (401, 403):
            return Refused(f"{self.name} refuses access to {question.repository} ({status})", seen=status)
        if status == 429 or status >= 500:
            wait = response.headers.get("Retry-After")
            return Overloaded(f"{self.name} answered {status} for {question.what}", retry_after=wait)
        return BadAnswer(f"{self.name} answered {status} for {question.what}")

    def check_coding(self, response: aiohttp.ClientResponse) -> None:
        """Raise `BadAnswer` where a body is coded: what is hashed has to be what was sent."""
        coding = response.headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            raise BadAnswer(f"{self.name} sent Content-Encoding {coding[:40]!r}, identity was asked for")
