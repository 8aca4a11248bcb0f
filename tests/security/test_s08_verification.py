"""S8: what doesn't hash to its digest, or isn't what was asked for, is never kept, never merged and never served."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from images import ARM, VIRTUAL, push_pair
from proxy.oci import mediatype
from proxy.oci.reference import Digest, Tag
from scripted import Fault, Origin, html, status, truncated
from security.conftest import StartProcess
from security.upstreams import BAD_ANSWER, children, no_error_of_ours, pair

_WAYS = ["wrong body", "truncated", "login page", "rate limit", "gzip", "partial", "empty"]
_DATA = bytes(range(256)) * 1024


def _fault(way: str, body: bytes, content_type: str) -> Fault:
    """Return the upstream that answers in one of these ways instead of *body*."""
    match way:
        case "wrong body":
            other = body[:-1] + bytes([body[-1] ^ 1])
            return status(200, other, Content_Type=content_type, Docker_Content_Digest=Digest.of(body))
        case "truncated":
            return truncated(body[: len(body) // 2], len(body), Content_Type=content_type)
        case "login page":
            return html()
        case "rate limit":
            return status(429, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}', Content_Type="application/json")
        case "gzip":
            packed = gzip.compress(body)
            return status(200, packed, Content_Type=content_type, Content_Encoding="gzip")
        case "partial":
            half = body[: len(body) // 2]
            spread = f"bytes 0-{len(half) - 1}/{len(body)}"
            return status(206, half, Content_Type=content_type, Content_Range=spread)
        case _:
            return status(200, b"", Content_Type=content_type)


async def test_manifests(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """Of a tag, of a digest, and as part of an index: no answer; the next good reply heals all three."""
    process = await launch(pair(origin))
    for number, way in enumerate(_WAYS):
        tag = f"1.{number}"
        x86, arm = push_pair(origin.registry, tag)
        body = (await origin.registry.manifest(ARM, Tag(tag), mediatype.ANYTHING)).body
        merged, alone = (f"/v2/{repository}/manifests/{tag}" for repository in (VIRTUAL, ARM))
        by_digest = f"/v2/{ARM}/manifests/{arm.digest}"
        origin.fail(f"(GET|HEAD) /v2/{ARM}/manifests/", _fault(way, body, arm.media_type))
        for path in (merged, alone, by_digest, f"/v2/{VIRTUAL}/manifests/{arm.digest}", merged):
            answer = await process.get(path)
            assert answer.status in BAD_ANSWER, (way, path, answer)
            assert body not in answer.body
        kept = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
        assert not [name for name in kept if arm.digest.hex in name]
        origin.heal()
        for path in (alone, by_digest):
            assert (await process.get(path)).body == body
        assert children((await process.get(merged)).body) == {"linux/amd64": x86.digest, "linux/arm64": arm.digest}
    await no_error_of_ours(process)


@pytest.mark.parametrize("mode", ["stream", "cache"])
async def test_blobs(launch: StartProcess, origin: Origin, mode: str) -> None:
    """A blob is never whole that isn't right: an error, or a connection that breaks. The next good reply heals."""
    process = await launch(pair(origin, upstream=f'blobs = "{mode}"'))
    for way in _WAYS:
        data = way.encode() + _DATA
        path = f"/v2/{ARM}/blobs/{origin.registry.add_blob(ARM, data)}"
        origin.fail(f"GET {path}", _fault(way, data, "application/octet-stream"))
        for _ in range(2):
            head = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
            answer, _, body = (await process.raw(head)).partition(b"\r\n\r\n")
            if answer.startswith(b"HTTP/1.1 200"):
                assert f"Content-Length: {len(data)}".encode() in answer
                assert len(body) < len(data), way
            else:
                assert answer.split()[1] in (b"502", b"503"), (way, answer)
        origin.heal()
        assert (await process.get(path)).body == data
    await no_error_of_ours(process)
