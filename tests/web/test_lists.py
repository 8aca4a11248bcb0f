"""Lists on the wire: numbers that nobody should ask for, and links that lead back the way that led here."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from conftest import Proxy, StartProxy
from images import push, push_pair
from scripted import Origin, status

LISTS = ["/v2/_catalog", "/v2/kimoqi/alpine/tags/list"]


@pytest.fixture
async def proxy(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> Proxy:
    """A proxy in front of three tags and five repositories."""
    for tag in "abc":
        push_pair(origin.registry, tag)
    for name in ("x/1", "x/2"):
        push(origin.registry, name)
    return await start(origin, rule=[rule], upstream={"aliases": ["registry.example:5000"]})


def names(body: bytes) -> list[str]:
    """Return what a list holds."""
    document = orjson.loads(body)
    found: list[str] = document.get("tags", document.get("repositories"))
    return found


async def leaf(proxy: Proxy, path: str) -> list[list[str]]:
    """Follow `Link` from page to page, ten at most."""
    pages = []
    for _ in range(10):
        answer = await proxy.get(path)
        assert answer.status == 200, answer.body
        pages.append(names(answer.body))
        link = answer.headers.get("Link")
        if link is None:
            return pages
        target, _, relation = link.partition(";")
        assert relation.strip() == 'rel="next"'
        path = target.strip("<>")
    raise AssertionError("the pages never end")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "prefix", ["", "/origin0", "/registry.example:5000"], ids=["no prefix", "its name", "an alias"]
)
@pytest.mark.parametrize("namespace", ["", "ns=registry.example:5000", "ns=registry.example%3A5000&ns=origin0"])
async def test_links_lead_back_the_way_that_led_here(proxy: Proxy, path: str, prefix: str, namespace: str) -> None:
    """Prefix and `ns` are kept, so that the next page is asked of the same upstream."""
    pages = await leaf(proxy, f"{prefix}{path}?n=2&{namespace}")
    first = (await proxy.get(f"{prefix}{path}?n=2&{namespace}")).headers["Link"]

    assert [len(page) for page in pages] == ([2, 2, 1] if "catalog" in path else [2, 1])
    assert first.startswith(f"<{prefix.replace(':', '%3A')}/v2/")
    assert first.count("&ns=") == namespace.count("ns=")


async def test_a_link_keeps_the_alias_in_the_path(proxy: Proxy) -> None:
    """`/v2/<alias>/…` leads to `/v2/<alias>/…`."""
    assert await leaf(proxy, "/v2/origin0/kimoqi/alpine/tags/list?n=2") == [["a", "b"], ["c"]]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("number", ["-1", "abc", "1e9", "", "9" * 20, "%00", "1.0", "+1", "%d9%a1"])
async def test_a_bad_number_is_refused(origin: Origin, proxy: Proxy, path: str, number: str) -> None:
    """`n` must be a number; what isn't never reaches an upstream."""
    answer = await proxy.get(f"{path}?n={number}")

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (400, "PAGINATION_NUMBER_INVALID")
    assert origin.requests == []


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("number", ["999999999", "1000"])
async def test_a_huge_number_is_a_page(proxy: Proxy, path: str, number: str) -> None:
    """No page is larger than a thousand names."""
    answer = await proxy.get(f"{path}?n={number}")

    assert answer.status == 200
    assert "Link" not in answer.headers


async def test_a_page_has_a_thousand_names_at_most(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Whatever is asked for; a catalog without `n` is paged, too."""
    found = {kind: [f"x{n:04}" for n in range(1500)] for kind in ("tags", "repositories")}
    origin.fail("_catalog|tags/list", status(200, orjson.dumps(found)))
    proxy = await start(origin, rule=[rule])

    assert [len(each) for each in await leaf(proxy, "/v2/_catalog")] == [1000, 500]
    assert [len(each) for each in await leaf(proxy, "/v2/kimoqi/alpine/tags/list?n=5000")] == [1000, 500]
    assert [len(each) for each in await leaf(proxy, "/v2/kimoqi/alpine/tags/list")] == [1500]


@pytest.mark.parametrize("path", LISTS)
async def test_none_are_asked_for(origin: Origin, proxy: Proxy, path: str) -> None:
    """`n=0` is an empty list without a next page, and costs nothing."""
    answer = await proxy.get(f"{path}?n=0")

    assert (answer.status, names(answer.body)) == (200, [])
    assert "Link" not in answer.headers
    assert origin.requests == []


@pytest.mark.parametrize("path", LISTS)
async def test_a_last_name_of_a_megabyte_is_refused(origin: Origin, proxy: Proxy, path: str) -> None:
    """S5: no list is put together for it, and the next request is served."""
    answer = await proxy.get(f"{path}?last={'x' * 1_000_000}")

    assert 400 <= answer.status < 500
    assert origin.requests == []
    assert (await proxy.get(path)).status == 200


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("last", ["zzz", "%ff%fe", "%00", "%c3%a9", "x" * 5000])
async def test_any_last_name_is_a_position(proxy: Proxy, path: str, last: str) -> None:
    """What no tag could be called still sorts somewhere."""
    assert (await proxy.get(f"{path}?last={last}")).status == 200


@pytest.mark.parametrize("path", LISTS)
async def test_head_is_get_without_the_body(proxy: Proxy, path: str) -> None:
    """The same length, the same link."""
    got, head = await proxy.get(f"{path}?n=1"), await proxy.head(f"{path}?n=1")

    assert (head.status, head.body) == (200, b"")
    assert {name: head.headers[name] for name in ("Content-Length", "Link")} == {
        "Content-Length": str(len(got.body)),
        "Link": got.headers["Link"],
    }
