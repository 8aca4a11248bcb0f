"""Asking one registry: authenticated, with its quirks, and its statuses sorted into no, refused and no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import aiohttp
from yarl import URL

from proxy.oci.challenge import parse_challenges, pull_scope
from proxy.oci.errors import BadAnswer, NameUnknown, NotFound, Overloaded, Refused, RegistryError
from proxy.oci.reference import DOCKER_HUB, Repository
from proxy.upstream.auth import Access, Authorization, Authorizer
from proxy.upstream.transport import Transport

# S3 says "" and what is like it "aws-chunked" of an object that came in chunks; they are gone when it goes out.
_NO_CODINGS: Final = frozenset({"", "identity", "aws-chunked"})

Send = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Sends a request with the *headers* it is given, as often as it is called."""

Witness = Callable[[Repository, int, float], None]
"""Is told of a repository that was asked about, of the status of the answer, and how many seconds ago it was decided:
a registry believes a token, whatever its service has said since."""


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

    def __init__(
        self,
        transport: Transport,
        authorizer: Authorizer,
        missing: Collection[int],
        witness: Witness = lambda repository, status, age: None,
    ) -> None:
        """Take what is needed.

        Args:
            missing: Statuses that mean "does not exist" here: Docker Hub says 401 of a missing repository.
            witness: Is told how questions about repositories were answered.
        """
        self.transport = transport
        self.authorizer = authorizer
        self._witness = witness
        self.missing = frozenset(missing) | {404}
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
        shown: Callable[[], bool] = lambda: True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for something of a repository, authenticated.

        A success is one only for the block that makes sense of it, and a stream is none before its last byte: a login
        page has status 200, too.

        Args:
            shown: Whether there was anything in it, which is asked after the block: a repository that is hidden
                may have empty lists.
        """
        url = self.url(question.path, query or {})
        ask: Send = partial(self.transport.stream, url, redirects=redirects)
        if not stream:
            ask = partial(self.transport.document, question.method, url, redirects=redirects)
        scope = question.scope or pull_scope(self.remote(question.repository))
        try:
            async with self._answered(question, scope, headers, ask) as (response, authorization):
                decided = self.authorizer.decided(authorization)
                if response.status >= 400 and not self.is_elsewhere(response):
                    self._witness(question.repository, response.status, self.authorizer.ago(decided))
                yield response
                if response.status < 300 and not stream and shown():
                    self._witness(question.repository, response.status, self.authorizer.ago(decided))
        except Refused as refused:
            self._witness(question.repository, refused.seen, 0.0)
            raise

    async def greet(self) -> None:
        """Ask for nothing but the API itself, with a token of this moment. Raises `Refused` or `NoAnswer`."""
        question = Question("GET", Repository(""), "/v2/", NameUnknown, "registry API")
        ask: Send = partial(self.transport.document, "GET", self.url(question.path, {}))
        try:
            async with self.authenticated(question, "", {}, ask, fresh=True) as response:
                if response.status in (401, 403):
                    raise Refused(f"{self.name} doesn't accept the credentials", seen=response.status)
                if response.status == 404:
                    raise BadAnswer(f"{self.name} has no registry API")
                if response.status != 200:
                    raise self.failure(response, question)
        except NotFound:  # what "missing" may mean of an image
            raise Refused(f"{self.name} doesn't accept the credentials", seen=401) from None

    @asynccontextmanager
    async def authenticated(
        self, question: Question, scope: str, headers: Mapping[str, str], ask: Send, *, fresh: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request with an `Authorization` for *scope*.

        It is sent once more after a 401, with what that challenges for, and after a 403 if there is anything newer:
        those of the registry, and not of somebody it redirects to, who never hears of our credentials.
        """
        async with self._answered(question, scope, headers, ask, fresh=fresh) as (response, _):
            yield response

    @asynccontextmanager
    async def _answered(
        self, question: Question, scope: str, headers: Mapping[str, str], ask: Send, *, fresh: bool = False
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Authorization | None]]:
        """Send a request; yield the answer and what it was sent with."""
        access = self.access(question, scope)
        authorization = await self.authorized(self.authorizer.header(access, fresh=fresh), question)
        for retry in (True, False):
            given = {**headers, "Authorization": authorization.header} if authorization else dict(headers)
            async with ask(headers=given) as response:
                newer, is_own = None, not self.is_elsewhere(response)
                if retry and is_own and response.status == 403:
                    newer = await self.authorized(self.authorizer.renewed(access, authorization), question)
                if not (retry and is_own) or (response.status != 401 and newer is None):
                    if is_own and response.status == 401 and authorization and authorization.token is None:
                        # Whatever 401 means otherwise, a password that is refused is no image that is missing.
                        raise Refused(f"{self.name} refuses access to {question.repository} (401)", seen=401)
                    yield response, authorization
                    return
                challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            if newer is None:
                if not challenges:
                    raise self.failure(response, question)
                newer = await self.authorized(self.authorizer.answer(challenges, access, authorization), question)
            authorization = newer

    async def authorized(self, found: Awaitable[Authorization | None], question: Question) -> Authorization | None:
        """Wait for an `Authorization`.

        A refusal means "missing" where the operator said that it does, but never where credentials are
        configured: those that have expired must not make every image of the registry vanish (law 4).
        """
        try:
            return await found
        except Refused as refused:
            if refused.seen in self.missing and await self.authorizer.anonymous(self._place(question)):
                raise question.missing(f"{self.name} has no {question.what} of {question.repository}") from None
            raise refused from None

    def access(self, question: Question, scope: str) -> Access:
        """Return what a question is about, in the upstream's own words."""
        return Access(self._place(question), scope)

    def _place(self, question: Question) -> Repository:
        return self.remote(question.repository) if question.repository else question.repository

    def remote(self, repository: Repository) -> Repository:
        """Docker Hub's official images live under `library/`, which nobody writes."""
        return Repository(f"library/{repository}") if self._is_hub and "/" not in repository else repository

    def url(self, path: str, query: Mapping[str, str]) -> URL:
        """Return the URL of a path of the registry API."""
        base = self.transport.url
        return base.with_path(base.path.rstrip("/") + path, encoded=True).with_query(query)

    def is_elsewhere(self, response: aiohttp.ClientResponse) -> bool:
        """Whether somebody has answered to whom the registry redirects."""
        return response.url.origin() != self.transport.url.origin()

    def failure(self, response: aiohttp.ClientResponse, question: Question) -> RegistryError:
        """Sort a status into no, refused and no answer."""
        status = response.status
        if status in self.missing | question.no_such:
            return question.missing(f"{self.name} has no {question.what} of {question.repository}")
        if status in (401, 403):
            return Refused(f"{self.name} refuses access to {question.repository} ({status})", seen=status)
        if status == 429 or status >= 500:
            wait = response.headers.get("Retry-After")
            return Overloaded(f"{self.name} answered {status} for {question.what}", retry_after=wait)
        return BadAnswer(f"{self.name} answered {status} for {question.what}")

    def check_coding(self, response: aiohttp.ClientResponse) -> None:
        """Raise `BadAnswer` where a body is coded: what is hashed has to be what was sent."""
        coding = ",".join(response.headers.getall("Content-Encoding", ()))
        if not {each.strip().lower() for each in coding.split(",")} <= _NO_CODINGS:
            raise BadAnswer(f"{self.name} sent Content-Encoding {coding[:40]!r}, identity was asked for")
