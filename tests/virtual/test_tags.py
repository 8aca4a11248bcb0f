"""Lists of tags and referrers of virtual repositories, through the whole service."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from conftest import StartProxy
from images import ARM, VIRTUAL, X86, push, push_pair
from scripted import Origin, status

LIST = "/v2/kimoqi/alpine/tags/list"


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


async def test_referrers_are_always_an_index(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Any digest has a list of referrers, if an empty one, in the bare media type."""
    _, arm = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    index = (await proxy.get("/v2/kimoqi/alpine/manifests/1.0")).headers["Docker-Content-Digest"]

    answers = [await proxy.get(f"/v2/kimoqi/alpine/referrers/{d}") for d in (arm.digest, index, "sha256:" + "0" * 64)]

    assert [answer.status for answer in answers] == [200] * 3
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/vnd.oci.image.index.v1+json"}
    assert [orjson.loads(answer.body)["manifests"] for answer in answers] == [[]] * 3
