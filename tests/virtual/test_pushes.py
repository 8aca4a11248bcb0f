"""Pushes through the whole service: streamed to the upstream, and seen at once."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import orjson
import pytest
from structlog.testing import capture_logs
from yarl import URL

from conftest import Answer, Clock, Proxy, StartProxy, until
from images import ARM, X86, entry, layer, push, push_index, push_pair
from patience import HANGING
from proxy.memory import MemoryRegistry
from proxy.oci import mediatype
from proxy.oci.content import Descriptor
from proxy.oci.errors import ManifestUnknown
from proxy.oci.reference import Digest, Repository
from proxy.oci.write import Write, Written
from scripted import Origin, running, status

VIRTUAL_TAG = "/v2/kimoqi/alpine/manifests/1.0"
OPEN: dict[str, Any] = {"push": True}


@dataclass(frozen=True)
class Pusher:
    """A client that pushes through the proxy."""

    proxy: Proxy

    async def send(self, method: str, location: str, data: Any = None, **headers: str) -> Answer:
        """Send a request to a path, or to a Location as it came."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = URL(self.proxy.url).join(URL(location, encoded=True))
        async with self.proxy.session.request(method, url, data=data, headers=named) as response:
            return Answer(response.status, response.headers, await response.read())

    async def begin(self, repository: str, query: str = "") -> Answer:
        """Begin an upload."""
        return await self.send("POST", f"/v2/{repository}/blobs/uploads/{query}")

    async def blob(self, repository: str, data: bytes) -> Digest:
        """Push a blob in one piece."""
        digest = Digest.of(data)
        begun = await self.begin(repository)
        done = await self.send("PUT", f"{begun.headers['Location']}&digest={digest}", data)
        assert (begun.status, done.status) == (202, 201)
        return digest

    async def image(self, repository: str, tag: str, architecture: str, text: str = "") -> Answer:
        """Push an image with one layer."""
        packed, diff_id = layer(text or f"{repository}:{tag}")
        config = orjson.dumps(
            {"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
        )
        body = manifest(await self.blob(repository, config), len(config), await self.blob(repository, packed), packed)
        return await self.put(repository, tag, body)

    async def put(self, repository: str, reference: str, body: Any, media_type: str = mediatype.OCI_MANIFEST) -> Answer:
        """Put a manifest."""
        return await self.send("PUT", f"/v2/{repository}/manifests/{reference}", body, Content_Type=media_type)


def manifest(config: Digest, size: int, blob: Digest, packed: bytes) -> bytes:
    """Return the manifest of an image with one layer."""
    return orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": {"mediaType": mediatype.OCI_CONFIG, "digest": config, "size": size},
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": blob, "size": len(packed)}
            ],
        }
    )


@pytest.fixture
async def pusher(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> Pusher:
    """A client of a proxy whose upstream may be pushed to."""
    return Pusher(await start(origin, rule=[rule], upstream=OPEN))


def platforms(answer: Answer) -> list[str]:
    """Return the architectures of an index."""
    return [entry["platform"]["architecture"] for entry in orjson.loads(answer.body)["manifests"]]


async def test_what_is_pushed_is_merged_at_once(pusher: Pusher) -> None:
    """`docker push …-x86`, `docker push …-arm`, `docker pull …`: every pull sees what was pushed before it."""
    seen = []
    for repository, architecture in ((X86, "amd64"), (ARM, "arm64")):
        pushed = await pusher.image(repository, "1.0", architecture)
        seen.append(platforms(await pusher.proxy.get(VIRTUAL_TAG)))
        assert pushed.status == 201

    assert seen == [["amd64"], ["amd64", "arm64"]]


@pytest.mark.parametrize(
    "sent",
    [
        f"POST /v2/{ARM}/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc",
        f"PUT /v2/{ARM}/manifests/1.0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["upload", "manifest"],
)
async def test_a_client_that_leaves_is_nobodys_error(
    origin: Origin, start: StartProxy, rule: dict[str, Any], sent: str
) -> None:
    """Neither ours, with a trace in the log, nor the upstream's, which would be left alone for it.

    Whoever stops a `docker push` breaks off five uploads at once.
    """
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], upstream={**OPEN, "breaker": 5})
    url = URL(proxy.url)
    with capture_logs() as logs:
        for _ in range(10):
            _, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(sent.encode())
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.close()
            await writer.wait_closed()
        await until(lambda: not _in_flight())
        answer = await proxy.get(VIRTUAL_TAG)

    assert answer.status == 200
    assert {log["event"] for log in logs if log["log_level"] in ("warning", "error")} == set()


def _in_flight() -> list[str]:
    """Return the requests that something is done for."""
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    return [name for name in names if name.endswith("RequestHandler._handle_request")]


async def test_a_rebuild_is_seen_at_once(origin: Origin, pusher: Pusher) -> None:
    """A fresh entry doesn't outlive a push to one of its sources."""
    push_pair(origin.registry)
    before = await pusher.proxy.get(VIRTUAL_TAG)
    await pusher.image(ARM, "1.0", "arm64", "rebuilt")

    after = await pusher.proxy.get(VIRTUAL_TAG)

    assert platforms(before) == platforms(after) == ["amd64", "arm64"]
    assert before.body != after.body


async def test_a_push_to_another_tag_costs_this_one_nothing(origin: Origin, pusher: Pusher, clock: Clock) -> None:
    """Only the tags that a push belongs to are asked for anew."""
    push_pair(origin.registry)
    await pusher.proxy.get(VIRTUAL_TAG)
    await pusher.image(ARM, "2.0", "arm64")
    origin.requests.clear()

    answer = await pusher.proxy.get(VIRTUAL_TAG)

    assert answer.headers["X-Manifuse-Cache"] == "hit"
    assert origin.requests == []


async def test_trouble_after_a_push_serves_the_last_good_index(origin: Origin, pusher: Pusher) -> None:
    """The new index can't be made while the registry fails: the last one is better than none (law 4)."""
    push_pair(origin.registry)
    before = await pusher.proxy.get(VIRTUAL_TAG)
    await pusher.image(ARM, "1.0", "arm64", "rebuilt")
    origin.fail("(HEAD|GET) ", status(503))

    during = await pusher.proxy.get(VIRTUAL_TAG)

    assert during.body == before.body
    assert during.headers["X-Manifuse-Cache"] == "stale"


async def test_pushes_are_off_unless_allowed(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Without `push = true` nothing is written and nobody upstream hears of it."""
    pusher = Pusher(await start(origin, rule=[rule]))
    digest = Digest.of(b"")
    answers = [
        await pusher.begin(ARM),
        await pusher.send("GET", f"/v2/{ARM}/blobs/uploads/1"),
        await pusher.send("PATCH", f"/v2/{ARM}/blobs/uploads/1", b"data"),
        await pusher.put(ARM, "1.0", b"{}"),
        await pusher.send("DELETE", f"/v2/{ARM}/manifests/1.0"),
        await pusher.send("DELETE", f"/v2/{ARM}/blobs/{digest}"),
    ]

    assert [(a.status, orjson.loads(a.body)["errors"][0]["code"]) for a in answers] == [(405, "UNSUPPORTED")] * 6
    assert {a.headers["Allow"] for a in answers} == {"GET, HEAD"}
    assert origin.requests == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", f"/v2/{ARM}/manifests/1.0", "GET, HEAD, PUT, DELETE"),
        ("PUT", f"/v2/{ARM}/blobs/{Digest.of(b'')}", "GET, HEAD, DELETE"),
        ("PUT", f"/v2/{ARM}/blobs/uploads/", "POST"),
        ("POST", f"/v2/{ARM}/blobs/uploads/1", "GET, PATCH, PUT, DELETE"),
        ("DELETE", f"/v2/{ARM}/tags/list", "GET, HEAD"),
        ("OPTIONS", f"/v2/{ARM}/manifests/1.0", "GET, HEAD"),
    ],
)
async def test_other_methods_are_not_allowed(
    origin: Origin, pusher: Pusher, method: str, path: str, allowed: str
) -> None:
    """What writes nothing is 405 with what would, and isn't passed on; no header overrides the method (S11)."""
    answer = await pusher.send(method, path, X_HTTP_Method_Override="PUT")

    assert (answer.status, answer.headers["Allow"]) == (405, allowed)
    assert origin.requests == []


async def test_an_upload_in_chunks(origin: Origin, pusher: Pusher) -> None:
    """POST, two PATCHes, a look at how far it has come, PUT; every Location leads back to the proxy."""
    begun = await pusher.begin(ARM)
    first = await pusher.send("PATCH", begun.headers["Location"], b"hello ", Content_Range="0-5")
    second = await pusher.send("PATCH", first.headers["Location"], b"world", Content_Range="6-10")
    asked = await pusher.send("GET", second.headers["Location"])
    done = await pusher.send("PUT", f"{asked.headers['Location']}&digest={Digest.of(b'hello world')}")
    read = await pusher.proxy.get(done.headers["Location"])

    assert [a.status for a in (begun, first, second, asked, done)] == [202, 202, 202, 204, 201]
    assert asked.headers["Range"] == "0-10"
    assert begun.headers["Location"].startswith(f"/v2/{ARM}/blobs/uploads/1?")
    assert done.headers["Location"] == f"/v2/{ARM}/blobs/{Digest.of(b'hello world')}"
    assert read.body == b"hello world"


async def test_a_chunk_out_of_order_is_the_registrys_to_refuse(pusher: Pusher) -> None:
    """The upstream's own status and code reach the client."""
    begun = await pusher.begin(ARM)
    answer = await pusher.send("PATCH", begun.headers["Location"], b"world", Content_Range="6-10")

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (416, "RANGE_INVALID")


async def test_an_upload_in_one_request(pusher: Pusher) -> None:
    """A monolithic POST with the digest (end-4b)."""
    done = await pusher.send("POST", f"/v2/{ARM}/blobs/uploads/?digest={Digest.of(b'all')}", b"all")

    assert (done.status, done.headers["Location"]) == (201, f"/v2/{ARM}/blobs/{Digest.of(b'all')}")


async def test_an_upload_is_cancelled(pusher: Pusher) -> None:
    """After DELETE the session is unknown."""
    begun = await pusher.begin(ARM)
    cancelled = await pusher.send("DELETE", begun.headers["Location"])
    again = await pusher.send("GET", begun.headers["Location"])

    assert (cancelled.status, again.status) == (204, 404)
    assert orjson.loads(again.body)["errors"][0]["code"] == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize("session", ["~forged.signature", "..", "a%2Fb", "a%20b", "%7e"])
async def test_a_session_nobody_gave_out_leads_nowhere(origin: Origin, pusher: Pusher, session: str) -> None:
    """What comes back from a client never picks what is asked upstream (law 10)."""
    answer = await pusher.send("PATCH", f"/v2/{ARM}/blobs/uploads/{session}", b"data")

    assert answer.status in (400, 404)
    assert origin.requests == []


async def test_other_paths_of_uploads_come_back_signed(origin: Origin, pusher: Pusher) -> None:
    """A registry that continues uploads elsewhere on its own host is asked there, and only there."""
    origin.fail("POST ", status(202, Location=f"/artifacts-uploads/{ARM}/xyz?token=a%2Fb"))
    begun = await pusher.begin(ARM)
    location = begun.headers["Location"]
    origin.fail("PUT /artifacts-uploads", status(201))
    done = await pusher.send("PUT", f"{location}?digest={Digest.of(b'data')}", b"data")
    stolen = await pusher.send("PUT", location.replace(str(ARM), str(X86)), b"data")

    assert (begun.status, done.status, stolen.status) == (202, 201, 404)
    assert location.startswith(f"/v2/{ARM}/blobs/uploads/~")
    assert [(r.method, r.path, r.query) for r in origin.requests if "uploads/kimoqi" in r.path] == [
        ("PUT", f"/artifacts-uploads/{ARM}/xyz", f"token=a%2Fb&digest={Digest.of(b'data')}")
    ]


async def test_an_upload_that_goes_on_elsewhere_is_refused(origin: Origin, pusher: Pusher) -> None:
    """Nobody but the upstream gets what is pushed."""
    origin.fail("POST ", status(202, Location="http://evil.example/v2/upload"))

    answer = await pusher.begin(ARM)

    assert answer.status == 502


async def test_a_mount_from_a_virtual_name_is_one_from_its_owner(origin: Origin, pusher: Pusher) -> None:
    """Clients remember blobs by the virtual name that they pulled them from."""
    _, arm = push_pair(origin.registry)
    await pusher.proxy.get(VIRTUAL_TAG)
    image = orjson.loads((await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{arm.digest}")).body)
    digest = image["layers"][0]["digest"]

    mounted = await pusher.begin("kimoqi/new", f"?mount={digest}&from=kimoqi/alpine")

    assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/kimoqi/new/blobs/{digest}")


async def test_what_clients_were_told_is_there_is_brought_along(origin: Origin, pusher: Pusher) -> None:
    """An image pushed to the virtual name, whose layers only a source has: HEAD said they are there."""
    _, arm = push_pair(origin.registry)
    await pusher.proxy.get(VIRTUAL_TAG)
    body = (await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{arm.digest}")).body

    pushed = await pusher.put("kimoqi/alpine", "copy", body, mediatype.DOCKER_MANIFEST)

    assert pushed.status == 201
    assert (await pusher.proxy.get("/v2/kimoqi/alpine/manifests/copy")).body == body


async def test_an_index_of_children_that_sources_have(origin: Origin, pusher: Pusher) -> None:
    """The merged index can be pushed to its own name: its children come along, the bytes stay."""
    push_pair(origin.registry)
    index = await pusher.proxy.get(VIRTUAL_TAG)

    pushed = await pusher.put("kimoqi/alpine", "frozen", index.body, index.headers["Content-Type"])
    frozen = await pusher.proxy.get("/v2/kimoqi/alpine/manifests/frozen")

    assert pushed.status == 201
    assert frozen.body == index.body
    assert pushed.headers["Docker-Content-Digest"] == index.headers["Docker-Content-Digest"]


async def nested(origin: Origin, pusher: Pusher, depth: int, times: int) -> bytes:
    """Return an index of indexes, each of which names the next one so many *times*, as clients know them by digest."""
    _, child = push_pair(origin.registry)
    for _ in range(depth):
        await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{child.digest}")
        child = push_index(origin.registry, ARM, None, [entry(child, "linux/arm64")] * times)
    return (await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{child.digest}")).body


async def test_what_is_named_again_and_again_is_brought_along_once(origin: Origin, pusher: Pusher) -> None:
    """Three indexes that name the next one a thousand times each would be a push that never ends."""
    body = await nested(origin, pusher, depth=3, times=4)
    origin.requests.clear()

    pushed = await pusher.put("kimoqi/alpine", "copy", body, mediatype.OCI_INDEX)

    assert pushed.status == 201
    written = [request.path for request in origin.requests if request.method == "PUT" and "/manifests/" in request.path]
    assert len(written) == len(set(written)) + 1 == 5, "what was pushed comes twice"


async def test_indexes_too_deep_are_the_registrys_to_refuse(origin: Origin, pusher: Pusher) -> None:
    """Nobody follows them for ever."""
    body = await nested(origin, pusher, depth=6, times=1)

    answer = await pusher.put("kimoqi/alpine", "copy", body, mediatype.OCI_INDEX)

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")


async def test_a_manifest_with_unknown_parts_is_the_registrys_to_refuse(pusher: Pusher) -> None:
    """What nobody has can't be brought along."""
    body = manifest(Digest.of(b"config"), 6, Digest.of(b"layer"), b"layer")

    answer = await pusher.put(ARM, "1.0", body)

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")


async def test_a_manifest_of_5_mb_is_too_large(origin: Origin, pusher: Pusher) -> None:
    """The interoperable limit holds for what is pushed, too."""
    answer = await pusher.put(ARM, "1.0", io.BytesIO(b" " * (5 << 20)))

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (413, "SIZE_INVALID")
    assert origin.requests == []


async def test_a_deleted_tag_is_gone_at_once(origin: Origin, pusher: Pusher) -> None:
    """Deleting a source's tag takes its architecture out of the index; deleting the last one, the index."""
    push_pair(origin.registry)
    seen = [platforms(await pusher.proxy.get(VIRTUAL_TAG))]
    for repository in (ARM, X86):
        deleted = await pusher.send("DELETE", f"/v2/{repository}/manifests/1.0")
        answer = await pusher.proxy.get(VIRTUAL_TAG)
        seen.append(platforms(answer) if answer.status == 200 else [str(answer.status)])
        assert deleted.status == 202

    assert seen == [["amd64", "arm64"], ["amd64"], ["404"]]


async def test_a_deleted_digest_takes_its_tags_along(origin: Origin, pusher: Pusher) -> None:
    """Nobody says which tags a deleted manifest had: all that the repository is part of are asked for anew."""
    _, arm = push_pair(origin.registry)
    await pusher.proxy.get(VIRTUAL_TAG)
    direct = f"/v2/{ARM}/manifests/{arm.digest}"
    before = await pusher.proxy.get(direct)
    deleted = await pusher.send("DELETE", direct)
    after = [await pusher.proxy.get(path) for path in (direct, f"/v2/{ARM}/manifests/1.0")]

    assert (before.status, deleted.status, [a.status for a in after]) == (200, 202, [404, 404])
    assert platforms(await pusher.proxy.get(VIRTUAL_TAG)) == ["amd64"]


async def test_a_deleted_blob_is_gone(origin: Origin, pusher: Pusher) -> None:
    """Also one whose place was known."""
    digest = await pusher.blob(ARM, b"data")
    path = f"/v2/{ARM}/blobs/{digest}"
    statuses = [(await pusher.proxy.get(path)).status]
    statuses += [(await pusher.send("DELETE", path)).status, (await pusher.proxy.get(path)).status]

    assert statuses == [200, 202, 404]


async def test_bodies_are_streamed(origin: Origin, pusher: Pusher) -> None:
    """The upstream has the first bytes while the client still sends: nothing is kept until all of it is there."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def watch(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        await request.content.readexactly(65536)
        arrived.set()
        rest = await request.content.read()
        return aiohttp.web.Response(status=201 if len(rest) == 65536 else 400)

    async def slowly() -> Any:
        yield b"x" * 65536
        await go_on.wait()
        yield b"y" * 65536

    begun = await pusher.begin(ARM)
    origin.fail("PUT ", watch)
    sending = asyncio.create_task(pusher.send("PUT", f"{begun.headers['Location']}&digest={Digest.of(b'')}", slowly()))
    await asyncio.wait_for(arrived.wait(), HANGING)
    go_on.set()

    assert (await sending).status == 201


async def test_a_client_that_leaves_is_no_fault_of_the_upstream(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """A push that breaks off leaves no trace in the circuit breaker, and no answer of 500."""
    proxy = await start(origin, rule=[rule], upstream={"push": True, "breaker": 1})
    pusher = Pusher(proxy)
    begun = await pusher.begin(ARM)
    reader, writer = await asyncio.open_connection(*proxy.url.removeprefix("http://").split(":"))
    head = f"PATCH {begun.headers['Location']} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    writer.write(head.encode() + b"only this")
    await until(lambda: any(request.method == "PATCH" for request in origin.requests))
    writer.close()

    assert (await pusher.begin(ARM)).status == 202
    assert not await reader.read()
    assert b'status="500"' not in (await proxy.page("/metrics")).body


async def test_a_client_may_wait_until_it_is_told_to_send(pusher: Pusher) -> None:
    """`Expect: 100-continue` is answered before the body, which curl and Go clients wait for."""
    begun = await pusher.begin(ARM)
    reader, writer = await asyncio.open_connection(*pusher.proxy.url.removeprefix("http://").split(":"))
    path = f"{begun.headers['Location']}&digest={Digest.of(b'data')}"
    writer.write(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n".encode())
    told = await reader.readline()
    await reader.readline()
    writer.write(b"data")
    answered = await reader.readline()
    writer.close()

    assert told == b"HTTP/1.1 100 Continue\r\n"
    assert answered.startswith(b"HTTP/1.1 201 ")


async def test_a_client_of_http_1_0_is_not_told_to_send(pusher: Pusher) -> None:
    """It knows no interim answers, and would take one for the answer (RFC 9110, 10.1.1)."""
    begun = await pusher.begin(ARM)
    reader, writer = await asyncio.open_connection(*pusher.proxy.url.removeprefix("http://").split(":"))
    path = f"{begun.headers['Location']}&digest={Digest.of(b'data')}"
    writer.write(f"PUT {path} HTTP/1.0\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\ndata".encode())
    answered = await reader.readline()
    writer.close()

    assert answered == b"HTTP/1.0 201 Created\r\n"


async def test_an_upstream_that_is_down_is_503(origin: Origin, pusher: Pusher) -> None:
    """No answer to a push is no answer, said as such."""
    origin.fail("POST ", status(500))

    answer = await pusher.begin(ARM)

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (503, "UNAVAILABLE")


async def test_locations_keep_the_way_of_addressing(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A prefix and `?ns=` of the request are in the Location, or the next request would go to another registry."""
    pusher = Pusher(
        await start(origin, rule=[rule], upstream={"push": True, "aliases": ["registry.example:5000", "elsewhere"]})
    )
    by_prefix = await pusher.send("POST", f"/registry.example:5000/v2/{ARM}/blobs/uploads/")
    by_component = await pusher.send("POST", f"/v2/elsewhere/{ARM}/blobs/uploads/")
    by_namespace = await pusher.send("POST", f"/v2/{ARM}/blobs/uploads/?ns=registry.example%3A5000")
    done = [
        await pusher.send("PUT", f"{begun.headers['Location']}&digest={Digest.of(b'data')}", b"data")
        for begun in (by_prefix, by_component, by_namespace)
    ]

    assert by_prefix.headers["Location"].startswith(f"/registry.example:5000/v2/{ARM}/")
    assert by_component.headers["Location"].startswith(f"/v2/elsewhere/{ARM}/")
    assert by_namespace.headers["Location"].endswith("&ns=registry.example%3A5000")
    assert [answer.status for answer in done] == [201, 201, 201]
    assert not [request for request in origin.requests if "ns=" in request.query]


async def test_a_push_to_another_registrys_source_is_seen_too(
    origin: Origin, other: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """A source on another upstream is part of the virtual name, whichever of them is pushed to."""
    rule["sources"][1] |= {"upstream": "origin1"}
    push(origin.registry, X86, "1.0", "linux/amd64")
    pusher = Pusher(await start(origin, other, rule=[rule], upstream=OPEN))
    before = platforms(await pusher.proxy.get(VIRTUAL_TAG))
    await pusher.image(f"origin1/{ARM}", "1.0", "arm64")

    assert (before, platforms(await pusher.proxy.get(VIRTUAL_TAG))) == (["amd64"], ["amd64", "arm64"])
    assert Repository("kimoqi/alpine-arm") == ARM


async def names(proxy: Proxy, path: str) -> list[str]:
    """Return what a list holds."""
    document = orjson.loads((await proxy.get(path)).body)
    found: list[str] = document.get("tags", document.get("repositories"))
    return found


async def test_a_push_shows_in_lists_at_once(pusher: Pusher) -> None:
    """A source's new tag is in the list of its virtual name, and a new repository in the catalog."""
    tags, catalog = "/v2/kimoqi/alpine/tags/list", "/v2/_catalog"
    await pusher.image(X86, "1.0", "amd64")
    before = await names(pusher.proxy, tags), await names(pusher.proxy, catalog)
    await pusher.image(ARM, "2.0", "arm64")
    await pusher.image("other/tool", "1.0", "arm64")

    assert before == (["1.0"], ["kimoqi/alpine", X86])
    assert await names(pusher.proxy, tags) == ["1.0", "2.0"]
    assert await names(pusher.proxy, catalog) == ["kimoqi/alpine", ARM, X86, "other/tool"]


async def test_the_merged_index_can_be_signed(origin: Origin, pusher: Pusher) -> None:
    """A signature for its digest, pushed to the virtual name, is found there at once: as a tag, and as a referrer."""
    push_pair(origin.registry)
    digest = (await pusher.proxy.get(VIRTUAL_TAG)).headers["Docker-Content-Digest"]
    tag, referrers = f"{digest.replace(':', '-')}.sig", f"/v2/kimoqi/alpine/referrers/{digest}"
    unsigned = (await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")).status
    signature = orjson.loads(manifest(await pusher.blob("kimoqi/alpine", b"{}"), 2, Digest.of(b"{}"), b"{}"))
    signature["subject"] = {"mediaType": mediatype.OCI_INDEX, "digest": digest, "size": 1}
    body = orjson.dumps(signature)

    pushed = await pusher.put("kimoqi/alpine", tag, body)

    assert (unsigned, pushed.status) == (404, 201)
    assert (await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")).body == body
    found = orjson.loads((await pusher.proxy.get(referrers)).body)["manifests"]
    assert [entry["digest"] for entry in found] == [Digest.of(body)]
    assert (await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{Digest.of(body)}")).body == body
    assert (await pusher.proxy.get(VIRTUAL_TAG)).headers["Docker-Content-Digest"] == digest


class Old(MemoryRegistry):
    """A registry without a referrers API, as distribution 2 and 3 are."""

    async def referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Know nothing of it."""
        raise ManifestUnknown("there is no such endpoint")

    async def write(self, write: Write) -> Written:
        """Take it, and don't say what it refers to."""
        return replace(await super().write(write), headers={})


def referrer(subject: str, config: Digest, text: str) -> bytes:
    """Return the manifest of an artifact that refers to *subject*."""
    return orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "artifactType": "application/vnd.example",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
            "layers": [],
            "subject": {"mediaType": mediatype.OCI_INDEX, "digest": subject, "size": 1},
            "annotations": {"says": text},
        }
    )


@pytest.fixture
async def old(start: StartProxy, rule: dict[str, Any]) -> AsyncIterator[tuple[Origin, Pusher]]:
    """A registry without a referrers API, and a client that pushes to it."""
    async with running(Origin(Old())) as origin:
        push_pair(origin.registry)
        yield origin, Pusher(await start(origin, rule=[rule], upstream=OPEN))


async def listed(pusher: Pusher, digest: str) -> list[str]:
    """Return the digests of what refers to *digest*."""
    answer = await pusher.proxy.get(f"/v2/kimoqi/alpine/referrers/{digest}")
    return [entry["digest"] for entry in orjson.loads(answer.body)["manifests"]]


async def test_whoever_answers_for_referrers_keeps_them(old: tuple[Origin, Pusher]) -> None:
    """A client that sees our referrers API writes no fallback tag: it is written here, for every one of them."""
    _, pusher = old
    index = (await pusher.proxy.get(VIRTUAL_TAG)).headers["Docker-Content-Digest"]
    config = await pusher.blob("kimoqi/alpine", b"{}")
    bodies = [referrer(index, config, str(number)) for number in range(5)]
    pushed = await asyncio.gather(*(pusher.put("kimoqi/alpine", Digest.of(body), body) for body in bodies))

    assert {answer.headers["OCI-Subject"] for answer in pushed} == {index}
    assert await listed(pusher, index) == sorted(Digest.of(body) for body in bodies)


async def test_a_deleted_referrer_is_not_listed(old: tuple[Origin, Pusher]) -> None:
    """What is gone refers to nothing."""
    _, pusher = old
    config = await pusher.blob("kimoqi/alpine", b"{}")
    first, second = (referrer(Digest.of(b"subject"), config, text) for text in ("first", "second"))
    for body in (first, second):
        await pusher.put("kimoqi/alpine", Digest.of(body), body)
    before = await listed(pusher, Digest.of(b"subject"))
    deleted = await pusher.send("DELETE", f"/v2/kimoqi/alpine/manifests/{Digest.of(first)}")

    assert (len(before), deleted.status) == (2, 202)
    assert await listed(pusher, Digest.of(b"subject")) == [Digest.of(second)]


async def test_a_tag_that_is_no_list_is_left_alone(old: tuple[Origin, Pusher]) -> None:
    """Somebody's image under a name that looks like a list of referrers isn't overwritten, and nothing is claimed."""
    origin, pusher = old
    subject = Digest.of(b"subject")
    image = push(origin.registry, "kimoqi/alpine", f"sha256-{subject.hex}", "linux/amd64")
    body = referrer(subject, await pusher.blob("kimoqi/alpine", b"{}"), "x")
    pushed = await pusher.put("kimoqi/alpine", Digest.of(body), body)
    tag = await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/sha256-{subject.hex}")

    assert tag.headers["Docker-Content-Digest"] == image.digest
    assert "OCI-Subject" not in pushed.headers


async def test_a_registry_that_keeps_referrers_is_left_alone(origin: Origin, pusher: Pusher) -> None:
    """Where the upstream says `OCI-Subject` nothing is written besides."""
    body = referrer(Digest.of(b"subject"), await pusher.blob("kimoqi/alpine", b"{}"), "x")
    origin.requests.clear()
    pushed = await pusher.put("kimoqi/alpine", Digest.of(body), body)

    assert pushed.headers["OCI-Subject"] == Digest.of(b"subject")
    assert origin.asked == [f"PUT kimoqi/alpine/manifests/{Digest.of(body)}"]


async def test_a_push_counts_though_its_listing_failed(old: tuple[Origin, Pusher], clock: Clock) -> None:
    """The manifest is in the registry: nobody gets what was before, whatever became of the list of referrers."""
    origin, pusher = old
    config = await pusher.blob("kimoqi/alpine", b"{}")
    first, second = (referrer(Digest.of(b"subject"), config, text) for text in ("first", "second"))
    await pusher.put("kimoqi/alpine", "notes", first)
    clock.advance(1)  # what is kept now is newer than that push
    before = await pusher.proxy.get("/v2/kimoqi/alpine/manifests/notes")
    origin.fail("PUT .*/manifests/sha256-", status(503))
    pushed = await pusher.put("kimoqi/alpine", "notes", second)
    after = await pusher.proxy.get("/v2/kimoqi/alpine/manifests/notes")

    assert (before.body, pushed.status, after.body) == (first, 503, second)
