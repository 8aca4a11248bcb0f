"""Lists of tags of virtual repositories, through the whole service."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from conftest import Clock, Proxy, StartProxy, until
from images import ARM, VIRTUAL, X86, push, push_artifact, push_pair
from proxy.oci.reference import Tag
from scripted import Origin, once, status, waits_for

LIST = "/v2/kimoqi/alpine/tags/list"


async def tags(proxy: Proxy, query: str = "") -> list[str]:
    """Return a page of the virtual repository's tags."""
    answer = await proxy.get(LIST + query)
    assert answer.status == 200, answer.body
    found: list[str] = orjson.loads(answer.body)["tags"]
    return found


async def test_a_virtual_repository_has_its_sources_tags(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """The tags of all sources, and of the name itself, under virtual names, sorted and each once."""
    for repository, tag in ((X86, "1.0"), (ARM, "1.0"), (ARM, "1.1"), (VIRTUAL, "0.9")):
        push(origin.registry, repository, tag)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(LIST)

    assert orjson.loads(answer.body) == {"name": "kimoqi/alpine", "tags": ["0.9", "1.0", "1.1"]}


async def test_tag_suffixes_become_their_virtual_tags(origin: Origin, start: StartProxy) -> None:
    """Where tags carry the architecture, the virtual tag is listed beside them."""
    for tag in ("1.0-amd64", "1.0-arm64"):
        push(origin.registry, VIRTUAL, tag)
    proxy = await start(origin)

    assert orjson.loads((await proxy.get(LIST)).body)["tags"] == ["1.0", "1.0-amd64", "1.0-arm64"]


@pytest.mark.parametrize(
    ("query", "tags", "more"), [("n=2", ["a", "b"], True), ("n=2&last=b", ["c"], False), ("n=0", [], False)]
)
async def test_lists_are_paged_here(
    origin: Origin, start: StartProxy, rule: dict[str, Any], query: str, tags: list[str], *, more: bool
) -> None:
    """`n` and `last` count virtual tags, and `Link` leads to the next page under the virtual name."""
    for tag in "abc":
        push_pair(origin.registry, tag)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(f"{LIST}?{query}")

    assert orjson.loads(answer.body)["tags"] == tags
    assert answer.headers.get("Link") == ('</v2/kimoqi/alpine/tags/list?n=2&last=b>; rel="next"' if more else None)


@pytest.mark.parametrize("number", ["-1", "abc", "1e9", "9" * 20])
async def test_a_bad_page_size_is_refused(origin: Origin, start: StartProxy, rule: dict[str, Any], number: str) -> None:
    """`n` must be a number; what isn't never reaches an upstream."""
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(f"{LIST}?n={number}")

    assert answer.status == 400
    assert origin.requests == []


async def test_nothing_anywhere_is_unknown(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A name none of whose sources exists has no list."""
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(LIST)

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


async def test_a_list_isn_t_shortened_by_trouble(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A source that gives no answer makes a 503, not a shorter list."""
    push_pair(origin.registry)
    origin.fail("alpine-arm/tags", status(500))
    proxy = await start(origin, rule=[rule])

    assert (await proxy.get(LIST)).status == 503


async def test_a_list_that_needs_a_refused_source_is_refused(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """A source that stands in the configuration and refuses would take its tags with it."""
    push_pair(origin.registry)
    origin.fail("alpine-arm/tags", status(403))
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(LIST)

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (403, "DENIED")


async def test_a_refused_guess_has_no_tags(origin: Origin, start: StartProxy) -> None:
    """Registries refuse what doesn't exist: of a name that was only guessed that means nothing."""
    push_pair(origin.registry)
    origin.fail("alpine(-amd64|-arm64)?/tags", status(403))
    proxy = await start(origin)

    assert await tags(proxy) == ["1.0"]


async def test_the_cause_of_a_missing_list_is_told(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """The error names the source and what it answered, and when to come back."""
    push_pair(origin.registry)
    origin.fail("alpine-arm/tags", status(503, Retry_After="7"))
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(LIST)

    assert answer.headers["Retry-After"] == "7"
    assert "origin0/kimoqi/alpine-arm: origin0 answered 503" in answer.body.decode()


async def test_an_incomplete_tag_isn_t_listed_where_it_isn_t_served(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """With `on_partial = "fail"` a tag is listed once all its sources have it."""
    push_pair(origin.registry, "1.0")
    push(origin.registry, X86, "1.1")
    proxy = await start(origin, rule=[{**rule, "on_partial": "fail"}])

    assert await tags(proxy) == ["1.0"]


async def test_signatures_of_children_stay_out_of_the_list(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """What was pushed beside a source isn't listed under the virtual name; what was pushed to the name itself is."""
    _, arm = push_pair(origin.registry)
    push_artifact(origin.registry, ARM, f"sha256-{arm.digest.hex}.sig")
    push_artifact(origin.registry, VIRTUAL, f"sha256-{'a' * 64}.sig")
    proxy = await start(origin, rule=[rule])

    assert await tags(proxy) == ["1.0", f"sha256-{'a' * 64}.sig"]


async def test_hidden_sources_stay_out_of_the_list(origin: Origin, start: StartProxy) -> None:
    """With `hide_sources` a tag that carries an architecture is left out; it can be pulled all the same."""
    for tag in ("1.0-amd64", "1.0-arm64", "edge"):
        push(origin.registry, VIRTUAL, tag)
    proxy = await start(origin, rule=[{"match": "**", "conventions": ["tag-suffix"], "hide_sources": True}])

    assert await tags(proxy) == ["1.0", "edge"]
    assert (await proxy.get("/v2/kimoqi/alpine/manifests/1.0-amd64")).status == 200


async def test_a_merged_list_is_asked_for_once(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """Leafing through it costs each source one request, until `tag_ttl` is over."""
    for tag in "abcd":
        push_pair(origin.registry, tag)
    proxy = await start(origin, rule=[rule])

    pages = [await tags(proxy, f"?n=1&last={last}") for last in ("", "a", "b", "c")]
    asked = len(origin.requests)
    clock.advance(61)
    push_pair(origin.registry, "e")

    assert pages == [["a"], ["b"], ["c"], ["d"]]
    assert asked == 3
    assert await tags(proxy, "?last=d") == ["e"]


async def test_a_list_that_never_moves_still_gets_new_tags(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock
) -> None:
    """`tag_ttl = "forever"` is a word about tags, not about how many there are."""
    push_pair(origin.registry, "a")
    proxy = await start(origin, rule=[{**rule, "tag_ttl": "forever"}])
    await tags(proxy)
    push_pair(origin.registry, "b")

    assert await tags(proxy) == ["a"]
    clock.advance(601)
    assert await tags(proxy) == ["a", "b"]


async def test_many_clients_cost_what_one_does(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A list that many ask for at once is put together once."""
    push_pair(origin.registry)
    gate = asyncio.Event()
    origin.fail("/tags/list", waits_for(gate))
    proxy = await start(origin, rule=[rule])
    clients = [asyncio.create_task(tags(proxy)) for _ in range(20)]
    await until(lambda: len(origin.requests) == 3)
    gate.set()

    assert await asyncio.gather(*clients) == [["1.0"]] * 20
    assert len(origin.requests) == 3


async def test_a_push_shows_at_once(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """An event about a source's tag, or the name's own, makes the next list a new one."""
    push_pair(origin.registry, "1.0")
    proxy = await start(origin, rule=[rule])
    await tags(proxy)
    push(origin.registry, ARM, "2.0")
    before = await tags(proxy)

    await proxy.site.directory.revalidate("origin0", ARM, Tag("2.0"))

    assert (before, await tags(proxy)) == (["1.0"], ["1.0", "2.0"])


async def test_a_list_under_way_doesn_t_outlive_a_push(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """What began before a push may not have seen it: whoever waits gets it, but nobody after them."""
    push_pair(origin.registry, "1.0")
    gate = asyncio.Event()
    origin.fail("alpine-x86/tags/list", once(waits_for(gate)))
    proxy = await start(origin, rule=[rule])
    early = asyncio.create_task(tags(proxy))
    await until(lambda: len(origin.requests) == 3)
    push(origin.registry, ARM, "2.0")
    await proxy.site.directory.revalidate("origin0", ARM, Tag("2.0"))

    assert await tags(proxy) == ["1.0", "2.0"]
    gate.set()
    assert await early == ["1.0"]
    assert await tags(proxy) == ["1.0", "2.0"]


async def test_a_name_that_passes_through_is_paged_upstream(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Where nothing is merged each page is one request for that page."""
    for tag in "abc":
        push(origin.registry, "other/tool", tag)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get("/v2/other/tool/tags/list?n=2")

    assert orjson.loads(answer.body)["tags"] == ["a", "b"]
    assert answer.headers["Link"] == '</v2/other/tool/tags/list?n=2&last=b>; rel="next"'
    assert [request.query for request in origin.requests] == ["n=2"]


async def test_what_was_learned_hides_no_tags(origin: Origin, start: StartProxy) -> None:
    """A repository that uses one convention for some tags and another for others lists them all."""
    push_pair(origin.registry, "1.0")
    push(origin.registry, VIRTUAL, "2.0-amd64")
    push(origin.registry, "kimoqi/alpine-aarch64", "3.0")
    proxy = await start(origin)
    await proxy.get("/v2/kimoqi/alpine/manifests/1.0")

    assert await tags(proxy) == ["1.0", "2.0", "2.0-amd64", "3.0"]


async def test_a_list_without_end_is_no_answer(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A source whose list is cut would silently lack tags."""
    push_pair(origin.registry)
    endless = status(200, b'{"tags": ["a"]}', Link='<?last=a>; rel="next"')
    origin.fail("alpine-arm/tags", endless)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(LIST)

    assert (answer.status, b"can't be merged" in answer.body) == (502, True)
    assert len([r for r in origin.requests if "alpine-arm" in r.path]) == 200
