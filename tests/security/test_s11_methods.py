"""S11: whatever isn't reading is refused before anybody is asked (CVE-2026-41888, CVE-2026-31801)."""

from __future__ import annotations

import pytest

from images import push_pair
from scripted import Origin
from security.conftest import StartProcess

_DIGEST = "sha256:" + "0" * 64
_PATHS = [
    "/v2/",
    "/v2/_catalog",
    "/v2/kimoqi/alpine/manifests/1.0",
    f"/v2/kimoqi/alpine/manifests/{_DIGEST}",
    f"/v2/kimoqi/alpine/blobs/{_DIGEST}",
    "/v2/kimoqi/alpine/blobs/uploads/",
    "/v2/kimoqi/alpine/tags/list",
    f"/v2/kimoqi/alpine/referrers/{_DIGEST}",
    "/registry/v2/kimoqi/alpine/manifests/1.0",
    "/v2/registry/kimoqi/alpine/manifests/1.0",
]
_METHODS = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]


async def test_no_other_method_reaches_an_upstream(launch: StartProcess, origin: Origin) -> None:
    """No method but GET and HEAD, on any route."""
    process = await launch(f'[[upstream]]\nname = "registry"\nurl = "{origin.url}"\n')
    for path in _PATHS:
        for method in _METHODS:
            answer = await process.get(path, method)
            assert answer.status in (404, 405), (method, path, answer)
            assert answer.status == 404 or "GET" in answer.headers["Allow"], (method, path)
    assert origin.requests == []


@pytest.mark.parametrize("header", ["X_HTTP_Method_Override", "X_HTTP_Method", "X_Method_Override"])
async def test_a_header_makes_no_other_method(launch: StartProcess, origin: Origin, header: str) -> None:
    """What a header says of the method counts for nothing."""
    push_pair(origin.registry)
    process = await launch(f'[[upstream]]\nname = "registry"\nurl = "{origin.url}"\n')
    answer = await process.get("/v2/kimoqi/alpine/manifests/1.0", "GET", **{header: "DELETE"})
    assert answer.status == 200
    assert {request.method for request in origin.requests} <= {"GET", "HEAD"}
