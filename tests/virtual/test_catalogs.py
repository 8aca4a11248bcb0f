"""What there is in an upstream's namespace, through the whole service."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from conftest import Clock, Proxy, StartProxy, until
from images import ARM, VIRTUAL, X86, push, push_pair
from proxy.oci.reference import Tag
from scripted import Fault, Origin, hang, html, status

CATALOG = "/v2/_catalog"


async def catalog(proxy: Proxy, query: str = "", path: str = CATALOG) -> list[str]:
    """Return a page of the catalog."""
    answer = await proxy.get(path + query)
    assert answer.status == 200, answer.body
    found: list[str] = orjson.loads(answer.body)["repositories"]
    return found


@pytest.fixture
def rules(rule: dict[str, Any]) -> list[dict[str, Any]]:
    """Sources here, and of another name on the other upstream."""
    elsewhere = {
        "match": "team/*",
        "upstream": "origin0",
        "sources": [{"image": "{repository}:{tag}"}, {"image": "builds/{repository}:{tag}", "upstream": "origin1"}],
    }
    return [rule, elsewhere]


async def test_a_catalog_has_sources_and_what_is_merged(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """The upstream's own repositories, and the virtual ones that they may belong to, sorted and each once."""
    push_pair(origin.registry)
    push(origin.registry, "other/tool-arm")
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(CATALOG)

    assert answer.headers["Content-Type"] == "application/json"
    assert orjson.loads(answer.body) == {
        "repositories": ["kimoqi/alpine", "kimoqi/alpine-arm", "kimoqi/alpine-x86", "other/tool-arm"]
    }


async def test_without_a_rule_the_conventions_hold(origin: Origin, start: StartProxy) -> None:
    """With no rule written every name that a convention makes leads back."""
    push_pair(origin.registry)
    proxy = await start(origin)

    assert await catalog(proxy) == ["kimoqi/alpine", "kimoqi/alpine-arm", "kimoqi/alpine-x86"]


async def test_hidden_sources_stay_out(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """With `hide_sources` what is merged is all that shows of it; everything can still be pulled."""
    push_pair(origin.registry)
    push(origin.registry, "other/tool-arm")
    proxy = await start(origin, rule=[{**rule, "hide_sources": True}])

    assert await catalog(proxy) == ["kimoqi/alpine", "other/tool-arm"]
    assert (await proxy.get("/v2/kimoqi/alpine-arm/manifests/1.0")).status == 200


async def test_sources_on_another_upstream_bring_names(
    origin: Origin, other: Origin, start: StartProxy, rules: list[dict[str, Any]]
) -> None:
    """A source elsewhere belongs to a name here; the other upstream has its own catalog."""
    push(origin.registry, "team/here")
    push(other.registry, "builds/team/there")
    proxy = await start(origin, other, rule=rules)

    assert await catalog(proxy) == ["team/here", "team/there"]
    assert await catalog(proxy, path="/origin1/v2/_catalog") == ["builds/team/there"]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/_catalog?ns=registry.example",
        "/registry.example/v2/_catalog",
        "/v2/registry.example/_catalog",
        "/v2/_catalog?ns=",
        "/v2/_catalog",
    ],
)
async def test_every_way_to_name_an_upstream(origin: Origin, other: Origin, start: StartProxy, path: str) -> None:
    """Prefix, `?ns=` and none at all lead to the same catalog, and nobody else is asked."""
    push(origin.registry, "a/b")
    proxy = await start(origin, rule=[{"match": "x"}], upstream={"aliases": ["registry.example"]})

    assert await catalog(proxy, path=path) == ["a/b"]


@pytest.mark.parametrize(
    "path",
    ["/evil.example/v2/_catalog", "/v2/evil.example/_catalog", "/v2/_catalog?ns=evil.example", "/v2/v2/_catalog"],
)
async def test_an_upstream_that_is_none_of_ours_is_unknown(origin: Origin, start: StartProxy, path: str) -> None:
    """A catalog of somebody else's is a 404 without a question to anyone."""
    proxy = await start(origin)

    assert (await proxy.get(path)).status == 404
    assert origin.requests == []


async def test_it_is_asked_for_once(origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock) -> None:
    """Leafing through it costs one request, until `tag_ttl` is over or something is pushed."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    pages = [await catalog(proxy, f"?n=1&last={last}") for last in ("", VIRTUAL, ARM, X86)]
    asked = len(origin.requests)
    push(origin.registry, "new/one")
    unseen = await catalog(proxy)

    await proxy.site.directory.revalidate("origin0", VIRTUAL, Tag("1.0"))
    seen = await catalog(proxy)
    push(origin.registry, "new/two")
    clock.advance(61)

    assert pages == [[VIRTUAL], [ARM], [X86], []]
    assert (asked, "new/one" in unseen, "new/one" in seen) == (1, False, True)
    assert "new/two" in await catalog(proxy)


@pytest.mark.parametrize("fault", [status(404), status(405), status(400), status(401), status(403)])
async def test_an_upstream_without_a_catalog_says_so(
    origin: Origin, start: StartProxy, rule: dict[str, Any], fault: Fault
) -> None:
    """Many registries don't tell what they have: the answer is the specification's word for it, and says who."""
    origin.fail("_catalog", fault)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(CATALOG)
    error = orjson.loads(answer.body)["errors"][0]

    assert (answer.status, error["code"]) == (404, "UNSUPPORTED")
    assert "origin0" in error["message"]


@pytest.mark.parametrize("silent", [0, 1])
async def test_what_is_known_is_told_with_what_isn_t(
    origin: Origin, other: Origin, start: StartProxy, rules: list[dict[str, Any]], silent: int
) -> None:
    """Where one of several upstreams has no catalog, the others' is served, and a warning says what it lacks."""
    push(origin.registry, "team/here")
    push(other.registry, "builds/team/there")
    (origin, other)[silent].fail("_catalog", status(404))
    proxy = await start(origin, other, rule=rules)

    answer = await proxy.get(CATALOG)

    assert orjson.loads(answer.body)["repositories"] == [["team/there"], ["team/here"]][silent]
    assert answer.headers["Warning"] == (f'299 - "not all repositories are listed: origin{silent} offers no catalog"')


@pytest.mark.parametrize(("fault", "expected"), [(status(500), 503), (hang(), 503), (html(), 502)])
@pytest.mark.parametrize("silent", [0, 1])
async def test_a_catalog_isn_t_shortened_by_trouble(
    origin: Origin,
    other: Origin,
    start: StartProxy,
    rules: list[dict[str, Any]],
    fault: Fault,
    expected: int,
    silent: int,
) -> None:
    """An upstream that gives no answer makes no shorter catalog."""
    push(origin.registry, "team/here")
    (origin, other)[silent].fail("_catalog", fault)
    proxy = await start(origin, other, rule=rules, request_budget="500ms")

    assert (await proxy.get(CATALOG)).status == expected


async def test_a_catalog_is_bounded(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Pages without end are left, and a warning says that the catalog is cut."""
    origin.fail("_catalog", status(200, b'{"repositories": ["a", "BAD", "../b"]}', Link='<?last=a>; rel="next"'))
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(CATALOG)

    assert orjson.loads(answer.body)["repositories"] == ["a"]
    assert "origin0 has more than 600 repositories" in answer.headers["Warning"]
    assert len(origin.requests) == 200


async def test_the_catalog_s_own_scope_is_asked_for(origin: Origin, start: StartProxy) -> None:
    """A token for the catalog is for that, and for no repository."""
    realm = f"{origin.url}/token"
    origin.fail(
        "_catalog", status(401, WWW_Authenticate=f'Bearer realm="{realm}",service="s",scope="registry:catalog:*"')
    )
    origin.fail("/token", status(200, b'{"token": "t"}', Content_Type="application/json"))
    proxy = await start(origin)

    await proxy.get(CATALOG)
    await until(lambda: any(request.path == "/token" for request in origin.requests))

    asked = next(request.query for request in origin.requests if request.path == "/token")
    assert "scope=registry:catalog:*" in asked
