"""What is in the registry, and what must therefore be served: all that is ever right."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from e2e import wire
from images import push
from proxy.memory import MemoryRegistry
from proxy.oci.content import Descriptor
from proxy.oci.document import Image, parse

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
    """One architecture of a name: its image, config and layer as they were pushed."""

    manifest: str
    config: tuple[str, bytes]
    layer: tuple[str, bytes]


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


def _kept(halves: Iterable[dict[str, Half]], indexes: Iterable[bytes]) -> Iterable[str]:
    for each in halves:
        for half in each.values():
            yield from (half.manifest, half.config[0])
    for body in indexes:
        yield wire.Answer(200, wire.Message(), body).digest


def _push(registry: str, repository: str, tag: str, word: str) -> Half:
    """Build an image in memory and push it as a client would."""
    name = f"{repository}-{word}"
    memory = MemoryRegistry()
    described = push(memory, name, tag, PLATFORMS[word], text=os.urandom(_LAYER // 2).hex())
    blobs = {str(digest): data for (_, digest), data in memory._blobs.items()}
    for data in blobs.values():
        wire.push_blob(registry, name, data)
    body = next(each.body for each in memory._manifests.values())
    done = wire.request(
        "PUT", f"http://{registry}/v2/{name}/manifests/{tag}", body, {"Content-Type": described.media_type}
    )
    assert done.status == 201, done.body
    document = parse(body, described.media_type)
    assert isinstance(document, Image)
    config, layer = (_named(blobs, each) for each in (document.config, document.layers[0]))
    return Half(str(described.digest), config, layer)


def _named(blobs: dict[str, bytes], descriptor: Descriptor) -> tuple[str, bytes]:
    return str(descriptor.digest), blobs[descriptor.digest]
