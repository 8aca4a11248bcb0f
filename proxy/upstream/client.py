"""The five reads over HTTP. Every manifest is measured, hashed and read before it leaves this module."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import aiohttp
import orjson
from yarl import URL

from proxy.oci import mediatype
from proxy.oci.byterange import ByteRange, ContentRange, Nothing, Part, SuffixRange, Whole, parse_content_range
from proxy.oci.challenge import delete_scope, parse_challenges, pull_scope, push_scope
from proxy.oci.content import MAX_MANIFEST, Blob, Descriptor, Manifest, Redirect, RepositoryPage, Resolved, TagPage
from proxy.oci.document import Document, Index, parse
from proxy.oci.endpoint import BlobAt, Catalog, ManifestAt, ReferrersOf, TagsOf, UploadAt
from proxy.oci.errors import (
    BadAnswer,
    BlobUnknown,
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    NoCatalog,
    NotFound,
    Overloaded,
    RangeInvalid,
    Refused,
    RegistryError,
    Rejected,
    UploadUnknown,
)
from proxy.oci.mediatype import ANYTHING, Accept
from proxy.oci.reference import DOCKER_HUB, Digest, Reference, Repository
from proxy.oci.referrers import fallback_tag, union
from proxy.oci.write import ANSWERED, Target, Write, Written, parameter
from proxy.upstream import transfer
from proxy.upstream.auth import Authorizer
from proxy.upstream.guard import passed_on
from proxy.upstream.transport import REDIRECTS, Transport
from proxy.upstream.uploads import Sessions

_MAX_LIST_PAGE: Final = 16 * 1024 * 1024  # bytes
_PAGE: Final = 1000  # tags or repositories asked for at once
_MAX_PAGES: Final = 200
_MAX_REJECTION: Final = 64 * 1024  # bytes of an error document that are read
_MAX_MESSAGE: Final = 300  # characters of its message that are passed on
_CODE: Final = re.compile(r"[A-Z_]{1,64}", re.ASCII)
_Ask = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]
_MAX_REFERRERS_PAGES: Final = 20
_CATALOG_SCOPE: Final = "registry:catalog:*"
_NO_CATALOG: Final = frozenset({400, 404, 405, 406})
_FALLBACK_STATUS: Final = frozenset(
    {400, 404, 405, 406}
)  # "no referrers API here", says the specification's client part


@dataclass(frozen=True, slots=True)
class _Question:
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


@dataclass(frozen=True, slots=True)
class _OpenBlob:
    """What a `Blob` is made of, its chunks still to be begun, and to be cut where the upstream ignores ranges."""

    digest: Digest
    size: int | None
    part: ContentRange | None
    chunks: AsyncGenerator[bytes, None]
    cut_to: ContentRange | None = None


class Upstream:
    """A registry over HTTP."""

    def __init__(
        self,
        transport: Transport,
        authorizer: Authorizer,
        missing: Collection[int] = (404,),
        secret: bytes = b"",
    ) -> None:
        """Take what is needed.

        Args:
            missing: Statuses that mean "does not exist" here: Docker Hub says 401 of a missing repository.
            secret: Signs what clients bring back of an upload.
        """
        self._transport = transport
        self._authorizer = authorizer
        self._sessions = Sessions(transport.url, secret)
        self._missing = frozenset(missing) | {404}
        self._is_hub = transport.url.host in DOCKER_HUB

    @property
    def name(self) -> str:
        """The upstream's name in the configuration."""
        return self._transport.name

    def stretch(self) -> float:
        """How many times longer answers should last now that the rate limit runs out: 1 to 10."""
        return self._transport.registry.rate_limit.stretch()

    async def resolve(self, repository: Repository, reference: Reference, accept: Accept = ANYTHING) -> Resolved:
        """Ask with HEAD, which Docker Hub doesn't count; with GET where the answer to HEAD says too little."""
        question = self._manifest_question("HEAD", repository, reference)
        async with self._ask(question, {"Accept": mediatype.ACCEPT_ALL}) as response:
            if response.status == 200 and (descriptor := _described(response)) is not None:
                if isinstance(reference, Digest) and descriptor.digest != reference:
                    raise BadAnswer(f"{self.name} answered {descriptor.digest} for {reference}")
                return Resolved(descriptor)
            if response.status not in (200, 405):
                raise self._failure(response, question)
        return Resolved((await self.manifest(repository, reference, accept)).descriptor)

    async def manifest(self, repository: Repository, reference: Reference, accept: Accept = ANYTHING) -> Manifest:
        """Fetch a manifest, verified against its digest, the answer's own headers and its own words."""
        question = self._manifest_question("GET", repository, reference)
        async with self._ask(question, {"Accept": mediatype.ACCEPT_ALL}) as response:
            if response.status != 200:
                raise self._failure(response, question)
            self._check_coding(response)
            body = await self._transport.read(response, MAX_MANIFEST, "manifest")
        digest = self._verified(body, reference, response.headers.get("Docker-Content-Digest"))
        document = self._read(body, response.headers.get("Content-Type", ""))
        return Manifest(Descriptor(media_type=document.media_type, digest=digest, size=len(body)), body)

    @asynccontextmanager
    async def blob(self, repository: Repository, digest: Digest, part: Part) -> AsyncIterator[Blob]:
        """Open a blob. A whole one is hashed on its way; a transfer that breaks is resumed where that can be done."""
        if isinstance(part, Nothing):
            question = self._blob_question("HEAD", repository, digest)
            async with self._ask(question, {}) as response:
                self._check_blob(response, question)
                size = response.content_length
            if size is None:
                size = await self._blob_size(repository, digest)
            yield Blob(digest=digest, size=size, part=None, chunks=transfer.nothing())
            return
        async with self._opened(repository, digest, part) as (response, received):
            blob = await self._checked(response, repository, digest, part, received)
            async with aclosing(blob.chunks) as chunks:
                # A small blob is verified before anybody is told that it is there, and a stalled one is an error.
                first = await self._transport.first(chunks)
                primed = transfer.primed(chunks, first)
                if blob.cut_to is not None:
                    primed = transfer.cut(primed, blob.cut_to)
                yield Blob(digest=digest, size=blob.size, part=blob.part, chunks=primed)

    async def _blob_size(self, repository: Repository, digest: Digest) -> int | None:
        """Return how many bytes a blob has whose HEAD doesn't say: clients take a HEAD without a length for none."""
        question = self._blob_question("GET", repository, digest)
        async with self._ask(question, {"Range": "bytes=0-0"}, stream=True) as response:
            if response.status == 416:  # it has no first byte
                return 0
            self._check_blob(response, question)
            if response.status == 206:
                return parse_content_range(response.headers.get("Content-Range", "")).size
            return response.content_length

    async def locate(self, repository: Repository, digest: Digest, part: Part) -> Redirect:
        """Return where this registry would send a client for a blob: elsewhere, or to its own URL.

        It is asked with the client's own method: what is signed is signed for one. No body comes where it doesn't
        redirect, or hardly any.
        """
        is_head = isinstance(part, Nothing)
        question = self._blob_question("HEAD" if is_head else "GET", repository, digest)
        headers = {} if is_head else {"Range": "bytes=0-0"}
        async with self._ask(question, headers, stream=not is_head, redirects=False) as response:
            own = self._url(question.path, {})
            if response.status in REDIRECTS:
                return Redirect(passed_on(self._transport.url, own, response.headers.get("Location", "")))
            if response.status not in (200, 206, 416):  # an empty blob has no first byte
                raise self._failure(response, question)
            return Redirect(str(own))

    @asynccontextmanager
    async def _opened(
        self, repository: Repository, digest: Digest, part: Part
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, AsyncIterator[bytes]]]:
        """Send a blob's GET and yield the answer, with the bytes as they come."""
        question = self._blob_question("GET", repository, digest)
        headers = {} if isinstance(part, Whole) else {"Range": str(part)}
        async with self._ask(question, headers, stream=True) as response:
            self._check_blob(response, question)
            async with aclosing(self._transport.chunks(response)) as chunks:
                yield response, chunks

    @asynccontextmanager
    async def _rest(
        self, repository: Repository, digest: Digest, rest: ByteRange
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open what is left of a blob. Raises `BadAnswer` where the upstream sends anything but exactly that."""
        async with self._opened(repository, digest, rest) as (response, chunks):
            if response.status != 206:
                raise BadAnswer(f"{self.name} can't resume a blob: it ignores ranges")
            _check_part(self.name, rest, parse_content_range(response.headers.get("Content-Range", "")))
            yield chunks

    async def tags(self, repository: Repository, limit: int | None, last: str) -> TagPage:
        """List tags, page by page; the upstream's `Link` only says whether and where to go on, never to whom."""
        question = _Question("GET", repository, TagsOf(self._remote(repository)).path, NameUnknown, "list of tags")
        return TagPage(*await self._list(question, "tags", limit, last))

    def check_write(self, at: Target) -> None:
        """The upstream itself says what it takes."""

    async def write(self, write: Write) -> Written:
        """Pass a step of a push on, streamed; what the upstream rejects is told with its own status and code."""
        question, url = self._write_question(write)
        async with self._told(question, url, write) as response:
            if response.status // 100 != 2:
                raise await self._rejection(response, question)
            headers = {name: response.headers[name] for name in ANSWERED if name in response.headers}
            location = response.headers.get("Location", "")
            if isinstance(write.at, UploadAt) and response.status in (202, 204) and write.method != "DELETE":
                session, query = self._sessions.name(question.repository, url, location)
                return Written(status=response.status, headers=headers, session=session, query=query)
            return Written(status=response.status, headers=headers)

    def _write_question(self, write: Write) -> tuple[_Question, URL]:
        at, repository = write.at, self._remote(write.at.repository)
        what = f"{write.method} to {write.at.repository}"
        if isinstance(at, UploadAt):
            url = self._sessions.url(repository, at.session, write.query)
            return _Question(write.method, repository, at.path, UploadUnknown, what), url
        path = replace(at, repository=repository).path
        missing = BlobUnknown if isinstance(at, BlobAt) else ManifestUnknown
        base = self._transport.url
        url = URL(f"{base.origin()}{base.raw_path.rstrip('/')}{path}", encoded=True).with_query(write.query)
        return _Question(write.method, repository, path, missing, what), url

    @asynccontextmanager
    async def _told(self, question: _Question, url: URL, write: Write) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a write, authenticated. A body that passes only once is sent when it is known how to do that."""
        headers = dict(write.headers)
        if write.body is not None and write.length is not None:
            headers["Content-Length"] = str(write.length)
        scope = _write_scope(question.repository, write)
        if write.body is None or isinstance(write.body, bytes):
            ask = partial(self._transport.document, question.method, url, body=write.body or None, redirects=False)
            async with self._authenticated(question, scope, headers, ask) as response:
                yield response
            return
        if not self._authorizer.introduced:
            await self._introduce(question, scope)
        authorization = await self._authorized(self._authorizer.header(scope), question)
        if authorization:
            headers["Authorization"] = authorization
        async with self._transport.upload(question.method, url, headers, write.body) as response:
            yield response

    async def _introduce(self, question: _Question, scope: str) -> None:
        """Learn how to authenticate from a request that can be sent again."""
        ask = partial(self._transport.document, "GET", self._url("/v2/", {}))
        async with self._authenticated(question, scope, {}, ask):
            pass

    async def _rejection(self, response: aiohttp.ClientResponse, question: _Question) -> RegistryError:
        """Sort what isn't a success: the client's own fault is told in the upstream's words."""
        status = response.status
        if status in (401, 403, 429) or not 400 <= status < 500:
            return self._failure(response, question)
        body = await self._transport.read(response, _MAX_REJECTION, "rejection")
        code, message = _first_error(body)
        return Rejected(
            f"{self.name} answered {status}{f': {message}' if message else ''}",
            status=status,
            code=code or question.missing.code,
        )

    async def catalog(self, limit: int | None, last: str) -> RepositoryPage:
        """List repositories in the same way."""
        path, scope = Catalog().path, _CATALOG_SCOPE
        question = _Question("GET", Repository(""), path, NoCatalog, "catalog", _NO_CATALOG, scope)
        try:
            return RepositoryPage(*await self._list(question, "repositories", limit, last))
        except NoCatalog:
            raise NoCatalog(f"{self.name} offers no catalog") from None
        except Refused as refused:
            raise Refused(f"{self.name} refuses access to its catalog ({refused.seen})", seen=refused.seen) from None

    async def referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Ask the referrers API and the fallback tag both: an upstream that got the API later may leave out the tag."""
        return union(await self._referrers(repository, digest), await self._fallback(repository, digest))

    async def _referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Ask the referrers API, page by page; without one, or without such a repository, there is nothing."""
        path, what = ReferrersOf(self._remote(repository), digest).path, f"referrers of {digest}"
        question = _Question("GET", repository, path, ManifestUnknown, what, _FALLBACK_STATUS)
        try:
            page, query = await self._referrers_page(question, {})
        except NotFound:
            return ()
        pages = [page]
        while query is not None:
            if len(pages) == _MAX_REFERRERS_PAGES:
                raise BadAnswer(f"{self.name} has more than {_MAX_REFERRERS_PAGES} pages of {what}")
            page, query = await self._following(question, query)
            pages.append(page)
        return tuple(entry for page in pages for entry in page)

    async def _following(
        self, question: _Question, query: Mapping[str, str]
    ) -> tuple[tuple[Descriptor, ...], Mapping[str, str] | None]:
        """Return a page that the one before has promised: without it the list would only look whole."""
        try:
            return await self._referrers_page(question, query)
        except NotFound:
            raise BadAnswer(f"{self.name} doesn't go on with the {question.what}") from None

    async def _referrers_page(
        self, question: _Question, query: Mapping[str, str]
    ) -> tuple[tuple[Descriptor, ...], Mapping[str, str] | None]:
        """Return a page and the query of the next one; None where it is the last."""
        async with self._ask(question, {"Accept": mediatype.OCI_INDEX}, query=query) as response:
            if response.status != 200:
                raise self._failure(response, question)
            if mediatype.bare(response.content_type) != mediatype.OCI_INDEX:
                raise question.missing(f"{self.name} has no referrers API")
            body = await self._transport.read(response, MAX_MANIFEST, "referrers list")
        return self._entries(body), _next_query(response.headers.get("Link", ""))

    async def _fallback(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        try:
            found = await self.manifest(repository, fallback_tag(digest))
        except NotFound:
            return ()
        return self._entries(found.body) if found.descriptor.media_type == mediatype.OCI_INDEX else ()

    def _entries(self, body: bytes) -> tuple[Descriptor, ...]:
        document = self._read(body, mediatype.OCI_INDEX)
        return document.manifests if isinstance(document, Index) else ()

    @asynccontextmanager
    async def _ask(
        self,
        question: _Question,
        headers: Mapping[str, str],
        *,
        query: Mapping[str, str] | None = None,
        stream: bool = False,
        redirects: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for something of a repository, authenticated."""
        url = self._url(question.path, query or {})
        ask: _Ask = partial(self._transport.stream, url, redirects=redirects)
        if not stream:
            ask = partial(self._transport.document, question.method, url, redirects=redirects)
        async with self._authenticated(
            question, question.scope or pull_scope(self._remote(question.repository)), headers, ask
        ) as response:
            yield response

    @asynccontextmanager
    async def _authenticated(
        self, question: _Question, scope: str, headers: Mapping[str, str], ask: _Ask
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request with an `Authorization` for *scope*; after a 401 once more, with what it challenges for."""
        authorization = await self._authorized(self._authorizer.header(scope), question)
        for retry in (True, False):
            given = {**headers, "Authorization": authorization} if authorization else dict(headers)
            async with ask(headers=given) as response:
                if response.status != 401 or not retry:
                    yield response
                    return
                challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            if not challenges:
                raise self._failure(response, question)
            answer = self._authorizer.answer(challenges, scope, authorization)
            authorization = await self._authorized(answer, question)

    async def _authorized(self, header: Any, question: _Question) -> str | None:
        """Wait for an `Authorization`.

        A refusal means "missing" where the operator said that it does, but never where credentials are
        configured: those that have expired must not make every image of the registry vanish (law 4).
        """
        try:
            found: str | None = await header
        except Refused as refused:
            if refused.seen in self._missing and self._authorizer.anonymous:
                raise question.missing(f"{self.name} has no {question.what} of {question.repository}") from None
            raise refused from None
        return found

    def _blob_question(self, method: str, repository: Repository, digest: Digest) -> _Question:
        path = BlobAt(self._remote(repository), digest).path
        return _Question(method, repository, path, BlobUnknown, f"blob {digest}")

    def _manifest_question(self, method: str, repository: Repository, reference: Reference) -> _Question:
        path = ManifestAt(self._remote(repository), reference).path
        return _Question(method, repository, path, ManifestUnknown, f"manifest {reference}")

    def _remote(self, repository: Repository) -> Repository:
        """Docker Hub's official images live under `library/`, which nobody writes."""
        return Repository(f"library/{repository}") if self._is_hub and "/" not in repository else repository

    def _url(self, path: str, query: Mapping[str, str]) -> URL:
        base = self._transport.url
        return base.with_path(base.path.rstrip("/") + path, encoded=True).with_query(query)

    def _failure(self, response: aiohttp.ClientResponse, question: _Question) -> RegistryError:
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

    def _check_blob(self, response: aiohttp.ClientResponse, question: _Question) -> None:
        if response.status == 416:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            size = int(total) if total.isascii() and total.isdigit() else None
            raise RangeInvalid(f"the range is not within the {question.what}", size=size)
        if response.status not in (200, 206):
            raise self._failure(response, question)
        self._check_coding(response)

    def _check_coding(self, response: aiohttp.ClientResponse) -> None:
        coding = response.headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            raise BadAnswer(f"{self.name} sent Content-Encoding {coding[:40]!r}, identity was asked for")

    def _verified(self, body: bytes, reference: Reference, announced: str | None) -> Digest:
        """Return the digest that *body* really has. Raises `BadAnswer` where anybody claimed another."""
        claimed = reference if isinstance(reference, Digest) else None
        if claimed is None and announced is not None:
            try:
                claimed = Digest.parse(announced)
            except DigestInvalid:
                raise BadAnswer(f"{self.name} sent an unusable Docker-Content-Digest") from None
        if claimed is None:
            return Digest.of(body)
        if not claimed.matches(body):
            raise BadAnswer(f"{self.name} sent {len(body)} bytes for {claimed} that hash to {Digest.of(body)}")
        return claimed

    def _read(self, body: bytes, content_type: str) -> Document:
        """Read the manifest for what it is; errors get the upstream's name."""
        try:
            return parse(body, content_type)
        except BadAnswer as error:
            raise BadAnswer(f"{self.name}: {error.message}") from None

    async def _checked(
        self,
        response: aiohttp.ClientResponse,
        repository: Repository,
        digest: Digest,
        part: Part,
        received: AsyncIterator[bytes],
    ) -> _OpenBlob:
        """Return how the blob is passed on. That a range is behind its end is only said of bytes that were hashed."""
        try:
            return self._blob_of(response, repository, digest, part, received)
        except RangeInvalid:
            async for _ in transfer.hashed(received, digest, self.name):
                pass
            raise

    def _blob_of(
        self,
        response: aiohttp.ClientResponse,
        repository: Repository,
        digest: Digest,
        part: Part,
        received: AsyncIterator[bytes],
    ) -> _OpenBlob:
        """Put together how the bytes of *response* are passed on: resumed, then verified, then cut if need be."""

        def reopen(rest: ByteRange) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
            return self._rest(repository, digest, rest)

        size = response.content_length
        if response.status == 206:
            got = self._part_of(response, digest, part)
            chunks = transfer.resumed(received, got.first, got.length, reopen, self.name)
            return _OpenBlob(digest, got.size, got, transfer.measured(chunks, got.length, self.name))
        whole = transfer.hashed(transfer.resumed(received, 0, size, reopen, self.name), digest, self.name)
        if isinstance(part, ByteRange | SuffixRange) and size is not None:
            # The upstream ignores ranges; resuming clients insist on them, so the rest is read and dropped.
            wanted = part.within(size)
            return _OpenBlob(digest, size, wanted, whole, cut_to=wanted)
        return _OpenBlob(digest, size, None, whole)

    def _part_of(self, response: aiohttp.ClientResponse, digest: Digest, part: Part) -> ContentRange:
        if isinstance(part, Whole):
            raise BadAnswer(f"{self.name} sent a part of {digest}, all of it was asked for")
        got = parse_content_range(response.headers.get("Content-Range", ""))
        _check_part(self.name, part, got)
        return got

    async def _list(self, question: _Question, key: str, limit: int | None, last: str) -> tuple[tuple[str, ...], bool]:
        """Return at most *limit* names that an upstream lists under *key* behind *last*, and whether there are more."""
        found: list[str] = []
        for _ in range(_MAX_PAGES):
            wanted = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page, following = await self._list_page(question, key, wanted, last)
            found += page
            if following is None or not page or (limit is not None and len(found) >= limit):
                return tuple(found[:limit]), following is not None or len(found) > len(found[:limit])
            last = following
        return tuple(found), True

    async def _list_page(self, question: _Question, key: str, limit: int, last: str) -> tuple[list[str], str | None]:
        """Return a page, and behind which name the next one begins; None where it is the last."""
        query = {"n": str(limit), "last": last} if last else {"n": str(limit)}
        async with self._ask(question, {"Accept": "application/json"}, query=query) as response:
            if response.status != 200:
                raise self._failure(response, question)
            body = await self._transport.read(response, _MAX_LIST_PAGE, question.what)
        try:
            names = [str(name) for name in orjson.loads(body)[key] or ()]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise BadAnswer(f"{self.name} sent a {question.what} that is none") from None
        return names, _next_page(response.headers.get("Link", ""), names)


def _write_scope(repository: Repository, write: Write) -> str:
    """Return what a write needs to be allowed: a mount reads another repository, too."""
    if write.method == "DELETE" and not isinstance(write.at, UploadAt):
        return delete_scope(repository)
    source = parameter(write.query, "from") if isinstance(write.at, UploadAt) and not write.at.session else ""
    try:
        return push_scope(repository, *([Repository.parse(source)] if source else []))
    except NameInvalid:
        return push_scope(repository)


def _first_error(body: bytes) -> tuple[str, str]:
    """Return code and message of a registry's error document; empty where it isn't one."""
    try:
        first = orjson.loads(body)["errors"][0]
        code, message = str(first.get("code") or ""), str(first.get("message") or "")
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return "", ""
    shown = "".join(c if c.isprintable() else " " for c in message[:_MAX_MESSAGE])
    return code if _CODE.fullmatch(code) else "", shown


def _described(response: aiohttp.ClientResponse) -> Descriptor | None:
    """Read what HEAD says of a manifest; None where it doesn't say all."""
    try:
        digest = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except DigestInvalid:
        return None
    media_type = mediatype.bare(response.headers.get("Content-Type", ""))
    if not response.content_length or media_type not in mediatype.INDEXES | mediatype.MANIFESTS:
        return None
    return Descriptor(media_type=media_type, digest=digest, size=response.content_length)


def _check_part(name: str, part: Part, got: ContentRange) -> None:
    """A part must be the one that was asked for; its end may be clamped to the blob's."""
    wanted = part
    if isinstance(wanted, SuffixRange) and got.size is not None:
        wanted = ByteRange(max(0, got.size - wanted.length))
    if isinstance(wanted, ByteRange):
        end = wanted.last if wanted.last is not None else got.last
        whole_tail = wanted.last is not None or got.size is None or got.last == got.size - 1
        if got.first == wanted.first and got.last <= end and whole_tail:
            return
    raise BadAnswer(f"{name} sent {got}, {part} was asked for")


def _next_page(link: str, names: list[str]) -> str | None:
    """Return the `last` of a Link header's next page, or None without one."""
    query = _next_query(link)
    return None if query is None else query.get("last", names[-1] if names else "")


def _next_query(link: str) -> Mapping[str, str] | None:
    """Return the query of a Link header's next page (RFC 8288), or None without one. Nothing else of it counts."""
    target, _, parameters = link.partition(";")
    if 'rel="next"' not in parameters.replace("'", '"') and "rel=next" not in parameters:
        return None
    query = parse_qs(target.strip().strip("<>").partition("#")[0].partition("?")[2])
    return {name: values[0] for name, values in query.items()}
