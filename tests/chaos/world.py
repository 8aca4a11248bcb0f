"""What is in the registry, and what must therefore be served: all that is ever right."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from e2e import wire
from images import push
from proxy.memory import MemoryRegistry
from proxy.oci.reference import Digest

APP: Final = "team/app"  # merged by a rule, its ARM half on the second upstream
FREE: Final = "team/free"  # merged by convention, all of it on the first
PLATFORMS: Final = {"x86": "linux/amd64", "arm": "linux/arm64"}
NAMES: Final = {"linux/amd64": "x86", "linux/arm64/v8": "arm"}
TAGS: Final = {
    APP: ("hot", "soft", "known", "cold", "cold-head", "half-known", "half-cold", "late", "copied"),
    FREE: ("known", "cold", "half-known", "half-cold"),
}
_LAYER: Final = 512 * 1024  # characters that compress to half as many bytes


@dataclass(frozen=True, slots=True)
class Half:
    """One architecture of a name: digests and bytes of what was pushed."""

    manifest: str
    manifest_bytes: bytes
    config: str
    config_bytes: bytes
    layer: str
    layer_bytes: bytes


@dataclass(frozen=True, slots=True)
class World:
    """The truth.

    Attributes:
        halves: What was pushed, by repository, tag and architecture.
        indexes: The bytes that a healthy proxy merges of it, by repository and tag.
        kept: Digests that a cache may hold.
    """

    halves: dict[tuple[str, str], dict[str, Half]]
    indexes: dict[tuple[str, str], bytes]
    kept: frozenset[str]


def fill(registry: str) -> dict[tuple[str, str], dict[str, Half]]:
    """Push an image for each architecture of each name."""
    halves: dict[tuple[str, str], dict[str, Half]] = {}
    for repository, tags in TAGS.items():
        for tag in tags:
            halves[repository, tag] = {word: _push(registry, repository, tag, word) for word in PLATFORMS}
    return halves


def learn(proxy: str, halves: dict[tuple[str, str], dict[str, Half]]) -> World:
    """Ask a healthy proxy for every name; each must be an index of exactly what was pushed."""
    indexes = {}
    for (repository, tag), expected in halves.items():
        served = wire.manifest(proxy, repository, tag)
        assert served.status == 200, (repository, tag, served.body)
        found = {NAMES[platform]: digest for digest, (_, platform) in served.entries.items()}
        assert found == {word: half.manifest for word, half in expected.items()}
        indexes[repository, tag] = served.body
    return World(halves, indexes, frozenset(_kept(halves.values(), indexes.values())))


def _kept(halves: Iterable[dict[str, Half]], indexes: Iterable[bytes]) -> Iterator[str]:
    for each in halves:
        for half in each.values():
            yield from (half.manifest, half.config)
    for body in indexes:
        yield Digest.of(body)


def _push(registry: str, repository: str, tag: str, word: str) -> Half:
    """Build an image in memory and push it as a client would."""
    name = f"{repository}-{word}"
    memory = MemoryRegistry()
    described = push(memory, name, tag, PLATFORMS[word], text=os.urandom(_LAYER // 2).hex())
    blobs = {str(digest): data for (_, digest), data in memory._blobs.items()}
    for data in blobs.values():
        wire.push_blob(registry, name, data)
    body = next(each.body for each in memory._manifests.values())
    where = f"http://{registry}/v2/{name}/manifests/{tag}"
    done = wire.request("PUT", where, body, {"Content-Type": described.media_type})
    assert done.status == 201, done.body
    manifest = json.loads(body)
    config, layer = manifest["config"]["digest"], manifest["layers"][0]["digest"]
    return Half(described.digest, body, config, blobs[config], layer, blobs[layer])
