"""Lists on the wire: tags, and what refers to a digest."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import orjson
from aiohttp import web

from proxy.oci import mediatype
from proxy.oci.content import TagPage
from proxy.oci.endpoint import ReferrersOf, TagsOf
from proxy.oci.errors import PaginationInvalid
from proxy.web.request import Request

_MAX_PAGE: Final = 1000  # tags in one answer; CVE-2023-2253 was an unbounded `n`


async def tags(request: Request, at: TagsOf) -> web.StreamResponse:
    """Answer with a page of a repository's tags, and where the next one is."""
    registry, repository = request.find(at.repository)
    query = request.http.rel_url.query
    limit = _page_size(query.get("n"))
    page = TagPage(()) if limit == 0 else await registry.tags(repository, limit, query.get("last", ""))
    response = request.json(orjson.dumps({"name": at.repository, "tags": page.tags}))
    if page.more and page.tags:
        following = f"{at.path}?n={len(page.tags)}&last={quote(page.tags[-1])}"
        response.headers["Link"] = f'<{following}>; rel="next"'
    return response


async def referrers(request: Request, at: ReferrersOf) -> web.StreamResponse:
    """Answer with the index of what refers to a digest."""
    registry, repository = request.find(at.repository)
    wanted = request.http.rel_url.query.get("artifactType", "")
    found = await registry.referrers(repository, at.digest, wanted)
    headers = {"Content-Type": mediatype.OCI_INDEX, "Content-Length": str(len(found.body))}
    return web.Response(body=None if request.is_head else found.body, headers=headers)


def _page_size(text: str | None) -> int | None:
    """Read `n`; more than a page holds means a page."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise PaginationInvalid(f"n must be a whole number, not {text[:20]!a}")
    return min(int(text), _MAX_PAGE)
