"""Lists over HTTP: tags, repositories, referrers. A page's `Link` says where to go on, never whom to ask."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs

import orjson

from proxy.oci import mediatype
from proxy.oci.content import MAX_MANIFEST, Descriptor, RepositoryPage, TagPage
from proxy.oci.document import Index
from proxy.oci.endpoint import Catalog, ReferrersOf, TagsOf
from proxy.oci.errors import BadAnswer, ManifestUnknown, NameUnknown, NoCatalog, NotFound, Refused
from proxy.oci.reference import Digest, Repository
from proxy.oci.referrers import fallback_tag, union
from proxy.upstream.asker import Asker, Question
from proxy.upstream.manifests import Manifests

_MAX_LIST_PAGE: Final = 16 * 1024 * 1024  # bytes
_PAGE: Final = 1000  # tags or repositories asked for at once
_MAX_PAGES: Final = 200
_MAX_NAMES: Final = 1_000_000  # of one list; those who ignore `n` send all on one page
_MAX_REFERRERS_PAGES: Final = 20
_LINK: Final = re.compile(r"<([^<>]*)>([^<]*)")  # where it leads, and what is said of that
_CATALOG_SCOPE: Final = "registry:catalog:*"
_NO_CATALOG: Final = frozenset({400, 404, 405, 406})
# "no referrers API here", says the specification's client part
_FALLBACK_STATUS: Final = frozenset({400, 404, 405, 406})


class Lists:
    """The lists of one registry."""

    def __init__(self, asker: Asker, manifests: Manifests) -> None:
        self._asker = asker
        self._manifests = manifests

    async def tags(self, repository: Repository, limit: int | None, last: str) -> TagPage:
        """List tags, page by page; the upstream's `Link` only says whether and where to go on, never to whom."""
        question = Question("GET", repository, TagsOf(self._asker.remote(repository)).path, NameUnknown, "list of tags")
        return TagPage(*await self._list(question, "tags", limit, last))

    async def catalog(self, limit: int | None, last: str) -> RepositoryPage:
        """List repositories in the same way."""
        path, scope = Catalog().path, _CATALOG_SCOPE
        question = Question("GET", Repository(""), path, NoCatalog, "catalog", _NO_CATALOG, scope)
        try:
            return RepositoryPage(*await self._list(question, "repositories", limit, last))
        except NoCatalog:
            raise NoCatalog(f"{self._asker.name} offers no catalog") from None
        except Refused as refused:
            raise Refused(
                f"{self._asker.name} refuses access to its catalog ({refused.seen})", seen=refused.seen
            ) from None

    async def referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Ask the referrers API and the fallback tag both: an upstream that got the API later may leave out the tag."""
        return union(await self._referrers(repository, digest), await self._fallback(repository, digest))

    async def _referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Ask the referrers API, page by page; without one, or without such a repository, there is nothing."""
        path, what = ReferrersOf(self._asker.remote(repository), digest).path, f"referrers of {digest}"
        question = Question("GET", repository, path, ManifestUnknown, what, _FALLBACK_STATUS)
        try:
            page, query = await self._referrers_page(question, {})
        except NotFound:
            return ()
        pages = [page]
        while query is not None:
            if len(pages) == _MAX_REFERRERS_PAGES:
                raise BadAnswer(f"{self._asker.name} has more than {_MAX_REFERRERS_PAGES} pages of {what}")
            page, query = await self._following(question, query)
            pages.append(page)
        return tuple(entry for page in pages for entry in page)

    async def _following(
        self, question: Question, query: Mapping[str, str]
    ) -> tuple[tuple[Descriptor, ...], Mapping[str, str] | None]:
        """Return a page that the one before has promised: without it the list would only look whole."""
        try:
            return await self._referrers_page(question, query)
        except NotFound:
            raise BadAnswer(f"{self._asker.name} doesn't go on with the {question.what}") from None

    async def _referrers_page(
        self, question: Question, query: Mapping[str, str]
    ) -> tuple[tuple[Descriptor, ...], Mapping[str, str] | None]:
        """Return a page and the query of the next one; None where it is the last."""
        entries: tuple[Descriptor, ...] = ()
        accept = {"Accept": mediatype.OCI_INDEX}
        async with self._asker.ask(question, accept, query=query, shown=lambda: bool(entries)) as response:
            if response.status != 200:
                raise self._asker.failure(response, question)
            if mediatype.bare(response.content_type) != mediatype.OCI_INDEX:
                raise question.missing(f"{self._asker.name} has no referrers API")
            entries = self._entries(await self._asker.transport.read(response, MAX_MANIFEST, "referrers list"))
            return entries, _next_query(response.headers.getall("Link", ()))

    async def _fallback(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        try:
            found = await self._manifests.manifest(repository, fallback_tag(digest))
        except NotFound:
            return ()
        return self._entries(found.body) if found.descriptor.media_type == mediatype.OCI_INDEX else ()

    def _entries(self, body: bytes) -> tuple[Descriptor, ...]:
        document = self._manifests.read(body, mediatype.OCI_INDEX)
        return document.manifests if isinstance(document, Index) else ()

    async def _list(self, question: Question, key: str, limit: int | None, last: str) -> tuple[tuple[str, ...], bool]:
        """Return at most *limit* names that an upstream lists under *key* behind *last*, and whether there are more."""
        found: list[str] = []
        for _ in range(_MAX_PAGES):
            wanted = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page, following = await self._list_page(question, key, wanted, last)
            found += page
            if len(found) > _MAX_NAMES:
                raise BadAnswer(f"{self._asker.name} has more than {_MAX_NAMES} names in its {question.what}")
            if following is None or not page or (limit is not None and len(found) >= limit):
                return tuple(found[:limit]), following is not None or len(found) > len(found[:limit])
            last = following
        return tuple(found), True

    async def _list_page(self, question: Question, key: str, limit: int, last: str) -> tuple[list[str], str | None]:
        """Return a page, and behind which name the next one begins; None where it is the last."""
        query = {"n": str(limit), "last": last} if last else {"n": str(limit)}
        names: list[str] = []
        accept = {"Accept": "application/json"}
        async with self._asker.ask(question, accept, query=query, shown=lambda: bool(names)) as response:
            if response.status != 200:
                raise self._asker.failure(response, question)
            names = self._names(
                await self._asker.transport.read(response, _MAX_LIST_PAGE, question.what), key, question
            )
            return names, _next_page(response.headers.getall("Link", ()), names)

    def _names(self, body: bytes, key: str, question: Question) -> list[str]:
        if body.count(b",") > _MAX_NAMES:  # before they are ten times as large
            raise BadAnswer(f"{self._asker.name} sent more than {_MAX_NAMES} names in its {question.what}")
        try:
            return [str(name) for name in orjson.loads(body)[key] or ()]
        except (orjson.JSONDecodeError, KeyError, TypeError, RecursionError):
            raise BadAnswer(f"{self._asker.name} sent a {question.what} that is none") from None


def _next_page(links: Sequence[str], names: list[str]) -> str | None:
    """Return the `last` of the next page in `Link` headers, or None without one."""
    query = _next_query(links)
    return None if query is None else query.get("last", names[-1] if names else "")


def _next_query(links: Sequence[str]) -> Mapping[str, str] | None:
    """Return the query of the next page in `Link` headers (RFC 8288), or None without one. Nothing else counts."""
    text = ", ".join(links)
    for target, parameters in _LINK.findall(text) or [text.partition(";")[::2]]:  # some leave the brackets out
        if 'rel="next"' in parameters.replace("'", '"') or "rel=next" in parameters:
            query = parse_qs(target.strip().partition("#")[0].partition("?")[2])
            return {name: values[0] for name, values in query.items()}
    return None
