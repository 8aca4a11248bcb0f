"""What an index at a virtual name holds."""

from __future__ import annotations

import orjson

from conftest import Proxy

TAG = "/v2/kimoqi/alpine/manifests/1.0"


async def merged(proxy: Proxy, path: str = TAG) -> list[tuple[str, str]]:
    """Return the platforms and digests of the index at *path*, in its order."""
    answer = await proxy.get(path)
    assert answer.status == 200, answer.body
    document = orjson.loads(answer.body)
    assert document["mediaType"] == answer.headers["Content-Type"]
    return [(_words(each["platform"]), each["digest"]) for each in document["manifests"]]


def _words(platform: dict[str, str]) -> str:
    return "/".join(platform[key] for key in ("os", "architecture", "variant") if key in platform)
