"""The registry API over the wire: bad input, methods, errors."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from conftest import Proxy, StartProxy, until
from images import push_pair
from scripted import Origin, html, status, waits_for

ZEROS = "sha256:" + "0" * 64


@pytest.fixture
async def proxy(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> Proxy:
    """A proxy in front of an upstream with the usual pair."""
    push_pair(origin.registry)
    return await start(origin, rule=[rule])


BAD_PATHS = {
    "upper case": ("/v2/Kimoqi/alpine/manifests/1.0", 400, "NAME_INVALID"),
    "dots": ("/v2/kimoqi/../alpine/manifests/1.0", 400, "NAME_INVALID"),
    "encoded dots": ("/v2/kimoqi/%2e%2e/alpine/manifests/1.0", 400, "NAME_INVALID"),
    "empty component": ("/v2/kimoqi//alpine/manifests/1.0", 400, "NAME_INVALID"),
    "encoded slash": ("/v2/kimoqi%2Falpine/manifests/1.0", 400, "NAME_INVALID"),
    "NUL in the name": ("/v2/kimoqi/al%00pine/manifests/1.0", 400, "NAME_INVALID"),
    "NUL in the tag": ("/v2/kimoqi/alpine/manifests/1%00", 400, "TAG_INVALID"),
    "newline in the tag": ("/v2/kimoqi/alpine/manifests/1.0%0a", 400, "TAG_INVALID"),
    "bad escape": ("/v2/kimoqi/alpine/manifests/%zz", 400, "NAME_INVALID"),
    "not UTF-8": ("/v2/kimoqi/%ff/manifests/1.0", 400, "NAME_INVALID"),
    "9 KB name": (f"/v2/{'a' * 9000}/manifests/1.0", 400, "NAME_INVALID"),
    "9 KB tag": (f"/v2/kimoqi/alpine/manifests/{'1' * 9000}", 400, "TAG_INVALID"),
    "bad digest": ("/v2/kimoqi/alpine/manifests/sha256:abc", 400, "DIGEST_INVALID"),
    "upper-case hex": (f"/v2/kimoqi/alpine/blobs/sha256:{'A' * 64}", 400, "DIGEST_INVALID"),
    "path in a digest": ("/v2/kimoqi/alpine/blobs/sha256:%2e%2e%2fpasswd", 400, "NAME_INVALID"),
    "md5": (f"/v2/kimoqi/alpine/blobs/md5:{'a' * 32}", 400, "DIGEST_INVALID"),
    "bad referrers digest": ("/v2/kimoqi/alpine/referrers/x", 400, "DIGEST_INVALID"),
    "no endpoint": ("/v2/kimoqi/alpine", 404, "UNKNOWN"),
    "another API": ("/v1/search", 404, "UNKNOWN"),
    "root": ("/", 404, "UNKNOWN"),
}


@pytest.mark.parametrize(("path", "expected", "code"), BAD_PATHS.values(), ids=BAD_PATHS.keys())
async def test_bad_paths(origin: Origin, proxy: Proxy, path: str, expected: int, code: str) -> None:
    """What can't be a name gets the right OCI code, and nobody upstream hears of it."""
    answer = await proxy.get(path)

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (expected, code)
    assert answer.headers["Content-Type"] == "application/json"
    assert origin.requests == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    "path", ["/v2/", "/v2/kimoqi/alpine/manifests/1.0", f"/v2/a/blobs/{ZEROS}", "/v2/a/blobs/uploads/", "/v2/_catalog"]
)
async def test_other_methods_are_refused(origin: Origin, proxy: Proxy, method: str, path: str) -> None:
    """Anything but GET and HEAD is a 405 that says what is allowed, whatever a header would override (S11)."""
    answer = await proxy.get(path, method, X_HTTP_Method_Override="GET")

    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert orjson.loads(answer.body)["errors"][0]["code"] == "UNSUPPORTED"
    assert origin.requests == []


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
async def test_the_ping(proxy: Proxy, path: str) -> None:
    """Both forms of the ping say that this is a registry, and nothing of the upstream's."""
    answer = await proxy.get(path)

    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/nobody/v2/", "/v2/?ns=nobody.example"])
async def test_the_ping_of_a_stranger(proxy: Proxy, path: str) -> None:
    """A ping to a registry that isn't served here is a 404."""
    assert (await proxy.get(path)).status == 404


async def test_errors_of_head_have_no_body(proxy: Proxy) -> None:
    """HEAD has the status of GET and never a body."""
    answer = await proxy.head("/v2/kimoqi/alpine/manifests/none")

    assert (answer.status, answer.body) == (404, b"")


async def test_an_escaped_colon_is_a_colon(origin: Origin, proxy: Proxy) -> None:
    """`sha256%3A…` is the digest that it means."""
    answer = await proxy.get("/v2/kimoqi/alpine/manifests/1.0")
    digest = answer.headers["Docker-Content-Digest"]

    assert (await proxy.get(f"/v2/kimoqi/alpine/manifests/{quote(digest, safe='')}")).body == answer.body


@pytest.mark.parametrize("fault", [html(), html(403), html(500), status(302), status(418)])
async def test_a_clients_error_is_never_html(origin: Origin, proxy: Proxy, fault: Any) -> None:
    """Whatever an upstream says, the client gets OCI JSON, and never a 500."""
    origin.fail("", fault)

    for path in ("manifests/1.0", f"manifests/{ZEROS}", f"blobs/{ZEROS}", "tags/list", f"referrers/{ZEROS}"):
        answer = await proxy.get(f"/v2/kimoqi/alpine/{path}")
        if answer.status != 200:
            assert orjson.loads(answer.body)["errors"]
        assert answer.status != 500


@pytest.mark.parametrize("path", ["manifests/1.0", f"manifests/{ZEROS}"])
async def test_an_answer_that_doesnt_come_is_told_once(origin: Origin, proxy: Proxy, path: str) -> None:
    """However many wait for it; the next one that doesn't come is told again."""
    gate = asyncio.Event()
    origin.fail("", status(503))
    origin.fail("", waits_for(gate))
    with capture_logs() as logs:
        url = f"/v2/kimoqi/alpine/{path}"  # each asks in words of its own, or one would ask for all of them
        waiting = [asyncio.create_task(proxy.get(url, User_Agent=f"client/{n}")) for n in range(5)]
        await until(lambda: bool(origin.requests))
        while b"manifuse_coalesced_total 4.0" not in (await proxy.page("/metrics")).body:  # noqa: ASYNC110 - bounded by the test's time limit
            await asyncio.sleep(0.01)
        gate.set()
        answers = await asyncio.gather(*waiting)
        told = [log["event"] for log in logs]
        await proxy.get(f"/v2/kimoqi/alpine/{path}")

    assert {answer.status for answer in answers} == {503}
    assert told.count("no answer") == 1
    assert [log["event"] for log in logs].count("no answer") == 2


async def test_content_coding_is_left_alone(origin: Origin, proxy: Proxy) -> None:
    """A client that accepts gzip gets identity, and an upstream is asked for nothing else."""
    answer = await proxy.get("/v2/kimoqi/alpine/manifests/1.0", Accept_Encoding="zstd;q=1.0, gzip;q=0.8")

    assert "Content-Encoding" not in answer.headers
    assert {request.headers["Accept-Encoding"] for request in origin.requests} == {"identity"}


async def test_a_clients_credentials_stay_here(origin: Origin, proxy: Proxy) -> None:
    """What a client sends to prove itself is never passed on."""
    await proxy.get("/v2/kimoqi/alpine/manifests/1.0", Authorization="Bearer secret", Cookie="session=secret")

    assert origin.requests
    assert not [r for r in origin.requests if "Authorization" in r.headers or "Cookie" in r.headers]


async def test_requests_are_counted(proxy: Proxy) -> None:
    """Every request is counted by route, method, status and cache result."""
    for path in ("/v2/kimoqi/alpine/manifests/1.0", "/v2/kimoqi/alpine/manifests/1.0", "/nowhere"):
        await proxy.get(path)

    metrics = (await proxy.page("/metrics")).body.decode()

    assert 'manifuse_requests_total{cache="miss",method="GET",route="manifest",status="200"} 1.0' in metrics
    assert 'manifuse_requests_total{cache="hit",method="GET",route="manifest",status="200"} 1.0' in metrics
    assert 'manifuse_requests_total{cache="none",method="GET",route="none",status="404"} 1.0' in metrics
    assert 'manifuse_upstream_requests_total{method="GET",status="200",upstream="origin0"} 4.0' in metrics
    assert "manifuse_merges_total 1.0" in metrics


SEGMENTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        "v2",
        "manifests",
        "blobs",
        "tags",
        "list",
        "referrers",
        "uploads",
        "_catalog",
        "..",
        ".",
        "",
        "kimoqi",
        ZEROS,
        "%2f",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    front=st.sampled_from([["v2"], ["origin0", "v2"], ["", "v2"], []]),
    segments=st.lists(SEGMENTS, max_size=7),
    namespace=st.sampled_from(["", "origin0"]) | st.text(max_size=10),
    query=st.text(max_size=10),
    raw=st.booleans(),
)
async def test_no_path_makes_a_500(
    proxy: Proxy, front: list[str], segments: list[str], namespace: str, query: str, *, raw: bool
) -> None:
    """Whatever is asked for, the answer is one of the registry API's, and never a 500."""
    safe = "%:" if raw else ""
    path = "/" + "/".join(quote(segment, safe=safe) for segment in [*front, *segments])

    answer = await proxy.get(f"{path}?ns={quote(namespace)}&n={quote(query)}")

    assert answer.status in {200, 400, 404, 405}
