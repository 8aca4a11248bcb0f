"""S14: manifests that are too large, too many, too deep or go in circles cost little, and are no answer."""

from __future__ import annotations

from pathlib import Path

import orjson

from images import ARM, VIRTUAL, entry, push, push_index, push_pair
from proxy.memory import MemoryRegistry
from proxy.oci import mediatype
from proxy.oci.content import Descriptor
from proxy.oci.document import MAX_DESCRIPTORS
from scripted import Fault, Origin, endless, status
from security.conftest import StartProcess
from security.upstreams import BAD_ANSWER, children, no_error_of_ours, pair

_GROWTH = 48 << 20  # bytes: a few copies of a 4 MiB manifest, what it is when it is read, and the cache's own
_TOGETHER = 96 << 20  # bytes by all of them: what allocators keep differs from machine to machine
_INDEX = mediatype.OCI_INDEX


def _answering(body: bytes) -> Fault:
    return status(200, body, Content_Type=_INDEX)


def _many(count: int, **fields: object) -> bytes:
    """Return an index of so many entries, each as short as it can be."""
    one = {"mediaType": mediatype.OCI_MANIFEST, "digest": "sha256:" + "a" * 64, "size": 7, **fields}
    return b'{"schemaVersion":2,"manifests":[' + b",".join([orjson.dumps(one)] * count) + b"]}"


def _bombs() -> dict[str, Fault]:
    """Return answers that are bombs by themselves."""
    return {
        "5 MB that say so": _answering(b" " * 5_000_000 + _many(1)),
        "endless": endless(Content_Type=_INDEX),
        "endless digits": endless(b"1" * 65536, Content_Type=_INDEX),
        "10^5 descriptors": _answering(_many(100_000)),
        "10^6 empty descriptors": _answering(b'{"schemaVersion":2,"manifests":[' + b"{}," * 10**6 + b"{}]}"),
        "10^5 platforms": _answering(_many(MAX_DESCRIPTORS, platform={"os": "x" * 999, "architecture": "y" * 999})),
        "as deep as JSON goes": _answering(b"[" * 10**6),
        "deep where a word was expected": _answering(
            b'{"schemaVersion":2,"mediaType":' + b"[" * 1000 + b"]" * 1000 + b"}"
        ),
        "10^5 annotations": _answering(_many(1, annotations={f"k{n}": "v" for n in range(100_000)})),
        "4 MiB of one word": _answering(_many(1, artifactType="x" * 4_000_000)),
    }


def _nested(registry: MemoryRegistry, depth: int) -> Descriptor:
    """Push an image, and indexes around it, the outermost as the source's tag 1.0."""
    inner = push(registry, ARM, "inner", "linux/arm64")
    for level in range(depth):
        inner = push_index(registry, ARM, "1.0" if level == depth - 1 else None, [entry(inner, None)], _INDEX)
    return inner


def _spread(registry: MemoryRegistry, width: int, depth: int) -> Descriptor:
    """Push indexes of which each holds the one below many times: a few kilobytes that stand for billions."""
    inner = push(registry, ARM, "inner", "linux/arm64")
    for level in range(depth):
        entries = [entry(inner, None)] * width
        inner = push_index(registry, ARM, "1.0" if level == depth - 1 else None, entries, _INDEX)
    return inner


async def test_manifests_that_are_bombs(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """An error for the merged name and for the source's own, in bounded memory; the next good answer heals."""
    x86, arm = push_pair(origin.registry)
    process = await launch(f'{pair(origin)}\n[cache]\ndir = "{tmp_path / "cache"}"\nmemory = "4MiB"\n')
    assert (await process.get(f"/v2/{VIRTUAL}/tags/list")).status == 200  # imports and buffers are there
    first = process.resident
    for name, bomb in _bombs().items():
        before = process.resident
        origin.heal()
        origin.fail(f"(GET|HEAD) /v2/{ARM}/manifests/", bomb)
        for path in (f"/v2/{VIRTUAL}/manifests/1.0", f"/v2/{ARM}/manifests/{arm.digest}"):
            answer = await process.get(path)
            assert answer.status in BAD_ANSWER, (name, path, answer)
            assert len(answer.body) < 8192
        assert process.resident - before < _GROWTH, name
    assert process.resident - first < _TOGETHER
    origin.heal()
    found = children((await process.get(f"/v2/{VIRTUAL}/manifests/1.0")).body)
    assert found == {"linux/amd64": x86.digest, "linux/arm64": arm.digest}
    await no_error_of_ours(process)


async def test_indexes_within_indexes(launch: StartProcess, origin: Origin) -> None:
    """Fifty deep, or wide and deep at once: an error after a few questions."""
    push_pair(origin.registry)
    process = await launch(pair(origin))
    path, before = f"/v2/{VIRTUAL}/manifests/1.0", process.resident
    for name in ("deep", "wide"):
        _ = _nested(origin.registry, 50) if name == "deep" else _spread(origin.registry, 200, 3)
        origin.requests.clear()
        answer = await process.get(path)
        assert answer.status in BAD_ANSWER, (name, answer)
        assert len(origin.requests) < 500, name
        assert process.resident - before < _GROWTH, name
    await no_error_of_ours(process)


async def test_an_index_in_a_circle(launch: StartProcess, origin: Origin) -> None:
    """An index can't name itself and be what it is named: the digest stops whoever pretends that it does."""
    push_pair(origin.registry)
    first = push_index(origin.registry, ARM, None, [])
    body = orjson.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry(first, None)]})
    origin.fail(f"GET /v2/{ARM}/manifests/", _answering(body))
    process = await launch(pair(origin))
    answer = await process.get(f"/v2/{VIRTUAL}/manifests/1.0")
    assert answer.status in BAD_ANSWER
    assert len(origin.requests) < 20
    await no_error_of_ours(process)


async def test_configs_and_lists_that_are_bombs(launch: StartProcess, origin: Origin) -> None:
    """A config that doesn't end is an error of its image; so is a list of tags for the list."""
    push_pair(origin.registry)
    process = await launch(pair(origin))
    assert (await process.get(f"/v2/{VIRTUAL}/tags/list")).status == 200
    before = process.resident
    origin.fail(f"GET /v2/{ARM}/blobs/", endless())
    assert (await process.get(f"/v2/{VIRTUAL}/manifests/1.0")).status in BAD_ANSWER
    bodies = (
        endless(b'{"tags":["' + b"a" * 65536),
        status(200, b'{"tags":[' + b"[" * 1000 + b"]" * 1000 + b"]}"),
        status(200, b'{"tags":[' + b'"a",' * 2_000_000 + b'"a"]}'),
    )
    for body in bodies:
        origin.heal()
        origin.fail("/tags/list", body)
        assert (await process.get("/v2/else/where/tags/list")).status in BAD_ANSWER
    assert process.resident - before < _GROWTH
    await no_error_of_ours(process)
