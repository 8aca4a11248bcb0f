"""The front page of the admin port."""

from __future__ import annotations

from typing import Any

from prometheus_client.samples import Sample

from conftest import StartProxy
from images import push_pair
from proxy.web.overview import Origin, Overview, page
from scripted import Origin as Upstream
from scripted import status

OVERVIEW = Overview(
    version="1.2.3",
    loaded=1_700_000_000.0,
    upstreams=(Origin("hub", "https://registry-1.docker.io"), Origin("arm-site", "https://arm.example")),
    rules=(("team/*", "{repository}-x86:{tag}, arm-site: {repository}-arm:{tag}"), ("**", "the name itself")),
)
COUNTED = (
    Sample("manifuse_upstream_requests_total", {"upstream": "hub", "method": "GET", "status": "200"}, 1200.0),
    Sample("manifuse_upstream_requests_total", {"upstream": "hub", "method": "HEAD", "status": "401"}, 2.0),
    Sample("manifuse_upstream_requests_total", {"upstream": "hub", "method": "GET", "status": "429"}, 3.0),
    Sample("manifuse_upstream_requests_total", {"upstream": "hub", "method": "GET", "status": "503"}, 4.0),
    Sample("manifuse_upstream_requests_total", {"upstream": "hub", "method": "GET", "status": "error"}, 5.0),
    Sample("manifuse_upstream_seconds_sum", {"upstream": "hub"}, 12.0),
    Sample("manifuse_upstream_seconds_count", {"upstream": "hub"}, 400.0),
    Sample("manifuse_upstream_breaker_open", {"upstream": "hub"}, 1.0),
    Sample("manifuse_upstream_ratelimit_limit", {"upstream": "hub"}, 200.0),
    Sample("manifuse_upstream_ratelimit_remaining", {"upstream": "hub"}, 42.0),
    Sample("manifuse_requests_total", {"route": "manifest", "method": "GET", "status": "200", "cache": "hit"}, 10.0),
    Sample("manifuse_requests_total", {"route": "manifest", "method": "HEAD", "status": "404", "cache": "none"}, 1.0),
    Sample("manifuse_requests_total", {"route": "blob", "method": "GET", "status": "502", "cache": "none"}, 1.0),
    Sample("manifuse_merges_total", {}, 7.0),
    Sample("manifuse_held_total", {"reason": "no answer"}, 1.0),
    Sample("manifuse_held_total", {"reason": "partial"}, 2.0),
)
PAGE = """\
manifuse 1.2.3: ready; configuration of 2023-11-14T22:13:20+00:00

UPSTREAM  URL                           STATE          REQUESTS  REFUSED  LIMITED  5XX  NO ANSWER  TAKES  LEFT OF LIMIT
hub       https://registry-1.docker.io  left alone         1214        2        3    4          5  30 ms  42 of 200
arm-site  https://arm.example           not asked yet         0        0        0    0          0  -      -

REPOSITORIES  MADE FROM
team/*        {repository}-x86:{tag}, arm-site: {repository}-arm:{tag}
**            the name itself

CLIENTS   REQUESTS  HIT  STALE  REVALIDATED  MISS  4XX  5XX
blob             1    0      0            0     0    0    1
manifest        11   10      0            0     0    1    0

MERGES
indexes synthesized                  7
  while something was missing        0
answers held from an older one       3
configs that contradict the rule     0
sources left out for an earlier one  0

Of one image: /explain/<repository>:<tag>. Everything that is counted: /metrics.
"""


def test_the_page() -> None:
    """All of it, as a person sees it."""
    assert page(OVERVIEW, COUNTED, ready=True) == PAGE


def test_nothing_that_is_shown_gives_orders() -> None:
    """What a configuration says may hold anything, and the page may be read on a terminal."""
    hostile = Overview("1", 0.0, (Origin("a", "https://a.example/\x1b[2J"),), (("**", "x\ny"),))

    shown = page(hostile, (), ready=False)

    assert shown.startswith("manifuse 1: not ready;")
    assert "\x1b" not in shown
    assert "x\\ny" in shown


async def test_it_is_the_front_page(origin: Upstream, other: Upstream, start: StartProxy, rule: dict[str, Any]) -> None:
    """What is configured and what was counted, as plain text that nobody keeps."""
    push_pair(origin.registry)
    other.fail("", status(503))
    proxy = await start(origin, other, rule=[rule, {"match": "**", "upstream": "origin1"}])
    await proxy.get("/v2/kimoqi/alpine/manifests/1.0")
    await proxy.get("/origin1/v2/team/app/manifests/1.0")

    answer = await proxy.page("/")

    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    lines = [line.split() for line in answer.body.decode().splitlines()]
    assert ["origin0", origin.url, "in", "use", "5"] in [line[:5] for line in lines]
    assert ["**", "on", "origin1", "the", "name", "itself"] in lines
    assert lines[lines.index(["**", "on", "origin1", "the", "name", "itself"]) + 1] == ["**", "the", "name", "itself"]
    assert ["indexes", "synthesized", "1"] in lines


async def test_it_has_no_secret(origin: Upstream, start: StartProxy) -> None:
    """Not the credentials that an upstream is asked with, however they were given."""
    proxy = await start(origin, upstream={"credentials": {"username": "reader", "password": "open sesame"}})

    assert b"open sesame" not in (await proxy.page("/")).body


async def test_it_is_for_operators_alone(origin: Upstream, start: StartProxy) -> None:
    """With a token nobody sees it without."""
    proxy = await start(origin, admin_token="open sesame")

    assert (await proxy.page("/")).status == 401


async def test_the_default_is_one_rule(origin: Upstream, start: StartProxy) -> None:
    """Where no rule is written the conventions fit everything, and nothing is left for what would come after."""
    proxy = await start(origin)

    shown = (await proxy.page("/")).body.decode()

    assert "**            repository-suffix, tag-suffix\n\n" in shown
