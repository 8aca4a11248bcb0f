"""The five reads over HTTP. Every manifest is measured, hashed and read before it leaves this module."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import aiohttp
import orjson
from yarl import URL

from proxy.oci import mediatype
from proxy.oci.byterange import ByteRange, ContentRange, Nothing, Part, SuffixRange, Whole, parse_content_range
from proxy.oci.challenge import parse_challenges, pull_scope
from proxy.oci.content import MAX_MANIFEST, Blob, Descriptor, Manifest, Redirect, Resolved, TagPage, empty_index
from proxy.oci.document import parse
from proxy.oci.endpoint import BlobAt, ManifestAt, ReferrersOf, TagsOf
from proxy.oci.errors import (
    BadAnswer,
    BlobUnknown,
    DigestInvalid,
    ManifestUnknown,
    NameUnknown,
    NotFound,
    Overloaded,
    RangeInvalid,
    Refused,
    RegistryError,
)
from proxy.oci.mediatype import ANYTHING, Accept
from proxy.oci.reference import DOCKER_HUB, Digest, Reference, Repository, Tag
from proxy.upstream import transfer
from proxy.upstream.auth import Authorizer
from proxy.upstream.guard import passed_on
from proxy.upstream.transport import REDIRECTS, Transport

_MAX_TAGS_PAGE: Final = 16 * 1024 * 1024  # bytes
_PAGE: Final = 1000  # tags asked for at once
_MAX_PAGES: Final = 200
_FALLBACK_STATUS: Final = frozenset(
    {400, 404, 405, 406}
)  # "no referrers API here", says the specification's client part


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked, for scopes, errors and URLs."""

    method: str
    repository: Repository
    path: str
    missing: type[NotFound]
    what: str


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

    def __init__(self, transport: Transport, authorizer: Authorizer, missing: Collection[int] = (404,)) -> None:
        """Take what is needed.

        Args:
            missing: Statuses that mean "does not exist" here: Docker Hub says 401 of a missing repository.
        """
        self._transport = transport
        self._authorizer = authorizer
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
        document = self._in_our_words(body, response.headers.get("Content-Type", ""))
        return Manifest(Descriptor(media_type=document, digest=digest, size=len(body)), body)

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
        found: list[str] = []
        for _ in range(_MAX_PAGES):
            wanted = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page, following = await self._tags_page(repository, wanted, last)
            found += page
            if following is None or not page or (limit is not None and len(found) >= limit):
                return TagPage(tuple(found[:limit]), more=following is not None or len(found) > len(found[:limit]))
            last = following
        return TagPage(tuple(found), more=True)

    async def referrers(self, repository: Repository, digest: Digest, artifact_type: str) -> Manifest:
        """Ask the referrers API, else the fallback tag. Nothing there is an empty index."""
        path = ReferrersOf(self._remote(repository), digest).path
        question = _Question("GET", repository, path, ManifestUnknown, f"referrers of {digest}")
        query = {"artifactType": artifact_type} if artifact_type else {}
        async with self._ask(question, {"Accept": mediatype.OCI_INDEX}, query=query) as response:
            if response.status == 200 and mediatype.bare(response.content_type) == mediatype.OCI_INDEX:
                body = await self._transport.read(response, MAX_MANIFEST, "referrers list")
                self._in_our_words(body, mediatype.OCI_INDEX)
                return Manifest.of(mediatype.OCI_INDEX, body)
            if response.status != 200 and response.status not in self._missing | _FALLBACK_STATUS:
                raise self._failure(response, question)
        return await self._fallback(repository, digest)

    async def _fallback(self, repository: Repository, digest: Digest) -> Manifest:
        try:
            found = await self.manifest(repository, Tag(f"{digest.algorithm}-{digest.hex[:64]}"))
        except NotFound:
            return empty_index()
        return found if found.descriptor.media_type == mediatype.OCI_INDEX else empty_index()

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
        """Send a request, authenticated; after a 401 once more, with what it challenges for."""
        scope = pull_scope(self._remote(question.repository))
        authorization = await self._authorized(self._authorizer.header(scope), question)
        url = self._url(question.path, query or {})
        for retry in (True, False):
            given = {**headers, "Authorization": authorization} if authorization else dict(headers)
            opened = (
                self._transport.stream(url, given, redirects=redirects)
                if stream
                else self._transport.document(question.method, url, given, redirects=redirects)
            )
            async with opened as response:
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
        if status in self._missing:
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

    def _in_our_words(self, body: bytes, content_type: str) -> str:
        """Read the manifest for what it is and return its media type; errors get the upstream's name."""
        try:
            return parse(body, content_type).media_type
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

    async def _tags_page(self, repository: Repository, limit: int, last: str) -> tuple[list[str], str | None]:
        """Return a page, and behind which tag the next one begins; None where it is the last."""
        question = _Question("GET", repository, TagsOf(self._remote(repository)).path, NameUnknown, "list of tags")
        query = {"n": str(limit), "last": last} if last else {"n": str(limit)}
        async with self._ask(question, {"Accept": "application/json"}, query=query) as response:
            if response.status != 200:
                raise self._failure(response, question)
            body = await self._transport.read(response, _MAX_TAGS_PAGE, "list of tags")
        try:
            tags = [str(tag) for tag in orjson.loads(body)["tags"] or ()]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise BadAnswer(f"{self.name} sent a list of tags that is none") from None
        return tags, _next_page(response.headers.get("Link", ""), tags)


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


def _next_page(link: str, tags: list[str]) -> str | None:
    """Return the `last` of a Link header's next page (RFC 8288), or None without one."""
    target, _, parameters = link.partition(";")
    if 'rel="next"' not in parameters.replace("'", '"') and "rel=next" not in parameters:
        return None
    query = parse_qs(urlsplit(target.strip().strip("<>")).query)
    return query.get("last", tags[-1:] or [""])[0]
