"""The ways in which an upstream's blobs reach clients, through the whole service."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from conftest import Clock, Proxy, StartProxy, until
from images import ARM, X86, push_pair
from proxy.oci.reference import Digest, Repository
from scripted import Origin, hang, once, reset, running, status, truncated, waits_for
from virtual.bigblob import BIG, arrives, blob_path

TAG = "/v2/kimoqi/alpine/manifests/1.0"
REDIRECT = {"blobs": "redirect"}
CACHE = {"blobs": "cache"}


async def kept(folder: Path, digest: Digest) -> None:
    """Wait until a blob is kept."""
    await until((folder / "cache" / "blobs" / "sha256" / digest.hex).is_file)


def transfers(origin: Origin) -> int:
    """How often bytes of blobs were asked for."""
    return sum(asked.startswith("GET") and "/blobs/" in asked for asked in origin.asked)


# --- redirect


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_client_is_sent_where_the_upstream_sends_it(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, method: str
) -> None:
    """What was signed for the client's own method is passed on byte for byte, and nobody goes there but the client."""
    elsewhere = Origin()
    async with running(elsewhere):
        location = f"{elsewhere.url}/signed/a%2Fb?X-Signature=a%2Fb%7E+&x=%zz"
        proxy = await start(origin, rule=[rule], upstream=REDIRECT)
        await proxy.get(blob_path(big))  # the source is known from now on
        origin.requests.clear()
        origin.fail(f"{method} .*/blobs/", status(307, Location=location))

        answer = await proxy.get(blob_path(big), method, Range="bytes=5-9")

    assert (answer.status, answer.headers["Location"], answer.body) == (307, location, b"")
    assert answer.headers["Docker-Content-Digest"] == big
    assert origin.asked == [f"{method} kimoqi/alpine-arm/blobs/{big}"]
    assert elsewhere.requests == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_where_the_upstream_sends_nobody_elsewhere_it_is_the_place(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, method: str
) -> None:
    """The client is sent to the source's own URL; no body was fetched to find out, and no credential is told."""
    credentials = {"username": "me", "password": "secret"}
    proxy = await start(origin, rule=[rule], upstream={**REDIRECT, "credentials": credentials})

    answer = await proxy.get(blob_path(big), method)

    own = f"{origin.url}/v2/kimoqi/alpine-arm/blobs/{big}"
    assert (answer.status, answer.headers["Location"]) == (307, own)
    assert [request.headers.get("Range") for request in origin.requests if request.method == "GET"] == (
        ["bytes=0-0"] if method == "GET" else []
    )
    async with proxy.session.request(method, answer.headers["Location"]) as followed:
        assert followed.status == 200


async def test_a_range_that_makes_no_sense_is_for_the_place_to_judge(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """The client is sent where a GET goes, never to what was signed for a HEAD."""
    for method in ("GET", "HEAD"):
        origin.fail(f"{method} .*-arm/blobs/", status(307, Location=f"/signed-for-{method}"))
    origin.fail("/signed", status(200))
    proxy = await start(origin, rule=[rule], upstream=REDIRECT)

    answer = await proxy.get(blob_path(big), Range="bytes=5-4")

    assert (answer.status, answer.headers["Location"]) == (307, f"{origin.url}/signed-for-GET")


async def test_what_the_client_has_is_304_wherever_it_is(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """Nobody is sent elsewhere to hear that nothing has changed; but the upstream has to have it."""
    proxy = await start(origin, rule=[rule], upstream=REDIRECT)

    assert (await proxy.get(blob_path(big), If_None_Match=f'"{big}"')).status == 304
    origin.fail("/blobs/", status(404))
    assert (await proxy.get(blob_path(big), If_None_Match=f'"{big}"')).status == 404


async def test_a_relative_redirect_is_made_absolute(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """A client of ours would take it for a path here."""
    origin.fail("GET .*/blobs/", status(302, Location="/storage/a%2Fb?c"))
    proxy = await start(origin, rule=[rule], upstream=REDIRECT)

    answer = await proxy.get(blob_path(big))

    assert (answer.status, answer.headers["Location"]) == (307, f"{origin.url}/storage/a%2Fb?c")


@pytest.mark.parametrize(
    "location", ["", "ftp://x.example/", "http://169.254.169.254/", "http://me:secret@x.example/", "http://\u00e4/"]
)
async def test_a_client_is_not_sent_just_anywhere(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, location: str
) -> None:
    """What we wouldn't follow isn't passed on."""
    origin.fail("GET .*/blobs/", status(307, Location=location))
    proxy = await start(origin, rule=[rule], upstream=REDIRECT)

    assert (await proxy.get(blob_path(big))).status == 502


@pytest.mark.parametrize(("code", "expected"), [(404, 404), (403, 403), (429, 503), (500, 503), (204, 502)])
async def test_what_else_the_upstream_says(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, code: int, expected: int
) -> None:
    """Only what is there is redirected to."""
    proxy = await start(origin, rule=[rule], upstream=REDIRECT)
    await proxy.get(blob_path(big))
    origin.fail("/blobs/", status(code))

    assert (await proxy.get(blob_path(big))).status == expected


async def test_an_empty_blob_is_somewhere_too(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A blob without a first byte is there all the same."""
    empty = origin.registry.add_blob(ARM, b"")
    proxy = await start(origin, rule=[rule], upstream=REDIRECT)

    assert (await proxy.get(blob_path(empty))).status == 307


async def test_merging_reads_what_clients_are_sent_to(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Configs are still fetched by us, and those that are kept are answered from here."""
    _, arm = push_pair(origin.registry)
    elsewhere = {"sources": [{"image": source["image"]} for source in rule["sources"]]}
    proxy = await start(origin, rule=[{**rule, **elsewhere}], upstream=REDIRECT)

    index = await proxy.get(TAG)
    manifest = orjson.loads((await proxy.get(f"/v2/kimoqi/alpine/manifests/{arm.digest}")).body)

    assert len(orjson.loads(index.body)["manifests"]) == 2
    assert (await proxy.get(blob_path(manifest["config"]["digest"]))).status == 200
    assert (await proxy.get(blob_path(manifest["layers"][0]["digest"]))).status == 307


# --- cache


async def ranged(proxy: Proxy, digest: Digest, header: str, method: str = "GET") -> tuple[int, str, bytes]:
    """Ask for a part of a blob."""
    answer = await proxy.get(blob_path(digest), method, Range=header)
    return answer.status, answer.headers.get("Content-Range", ""), answer.body


RANGES = {
    "bytes=0-9": (206, "bytes 0-9/1600000", BIG[:10]),
    "bytes=100-": (206, "bytes 100-1599999/1600000", BIG[100:]),
    "bytes=-16": (206, "bytes 1599984-1599999/1600000", BIG[-16:]),
    "bytes=1599990-9999999": (206, "bytes 1599990-1599999/1600000", BIG[1599990:]),
    "bytes=0-1,5-6": (200, "", BIG),
}


@pytest.mark.parametrize("header", RANGES)
async def test_ranges_are_the_same_cold_and_kept(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, header: str, tmp_path: Path
) -> None:
    """Any part of a blob is right while it is fetched and after, from one transfer."""
    proxy = await start(origin, rule=[rule], upstream=CACHE)

    cold = await ranged(proxy, big, header)
    await kept(tmp_path, big)

    assert cold == RANGES[header]
    assert [await ranged(proxy, big, each) for each in RANGES] == list(RANGES.values())
    assert (await ranged(proxy, big, "bytes=1600000-"))[:2] == (416, "bytes */1600000")
    assert transfers(origin) == 1


async def test_what_is_kept_needs_no_upstream(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, tmp_path: Path
) -> None:
    """GET, HEAD and 304 of a kept blob ask nobody, even while the registry is down."""
    proxy = await start(origin, rule=[rule], upstream=CACHE)
    await proxy.get(blob_path(big))
    await kept(tmp_path, big)
    origin.requests.clear()
    origin.fail("", reset())

    answers = [await proxy.get(blob_path(big)), await proxy.head(blob_path(big))]
    known = await proxy.get(blob_path(big), If_None_Match=f'"{big}"')

    assert [(answer.status, answer.headers["Content-Length"]) for answer in answers] == [(200, "1600000")] * 2
    assert [answer.body for answer in answers] == [BIG, b""]
    assert known.status == 304
    assert origin.requests == []


async def test_a_kept_blob_outlives_a_restart(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """The next process finds it, and asks only whether this repository has it."""
    first = await start(origin, rule=[rule], upstream=CACHE)
    await first.get(blob_path(big))
    second = await start(origin, rule=[rule], upstream=CACHE)

    assert (await second.get(blob_path(big))).body == BIG
    assert transfers(origin) == 1


async def test_a_whole_image_outlives_its_registry(
    origin: Origin, start: StartProxy, rule: dict[str, Any], tmp_path: Path
) -> None:
    """What was pulled once can be pulled after a restart while the registry is down, layers included."""
    _, arm = push_pair(origin.registry)
    first = await start(origin, rule=[rule], upstream=CACHE)
    index = await first.get(TAG)
    manifest = orjson.loads((await first.get(f"/v2/kimoqi/alpine/manifests/{arm.digest}")).body)
    blobs = [each["digest"] for each in (manifest["config"], *manifest["layers"])]
    before = [(await first.get(blob_path(each))).body for each in blobs]
    await kept(tmp_path, Digest(blobs[-1]))
    origin.fail("", reset())
    second = await start(origin, rule=[rule], upstream=CACHE)

    assert (await second.get(TAG)).body == index.body
    assert (await second.get(f"/v2/kimoqi/alpine/manifests/{arm.digest}")).status == 200
    assert [(await second.get(blob_path(each))).body for each in blobs] == before


async def test_a_kept_blob_is_no_permission(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """What was kept for one repository isn't served to another that no source has it for (law 8)."""
    secret = origin.registry.add_blob(Repository("private/vault"), b"secret")
    proxy = await start(origin, rule=[rule], upstream=CACHE)
    assert (await proxy.get(f"/v2/private/vault/blobs/{secret}")).body == b"secret"

    for method in ("GET", "HEAD"):
        assert (await proxy.get(blob_path(secret), method)).status == 404
        assert (await proxy.get(blob_path(secret), method, If_None_Match="*")).status == 404


async def test_one_file_for_all_repositories(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A layer that two repositories share is fetched once, for the one that asks first."""
    digest = origin.registry.add_blob(ARM, BIG)
    origin.registry.add_blob(Repository("team/tool"), BIG)
    proxy = await start(origin, rule=[rule], upstream=CACHE)

    answers = [await proxy.get(path) for path in (blob_path(digest), f"/v2/team/tool/blobs/{digest}") * 2]

    assert [answer.body == BIG for answer in answers] == [True] * 4
    assert transfers(origin) == 1


async def test_the_headers_of_a_range_far_behind_are_early(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """A client that wants the end of a cold blob hears at once that it is coming."""
    gate = asyncio.Event()
    origin.fail("GET .*/blobs/", arrives(gate))
    proxy = await start(origin, rule=[rule], upstream=CACHE, request_budget="5s")
    async with proxy.session.get(proxy.url + blob_path(big), headers={"Range": "bytes=-10"}) as response:
        assert response.headers["Content-Range"] == "bytes 1599990-1599999/1600000"
        gate.set()
        assert await response.read() == BIG[-10:]


@pytest.mark.parametrize(
    "fault",
    [status(200, BIG[:-1] + b"X", Content_Type="application/octet-stream"), truncated(BIG[:1_500_000], len(BIG))],
    ids=["wrong last byte", "truncated"],
)
async def test_a_wrong_blob_is_not_kept(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, fault: Any, tmp_path: Path
) -> None:
    """All who follow a wrong transfer are broken off; the next one that is right heals it."""
    gate = asyncio.Event()
    proxy = await start(origin, rule=[rule], upstream=CACHE)
    origin.fail("GET .*/blobs/", fault)
    origin.fail("GET .*/blobs/", once(waits_for(gate)))
    reading = [asyncio.create_task(proxy.get(blob_path(big))) for _ in range(5)]
    await asyncio.sleep(0.1)
    gate.set()

    answers = await asyncio.gather(*reading, return_exceptions=True)

    assert all(isinstance(answer, aiohttp.ClientError) for answer in answers)
    assert list((tmp_path / "cache").rglob(big.hex)) == []
    origin.heal()
    assert (await proxy.get(blob_path(big))).body == BIG


async def test_a_transfer_that_breaks_is_resumed_for_all(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """The upstream's break is mended once, behind everybody's back."""
    proxy = await start(origin, rule=[rule], upstream=CACHE)
    origin.fail("GET .*/blobs/", once(truncated(BIG[:900_000], len(BIG))))

    answers = await asyncio.gather(*(proxy.get(blob_path(big)) for _ in range(5)))

    assert [answer.body == BIG for answer in answers] == [True] * 5
    assert transfers(origin) == 2


async def test_a_source_that_never_answers_costs_the_budget(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """A cold blob of a source that hangs is 503 in time."""
    proxy = await start(origin, rule=[rule], upstream=CACHE, request_budget="200ms")
    origin.fail("GET .*/blobs/", hang())

    assert (await proxy.get(blob_path(big))).status == 503


async def test_a_blob_that_moved_is_found_again(
    origin: Origin, start: StartProxy, rule: dict[str, Any], big: Digest
) -> None:
    """When the learned source has lost a blob that isn't kept, the others are asked."""
    proxy = await start(origin, rule=[rule], upstream=CACHE, cache={"blobs_max": "1KB"})
    await proxy.get(blob_path(big))
    origin.fail("/v2/kimoqi/alpine-arm/blobs/", status(404))
    origin.registry.add_blob(X86, BIG)

    assert (await proxy.get(blob_path(big))).body == BIG


async def test_the_cache_stays_within_its_size(
    origin: Origin, start: StartProxy, rule: dict[str, Any], clock: Clock, tmp_path: Path
) -> None:
    """Blobs come and go; there is never more than was allowed."""
    blobs = [bytes([n]) * 300_000 for n in range(10)]
    digests = [origin.registry.add_blob(ARM, blob) for blob in blobs]
    proxy = await start(origin, rule=[rule], upstream=CACHE, cache={"blobs_max": "1MB"})
    folder = tmp_path / "cache" / "blobs"
    for blob, digest in zip(blobs * 2, digests * 2, strict=True):
        assert (await proxy.get(blob_path(digest))).body == blob
        await kept(tmp_path, digest)
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 1_000_000
        clock.advance(61)

    assert b"\nmanifuse_blobs_evicted_total 17.0\n" in (await proxy.page("/metrics")).body


async def test_another_upstream_may_stream(
    origin: Origin, other: Origin, start: StartProxy, rule: dict[str, Any], big: Digest, tmp_path: Path
) -> None:
    """The mode is that of the upstream which has the blob."""
    sources = [{**source, "upstream": "origin1"} for source in rule["sources"]]
    theirs = other.registry.add_blob(ARM, BIG[1:])
    proxy = await start(origin, other, rule=[{**rule, "sources": sources}])

    assert (await proxy.get(blob_path(theirs))).body == BIG[1:]
    assert not (tmp_path / "cache" / "blobs").exists()
