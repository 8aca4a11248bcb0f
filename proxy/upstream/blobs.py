"""Blobs over HTTP: whole or a part, resumed where they break off, verified on their way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp

from proxy.oci import mediatype
from proxy.oci.byterange import ByteRange, ContentRange, Nothing, Part, SuffixRange, Whole, parse_content_range, select
from proxy.oci.content import Blob, Redirect
from proxy.oci.endpoint import BlobAt
from proxy.oci.errors import BadAnswer, BlobUnknown, RangeInvalid
from proxy.oci.reference import Digest, Repository
from proxy.upstream import transfer
from proxy.upstream.asker import Asker, Question
from proxy.upstream.transport import REDIRECTS

_PAGES: Final = ("text/html", "application/json", "application/problem+json")
_NOT_FOR_HEAD: Final = (400, 401, 403)  # S3 of a URL that was signed for GET
_BINARY: Final = ("application", "binary")  # S3 says binary/octet-stream of what nobody named


@dataclass(frozen=True, slots=True)
class _OpenBlob:
    """What a `Blob` is made of, its chunks still to be begun, and to be cut where the upstream ignores ranges."""

    digest: Digest
    size: int | None
    part: ContentRange | None
    chunks: AsyncGenerator[bytes, None]
    cut_to: ContentRange | None = None


class Blobs:
    """The blobs of one registry."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    @asynccontextmanager
    async def open(self, repository: Repository, digest: Digest, part: Part) -> AsyncIterator[Blob]:
        """Open a blob. A whole one is hashed on its way; a transfer that breaks is resumed where that can be done."""
        if isinstance(part, Nothing):
            size = await self._length(repository, digest)
            if size is None:
                size = await self._size(repository, digest)
            yield Blob(digest=digest, size=size, part=None, chunks=transfer.nothing())
            return
        async with AsyncExitStack() as stack:
            response, received = await self._begun(stack, repository, digest, part)
            blob = await self._checked(response, repository, digest, part, received)
            async with aclosing(blob.chunks) as chunks:
                # A small blob is verified before anybody is told that it is there, and a stalled one is an error.
                first = await self._asker.transport.first(chunks)
                primed = transfer.primed(chunks, first)
                if blob.cut_to is not None:
                    primed = transfer.cut(primed, blob.cut_to)
                yield Blob(digest=digest, size=blob.size, part=blob.part, chunks=primed, streamed=True)

    async def _begun(
        self, stack: AsyncExitStack, repository: Repository, digest: Digest, part: Part
    ) -> tuple[aiohttp.ClientResponse, AsyncIterator[bytes]]:
        """Ask for *part*, and for all where the upstream is wrong about having no such bytes.

        go-containerregistry's registry says 416 of `500-` and of what ends behind the blob; all of it is read then,
        and cut.
        """
        try:
            return await stack.enter_async_context(self._opened(repository, digest, part))
        except RangeInvalid as invalid:
            size = invalid.size if invalid.size is not None else await self._length(repository, digest)
            if size is None or not isinstance(part, ByteRange | SuffixRange):
                raise
        select(part, size)  # raises where it really has none of them
        return await stack.enter_async_context(self._opened(repository, digest, Whole()))

    async def _length(self, repository: Repository, digest: Digest) -> int | None:
        """Return what HEAD says of a blob's size; None where it says nothing, or can't be asked."""
        question = self._question("HEAD", repository, digest)
        async with self._asker.ask(question, {}) as response:
            if response.status == 405 or (self._asker.is_elsewhere(response) and response.status in _NOT_FOR_HEAD):
                return None
            self._check(response, question)
            self._check_kind(response, question)
            return response.content_length

    async def _size(self, repository: Repository, digest: Digest) -> int | None:
        """Return how many bytes a blob has whose HEAD doesn't say: clients take a HEAD without a length for none."""
        question = self._question("GET", repository, digest)
        async with self._asker.ask(question, {"Range": "bytes=0-0"}, stream=True) as response:
            if response.status == 416:  # it has no first byte
                return 0
            self._check(response, question)
            if response.status == 206:
                return parse_content_range(response.headers.get("Content-Range", "")).size
            return response.content_length

    async def locate(self, repository: Repository, digest: Digest, part: Part) -> Redirect:
        """Return where this registry would send a client for a blob: elsewhere, or to its own URL.

        It is asked with the client's own method: what is signed is signed for one. No body comes where it doesn't
        redirect, or hardly any.
        """
        is_head = isinstance(part, Nothing)
        question = self._question("HEAD" if is_head else "GET", repository, digest)
        headers = {} if is_head else {"Range": "bytes=0-0"}
        async with self._asker.ask(question, headers, stream=not is_head, redirects=False) as response:
            own = self._asker.url(question.path, {})
            if response.status in REDIRECTS:
                return Redirect(self._asker.transport.bounds.passed_on(own, response.headers.get("Location", "")))
            if response.status not in (200, 206, 416):  # an empty blob has no first byte
                raise self._asker.failure(response, question)
            if is_head:
                self._check_kind(response, question)
            return Redirect(str(own))

    @asynccontextmanager
    async def _opened(
        self, repository: Repository, digest: Digest, part: Part
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, AsyncIterator[bytes]]]:
        """Send a blob's GET and yield the answer, with the bytes as they come."""
        question = self._question("GET", repository, digest)
        headers = {} if isinstance(part, Whole) else {"Range": str(part)}
        async with self._asker.ask(question, headers, stream=True) as response:
            self._check(response, question)
            async with aclosing(self._asker.transport.chunks(response)) as chunks:
                yield response, chunks

    @asynccontextmanager
    async def _rest(
        self, repository: Repository, digest: Digest, rest: ByteRange
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open what is left of a blob. Raises `BadAnswer` where the upstream sends anything but exactly that."""
        async with self._opened(repository, digest, rest) as (response, chunks):
            if response.status != 206:
                raise BadAnswer(f"{self._asker.name} can't resume a blob: it ignores ranges")
            _check_part(self._asker.name, rest, parse_content_range(response.headers.get("Content-Range", "")))
            yield chunks

    def _question(self, method: str, repository: Repository, digest: Digest) -> Question:
        path = BlobAt(self._asker.remote(repository), digest).path
        return Question(method, repository, path, BlobUnknown, f"blob {digest}")

    def _check(self, response: aiohttp.ClientResponse, question: Question) -> None:
        if response.status == 416:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            size = int(total) if total.isascii() and total.isdigit() else None
            raise RangeInvalid(f"the range is not within the {question.what}", size=size)
        if response.status in (401, 403) and self._asker.is_elsewhere(response):
            # It is a signature that is refused there; the registry itself has let us in.
            host, what = response.url.host, question.what
            raise BadAnswer(f"{self._asker.name} redirects to {host} for {what}, which answered {response.status}")
        if response.status not in (200, 206):
            raise self._asker.failure(response, question)
        self._asker.check_coding(response)

    def _check_kind(self, response: aiohttp.ClientResponse, question: Question) -> None:
        """Raise `BadAnswer` where what can't be hashed isn't about a blob, but speaks to people or of an error.

        A registry names the digest, or says that it sends something binary. The storage host that it redirects to
        says what it was told when the blob was pushed, which may be anything but a page.
        """
        if "Docker-Content-Digest" in response.headers:
            return
        kind = mediatype.bare(response.content_type)
        is_own = response.url == self._asker.url(question.path, {})
        if kind in _PAGES or (is_own and kind.partition("/")[0] not in _BINARY):
            raise BadAnswer(f"{self._asker.name} sent a page of {kind} for the {question.what}")

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
            async for _ in transfer.hashed(received, digest, self._asker.name):
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
        is_nothing = size == 0 and isinstance(part, SuffixRange)  # distribution: "bytes 0--1/0", which no range is
        if response.status == 206 and not is_nothing:
            got = self._part_of(response, digest, part)
            chunks = transfer.resumed(received, got.first, got.length, reopen, self._asker.name)
            return _OpenBlob(digest, got.size, got, transfer.measured(chunks, got.length, self._asker.name))
        whole = transfer.hashed(transfer.resumed(received, 0, size, reopen, self._asker.name), digest, self._asker.name)
        if isinstance(part, ByteRange | SuffixRange) and size is not None:
            # The upstream ignores ranges; resuming clients insist on them, so the rest is read and dropped.
            wanted = select(part, size)
            return _OpenBlob(digest, size, wanted, whole, cut_to=wanted)
        return _OpenBlob(digest, size, None, whole)

    def _part_of(self, response: aiohttp.ClientResponse, digest: Digest, part: Part) -> ContentRange:
        if isinstance(part, Whole):
            raise BadAnswer(f"{self._asker.name} sent a part of {digest}, all of it was asked for")
        got = parse_content_range(response.headers.get("Content-Range", ""))
        _check_part(self._asker.name, part, got)
        return got


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
