"""Lists on the wire: tags, repositories, and what refers to a digest."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import quote, urlencode

import orjson
from aiohttp import web

from proxy.oci import referrers as rendering
from proxy.oci.content import MAX_MANIFEST, RepositoryPage, TagPage
from proxy.oci.endpoint import Catalog, ReferrersOf, TagsOf
from proxy.oci.errors import BadAnswer, PaginationInvalid
from proxy.web.manifests import warnings
from proxy.web.request import Request

_MAX_PAGE: Final = 1000  # names in one answer; CVE-2023-2253 was an unbounded `n`


async def tags(request: Request, at: TagsOf) -> web.StreamResponse:
    """Answer with a page of a repository's tags, and where the next one is."""
    registry, repository = request.find(at.repository)
    limit, last = _wanted(request)
    page = TagPage(()) if limit == 0 else await registry.tags(repository, limit, last)
    response = request.json(orjson.dumps({"name": at.repository, "tags": page.tags}))
    if page.more and page.tags:
        response.headers["Link"] = _next(request, at.path, limit or len(page.tags), page.tags[-1])
    return response


async def catalog(request: Request, at: Catalog) -> web.StreamResponse:
    """Answer with a page of a registry's repositories; without `n` it isn't all of them, as they may be many."""
    limit, last = _wanted(request)
    limit = _MAX_PAGE if limit is None else limit
    page = RepositoryPage(()) if limit == 0 else await _visible(request, limit, last)
    response = request.json(orjson.dumps({"repositories": page.repositories}))
    if page.more and page.repositories:
        response.headers["Link"] = _next(request, at.path, limit, page.repositories[-1])
    for warning in warnings(page.warnings):
        response.headers.add("Warning", warning)
    return response


async def _visible(request: Request, limit: int, last: str) -> RepositoryPage:
    """Return a page of the repositories that the caller may pull. It takes as many pages of all as it needs.

    Where the next one begins is told by a name that was shown: a hidden one would be told by it.
    """
    catalogue, upstream = request.catalogue()
    shown: list[str] = []
    while True:
        page = await catalogue.catalog(_MAX_PAGE, last)
        shown += [name for name in page.repositories if request.sees(upstream, name)]
        if len(shown) > limit or not page.more or not page.repositories:
            return RepositoryPage(tuple(shown[:limit]), len(shown) > limit or page.more, page.warnings)
        last = page.repositories[-1]
        await asyncio.sleep(0)  # others want answers, and there may be half a million that are hidden


async def referrers(request: Request, at: ReferrersOf) -> web.StreamResponse:
    """Answer with the index of what refers to a digest: always one, whatever it holds."""
    registry, repository = request.find(at.repository)
    # In a form "+" would be a space; a media type has none, and nearly all of them have a plus.
    wanted = request.http.rel_url.query.get("artifactType", "").replace(" ", "+")
    found = rendering.render(rendering.only(await registry.referrers(repository, at.digest), wanted))
    if len(found.body) > MAX_MANIFEST:
        raise BadAnswer(
            f"the list of what refers to {at.digest} has {len(found.body)} bytes, clients take no such index"
        )
    headers = {"Content-Type": found.descriptor.media_type, "Content-Length": str(len(found.body))}
    if wanted:
        headers["OCI-Filters-Applied"] = "artifactType"
    return web.Response(body=None if request.is_head else found.body, headers=headers)


def _wanted(request: Request) -> tuple[int | None, str]:
    """Return `n` and `last`."""
    query = request.http.rel_url.query
    return _page_size(query.get("n")), query.get("last", "")


def _next(request: Request, path: str, limit: int, last: str) -> str:
    """Write the `Link` to the next page: relative, and by the same way of addressing that led here."""
    prefix = f"/{quote(request.prefix)}" if request.prefix else ""
    query = urlencode([("n", limit), ("last", last), *(("ns", name) for name in request.namespaces)])
    return f'<{prefix}{path}?{query}>; rel="next"'


def _page_size(text: str | None) -> int | None:
    """Read `n`; more than a page holds means a page."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise PaginationInvalid(f"n must be a whole number, not {text[:20]!a}")
    return min(int(text), _MAX_PAGE)
