"""What is in a registry before the suite reads it: two images that manifuse merges, and their index made by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from conformance.suite import Settings
from e2e import wire
from images import ARM, VIRTUAL, X86, push
from proxy.memory import MemoryRegistry
from proxy.oci import mediatype

BY_HAND: Final = "by-hand/alpine"
TAG: Final = "1.0"


@dataclass(frozen=True, slots=True)
class Content:
    """What was pushed, and can be read: digests."""

    index: str
    children: tuple[str, ...]
    blobs: tuple[str, ...]

    def settings(self, repository: str) -> Settings:
        """Return what makes the suite read all of this in *repository*, and write nothing."""
        return {
            "REPO1": repository,
            "API_PUSH": "false",
            "API_TAGS_DELETE": "false",
            "API_MANIFESTS_DELETE": "false",
            "API_BLOBS_DELETE": "false",
            "RO_DATA_TAGS": TAG,
            "RO_DATA_MANIFESTS": " ".join((self.index, *self.children)),
            "RO_DATA_BLOBS": " ".join(self.blobs),
            "RO_DATA_REFERRERS": " ".join((self.index, *self.children)),
        }


def push_sources(registry: str) -> MemoryRegistry:
    """Push an image of each of two architectures, under their own names and where an index by hand will be."""
    memory = MemoryRegistry()
    for source, platform in ((X86, "linux/amd64"), (ARM, "linux/arm64")):
        described = push(memory, str(source), TAG, platform, media_type=mediatype.OCI_MANIFEST)
        manifest = memory._manifests[source, described.digest]
        for repository, reference in ((str(source), TAG), (BY_HAND, described.digest)):
            for (owner, _), data in memory._blobs.items():
                if owner == source:
                    wire.push_blob(registry, repository, data)
            wire.push_manifest(registry, repository, reference, manifest.body, described.media_type)
    return memory


def push_index(registry: str, proxy: str, memory: MemoryRegistry) -> Content:
    """Push what manifuse merges of the sources as its author would, so that the registry alone has it, too."""
    served = wire.manifest(proxy, str(VIRTUAL), TAG)
    wire.push_manifest(registry, BY_HAND, TAG, served.body, served.headers["Content-Type"])
    return Content(served.digest, tuple(served.entries), tuple(str(digest) for _, digest in memory._blobs))
