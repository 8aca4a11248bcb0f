"""S4: nothing that a client sends picks a target; only configured names are one (CVE-2026-32591)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from images import push_pair
from scripted import Origin
from security.conftest import StartProcess
from security.upstreams import TAG, Trap, no_error_of_ours, pair, trap

_DIGEST = "sha256:" + "0" * 64
_ROUTES = [
    "/v2/",
    "/v2/_catalog",
    TAG,
    f"/v2/kimoqi/alpine/blobs/{_DIGEST}",
    "/v2/kimoqi/alpine/tags/list",
    f"/v2/kimoqi/alpine/referrers/{_DIGEST}",
]
_NAMES = [
    "TRAP",
    "http://TRAP",
    "registry@TRAP",
    "TRAP/../registry",
    "TRAP#registry",
    "registry:80",
    "localhost",
    "169.254.169.254",
    "[::1]",
    "0x7f000001",
    "a@b",
    "x/../y",
    "docker.io",
    "docker.io:22",
    "registry\r\nHost: TRAP",
    "registry\0",
    "re\u0261istry",
    "*",
    "..",
    " registry",
]
_HEADS = [
    "GET http://TRAP/v2/kimoqi/alpine/manifests/1.0 HTTP/1.1\r\nHost: TRAP",
    "GET //TRAP/v2/kimoqi/alpine/manifests/1.0 HTTP/1.1\r\nHost: TRAP",
    "CONNECT TRAP HTTP/1.1\r\nHost: TRAP",
    "GET @TRAP/v2/ HTTP/1.1\r\nHost: registry",
    "GET /v2/kimoqi/alpine/manifests/1.0?ns=registry\rHost: TRAP HTTP/1.1\r\nHost: registry",
    "GET /v2/kimoqi/alpine/manifests/1.0 HTTP/1.1\r\nHost: registry\r\nHost: TRAP",
]


@pytest.fixture
async def elsewhere() -> AsyncIterator[Trap]:
    """A place that nobody configured."""
    async with trap() as one:
        yield one


async def test_no_namespace_prefix_or_component_is_a_target(
    launch: StartProcess, origin: Origin, elsewhere: Trap
) -> None:
    """`?ns=`, a prefix and a first component that aren't configured: 4xx, and no connection to anybody."""
    process = await launch(pair(origin))
    for name in (name.replace("TRAP", elsewhere.address) for name in _NAMES):
        for route in _ROUTES:
            answer = await process.get(f"{route}?ns={quote(name, safe='')}")
            assert answer.status == 404, (route, name, answer)
            answer = await process.get(f"{route}?ns=registry&ns={quote(name, safe='')}")
            assert answer.status == 404, (route, name, answer)
        for path in (f"/{quote(name, safe=':')}{TAG}", f"/v2/{quote(name, safe=':@')}/alpine/manifests/1.0"):
            answer = await process.get(path)
            assert answer.status in (400, 404), (path, answer)
    assert elsewhere.heard == []
    # This is the one that could be a repository's first component, and was asked for as such.
    assert {request.path.partition("/alpine")[0] for request in origin.requests} == {"/v2/0x7f000001"}
    await no_error_of_ours(process)


async def test_no_header_is_a_target(launch: StartProcess, origin: Origin, elsewhere: Trap) -> None:
    """`Host` and what proxies add choose among configured names, or count for nothing."""
    push_pair(origin.registry)
    process = await launch(pair(origin))
    url = f"http://{elsewhere.address}"
    for header in (
        {"Host": elsewhere.address},
        {"X_Forwarded_Host": elsewhere.address},
        {"X_Forwarded_Server": elsewhere.address},
        {"Forwarded": f"host={elsewhere.address};proto=http"},
        {"X_Original_URL": f"{url}{TAG}"},
        {"X_Rewrite_URL": f"{url}{TAG}"},
        {"Referer": url},
        {"Origin": url},
        {"Location": url},
    ):
        assert (await process.get(TAG, **header)).status == 200, header
    assert elsewhere.heard == []
    await no_error_of_ours(process)


async def test_no_request_line_is_a_target(launch: StartProcess, origin: Origin, elsewhere: Trap) -> None:
    """A request line as for a forward proxy makes none of us."""
    process = await launch(pair(origin))
    for head in _HEADS:
        data = head.replace("TRAP", elsewhere.address).encode() + b"\r\nConnection: close\r\n\r\n"
        answer = await process.raw(data)
        assert answer.startswith(b"HTTP/1."), answer
        assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert elsewhere.heard == []
    await no_error_of_ours(process)
