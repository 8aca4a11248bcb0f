"""Images to pull: of two architectures, with layers that nothing can compress, and the list of both, ready-made."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import orjson

from e2e import wire
from proxy.memory import MemoryRegistry
from proxy.merge.index import render
from proxy.oci.content import Manifest
from proxy.oci.mediatype import DOCKER_CONFIG, DOCKER_MANIFEST
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest, Repository, Tag

VIRTUAL = "load/app"  # what manifuse merges; its sources are beside it
READY = "ready/app"  # the same list, ready-made: what a proxy that can't merge is asked for
SUFFIXES = {"-x86": Platform("linux", "amd64"), "-arm": Platform("linux", "arm64", "v8")}
RULE = """
[[rule]]
match = "load/*"
sources = [
  { image = "{repository}-x86:{tag}", platform = "linux/amd64" },
  { image = "{repository}-arm:{tag}", platform = "linux/arm64" },
]
"""
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its manifest and its blobs, the config first."""

    manifest: Manifest
    blobs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """One tag of a repository: an image for each suffix, and their list."""

    tag: str
    images: tuple[Image, ...]
    ready: Manifest


def image(platform: Platform, layers: Sequence[bytes]) -> Image:
    """Put an image together as a build would."""
    fields = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    diffs = [Digest.of(layer) for layer in layers]
    document = {name: value for name, value in fields.items() if value}
    config = orjson.dumps({**document, "config": {}, "rootfs": {"type": "layers", "diff_ids": diffs}})
    blobs = (config, *layers)
    types = (DOCKER_CONFIG, *(_LAYER for _ in layers))
    listed = [
        {"mediaType": kind, "size": len(data), "digest": Digest.of(data)}
        for kind, data in zip(types, blobs, strict=True)
    ]
    body = orjson.dumps({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": listed[0], "layers": listed[1:]})
    made = Manifest.of(DOCKER_MANIFEST, body)
    return Image(replace(made, descriptor=replace(made.descriptor, platform=platform)), blobs)


def release(tag: str, layers: int, size: int) -> Release:
    """Make a tag whose layers differ from those of every other tag."""
    bytes_of = random.Random(tag)  # noqa: S311 - the same in every run; nothing is secret
    images = tuple(image(platform, [bytes_of.randbytes(size) for _ in range(layers)]) for platform in SUFFIXES.values())
    return Release(tag, images, render([each.manifest.descriptor for each in images]))


def placed(made: Release) -> Iterator[tuple[str, Image]]:
    """Yield every repository that has images of a release, with the image."""
    for suffix, each in zip(SUFFIXES, made.images, strict=True):
        yield VIRTUAL + suffix, each
        yield READY, each


def fill(registry: MemoryRegistry, made: Release) -> None:
    """Put a release into a registry in memory: the images beside the virtual name, and all of it ready-made."""
    tag = Tag(made.tag)
    for repository, each in placed(made):
        for blob in each.blobs:
            registry.add_blob(Repository(repository), blob)
        registry.add_manifest(Repository(repository), each.manifest, None if repository == READY else tag)
    registry.add_manifest(Repository(READY), made.ready, tag)


def push(address: str, made: Release) -> None:
    """Push the ready-made list to a real registry, under the virtual name: the same request is for all contestants."""
    for each in made.images:
        for blob in each.blobs:
            wire.push_blob(address, VIRTUAL, blob)
        _push(address, each.manifest.descriptor.digest, each.manifest)
    _push(address, made.tag, made.ready)


def _push(address: str, reference: str, manifest: Manifest) -> None:
    wire.push_manifest(address, VIRTUAL, reference, manifest.body, manifest.descriptor.media_type)
