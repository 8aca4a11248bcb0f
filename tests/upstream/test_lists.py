"""Tags, catalogs and referrers over HTTP: page by page, and never further than asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from aiohttp import web

from images import X86, push
from proxy.oci.content import Descriptor, Manifest
from proxy.oci.errors import (
    BadAnswer,
    NoAnswer,
    Overloaded,
    Refused,
    RegistryError,
    Unreachable,
)
from proxy.oci.mediatype import OCI_INDEX, OCI_MANIFEST
from proxy.oci.reference import Digest, Tag
from proxy.oci.referrers import render
from scripted import Fault, Origin, endless, html, once, reset, status
from upstream.peers import BLOB, BODY, OTHER, Connect

DEEP = b'{"tags": [' + b"[" * 1010 + b"]" * 1010 + b"]}"


def pages(origin: Origin, tags: list[str], link: Callable[[str], str], size: int = 2) -> None:
    """Let *origin* list *tags*, *size* at a time; *link* writes the header from the next page's query."""

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        rest = [tag for tag in tags if tag > request.query.get("last", "")]
        headers = {"Link": link(f"n={size}&last={rest[size - 1]}")} if len(rest) > size else {}
        return web.json_response({"name": X86, "tags": rest[:size]}, headers=headers)

    origin.fail("/tags/list", page)


@pytest.mark.parametrize(
    "link",
    [
        pytest.param(f'</v2/{X86}/tags/list?%s>; rel="next"', id="relative"),
        pytest.param(f'<https://registry.invalid/v2/{X86}/tags/list?%s>; rel="next"', id="absolute"),
        pytest.param("</tags?%s>; rel=next", id="unquoted"),
        pytest.param("<?%s>;rel='next'", id="query alone"),
        pytest.param('<?%s>; type="x"; rel="next"', id="other parameters"),
        pytest.param('</v2/_opaque?next_page=ab%%2Fc&x=%.0s>; rel="next"', id="opaque"),
        pytest.param('<?last=0>; rel="prev", <?%s>; rel="next"', id="behind another"),
        pytest.param('<?%s>; rel="next", <?last=z>; rel="last"', id="before another"),
        pytest.param('<?x=a;b,c&%s>; rel="next"', id="separators in it"),
        pytest.param('?%s; rel="next"', id="no brackets"),
    ],
)
async def test_tags_come_page_by_page(origin: Origin, connect: Connect, link: str) -> None:
    """`Link` says that there is more and behind which tag, in any of the ways registries write it (RFC 8288)."""
    tags = ["1.0", "1.1", "2.0", "edge", "latest"]
    pages(origin, tags, lambda query: link % query)
    upstream = await connect(origin)

    page = await upstream.tags(X86, None, "")

    assert (page.tags, page.more) == (tuple(tags), False)
    assert [request.query for request in origin.requests] == ["n=1000", "n=1000&last=1.1", "n=1000&last=edge"]


async def test_a_link_may_be_in_another_line(origin: Origin, connect: Connect) -> None:
    """A gateway may have links of its own: the list doesn't end with them."""

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        response = web.json_response({"tags": ["b"] if "last" in request.query else ["a"]})
        response.headers.add("Link", '</style.css>; rel="preload"')
        if "last" not in request.query:
            response.headers.add("Link", '<?last=a>; rel="next"')
        return response

    origin.fail("/tags/list", page)
    upstream = await connect(origin)

    assert (await upstream.tags(X86, None, "")).tags == ("a", "b")


async def test_a_link_to_another_host_is_never_followed(origin: Origin, other: Origin, connect: Connect) -> None:
    """Whatever host a `Link` names, the next page is asked of the upstream."""
    pages(origin, ["a", "b", "c"], lambda query: f'<{other.url}/v2/evil/tags/list?{query}>; rel="next"')
    upstream = await connect(origin)

    page = await upstream.tags(X86, None, "")

    assert page.tags == ("a", "b", "c")
    assert other.requests == []


@pytest.mark.parametrize(
    ("limit", "last", "tags", "more"),
    [
        (2, "", ("a", "b"), True),
        (3, "", ("a", "b", "c"), True),
        (5, "", ("a", "b", "c", "d", "e"), False),
        (9, "c", ("d", "e"), False),
        (1, "d", ("e",), False),
        (None, "zz", (), False),
    ],
)
async def test_tags_are_limited(
    origin: Origin, connect: Connect, limit: int | None, last: str, tags: tuple[str, ...], more: bool
) -> None:
    """No more tags come than were asked for, and whether others follow is said."""
    pages(origin, ["a", "b", "c", "d", "e"], lambda query: f'<?{query}>; rel="next"')
    upstream = await connect(origin)

    page = await upstream.tags(X86, limit, last)

    assert (page.tags, page.more) == (tags, more)


async def test_an_upstream_that_ignores_the_limit_is_cut(origin: Origin, connect: Connect) -> None:
    """When all tags come at once, those beyond the limit are left out, and there are more."""
    origin.fail("/tags/list", status(200, b'{"tags": ["a", "b", "c"]}'))
    upstream = await connect(origin)

    page = await upstream.tags(X86, 2, "")

    assert (page.tags, page.more) == (("a", "b"), True)


async def test_tags_without_end_are_left(origin: Origin, connect: Connect) -> None:
    """An upstream whose pages lead in a circle is left after a bounded number of them."""
    origin.fail("/tags/list", status(200, b'{"tags": ["a"]}', Link='<?last=a>; rel="next"'))
    upstream = await connect(origin)

    page = await upstream.tags(X86, None, "")

    assert page.more
    assert len(origin.requests) == 200


@pytest.mark.parametrize("body", [b'{"tags": null}', b'{"tags": []}', b'{"name": "x", "tags": []}'])
async def test_a_repository_may_have_no_tags(origin: Origin, connect: Connect, body: bytes) -> None:
    """`null` and an empty list both mean none."""
    origin.fail("/tags/list", status(200, body))
    upstream = await connect(origin)

    assert (await upstream.tags(X86, None, "")).tags == ()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5", b"null", b"{}", b'{"tags": 5}', b'"tags"', DEEP])
async def test_what_is_no_list_of_tags_is_a_bad_answer(origin: Origin, connect: Connect, body: bytes) -> None:
    """Anything but an object with tags says nothing of them."""
    origin.fail("/tags/list", status(200, body))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="hub sent a list of tags that is none"):
        await upstream.tags(X86, None, "")


async def test_a_list_of_tags_is_measured(origin: Origin, connect: Connect) -> None:
    """A page of tags has at most 16 MiB."""
    origin.fail("/tags/list", endless())
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="more than 16777216 bytes"):
        await upstream.tags(X86, None, "")


REFERRER = Descriptor(media_type=OCI_MANIFEST, digest=OTHER, size=7, artifact_type="application/spdx+json")
NEWER = replace(REFERRER, digest=Digest.of(b"newer"), artifact_type="application/vnd.example+json")


def referrer() -> bytes:
    """Write an index of one referrer."""
    return render([REFERRER]).body


async def test_referrers_come_from_their_api(origin: Origin, connect: Connect) -> None:
    """The referrers API is asked, and the fallback tag beside it: what was pushed before the API came is there."""
    origin.fail("/referrers/", status(200, referrer(), Content_Type=OCI_INDEX))
    upstream = await connect(origin)

    found = await upstream.referrers(X86, BLOB)

    assert found == (REFERRER,)
    assert origin.asked == [
        f"GET kimoqi/alpine-x86/manifests/sha256-{BLOB.hex}",
        f"GET kimoqi/alpine-x86/referrers/{BLOB}",
    ]


@pytest.mark.parametrize("fault", [status(404), status(400), status(405), status(406), html()])
async def test_without_the_api_the_fallback_tag_is_asked(origin: Origin, connect: Connect, fault: Fault) -> None:
    """Registries without the API keep referrers under a tag that is named after the digest."""
    origin.fail("/referrers/", fault)
    found = Manifest.of(OCI_INDEX, referrer())
    origin.registry.add_manifest(X86, found, Tag(f"sha256-{BLOB.hex}"))
    upstream = await connect(origin)

    assert await upstream.referrers(X86, BLOB) == (REFERRER,)


async def test_nothing_refers_to_it(origin: Origin, connect: Connect) -> None:
    """With neither API nor tag there are no referrers."""
    origin.fail("/referrers/", status(404))
    upstream = await connect(origin)

    assert await upstream.referrers(X86, BLOB) == ()


async def test_a_fallback_tag_that_is_an_image_is_no_index(origin: Origin, connect: Connect) -> None:
    """Someone may have pushed an image under such a tag; it refers to nothing."""
    origin.fail("/referrers/", status(404))
    push(origin.registry, X86, f"sha256-{BLOB.hex}")
    upstream = await connect(origin)

    assert await upstream.referrers(X86, BLOB) == ()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (status(401), Refused),
        (status(403), Refused),
        (status(429), Overloaded),
        (status(503), Overloaded),
        (reset(), Unreachable),
        (status(200, b"{", Content_Type=OCI_INDEX), BadAnswer),
        (status(200, BODY, Content_Type=OCI_INDEX), BadAnswer),
        (endless(Content_Type=OCI_INDEX), BadAnswer),
    ],
)
async def test_trouble_with_referrers_is_no_empty_list(
    origin: Origin, connect: Connect, fault: Fault, error: type[RegistryError]
) -> None:
    """A refusal, or no answer, is never mistaken for "nothing refers to it"."""
    origin.fail("/referrers/", fault)
    upstream = await connect(origin)

    with pytest.raises(error, match="hub"):
        await upstream.referrers(X86, BLOB)


async def test_the_api_and_the_fallback_tag_make_one_list(origin: Origin, connect: Connect) -> None:
    """What either of them knows is listed once, by digest; where both know it, as the API says."""
    origin.fail("/referrers/", status(200, render([NEWER, REFERRER]).body, Content_Type=OCI_INDEX))
    older = [replace(REFERRER, artifact_type=""), replace(NEWER, digest=BLOB)]
    origin.registry.add_manifest(X86, render(older), Tag(f"sha256-{BLOB.hex}"))
    upstream = await connect(origin)

    found = await upstream.referrers(X86, BLOB)

    assert found == tuple(sorted([REFERRER, NEWER, older[1]], key=lambda entry: entry.digest))


def referrers_pages(origin: Origin, link: str, last: int = 3) -> None:
    """Let *origin* list a referrer on each of *last* pages; *link* is where each leads to."""

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        number = int(request.query.get("page", "1"))
        headers = {"Link": f'<{link.format(number + 1)}>; rel="next"'} if number < last else {}
        entry = replace(REFERRER, digest=Digest.of(b"%d" % number))
        return web.Response(body=render([entry]).body, headers={"Content-Type": OCI_INDEX, **headers})

    origin.fail("/referrers/", page)


@pytest.mark.parametrize("host", ["", "http://registry.invalid", "http://[broken"])
async def test_referrers_come_page_by_page(origin: Origin, connect: Connect, host: str) -> None:
    """The next page is asked of the upstream itself, whatever host a `Link` names."""
    referrers_pages(origin, f"{host}/v2/{X86}/referrers/{BLOB}?page={{}}&x=a%2Fb")
    upstream = await connect(origin)

    found = await upstream.referrers(X86, BLOB)

    assert len(found) == 3
    assert [r.query for r in origin.requests if "/referrers/" in r.path] == ["", "page=2&x=a/b", "page=3&x=a/b"]


@pytest.mark.parametrize("last", [21, 1000])
async def test_referrers_without_end_are_a_bad_answer(origin: Origin, connect: Connect, last: int) -> None:
    """More pages than anybody has are no list: a part of it would look like all."""
    referrers_pages(origin, "?page={}", last)
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="more than 20 pages"):
        await upstream.referrers(X86, BLOB)

    assert len(origin.requests) == 20


async def test_a_page_of_referrers_that_was_promised_has_to_come(origin: Origin, connect: Connect) -> None:
    """A list that ends in a 404 is no whole one."""
    page = status(200, referrer(), Content_Type=OCI_INDEX, Link='<?page=2>; rel="next"')
    origin.fail("/referrers/", status(404))
    origin.fail("/referrers/", once(page))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match="doesn't go on"):
        await upstream.referrers(X86, BLOB)


async def test_trouble_with_the_fallback_tag_is_no_empty_list(origin: Origin, connect: Connect) -> None:
    """The fallback tag's trouble is trouble too."""
    origin.fail("/referrers/", status(404))
    origin.fail("/manifests/", status(503))
    upstream = await connect(origin)

    with pytest.raises(NoAnswer):
        await upstream.referrers(X86, BLOB)
