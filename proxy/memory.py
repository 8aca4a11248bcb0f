"""A registry in a dictionary: the demo's and the tests' upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

from proxy.oci.byterange import Nothing, Part, select
from proxy.oci.content import Blob, Descriptor, Manifest, Resolved, TagPage, empty_index
from proxy.oci.errors import BlobUnknown, ManifestUnknown, NameUnknown
from proxy.oci.mediatype import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST, Accept
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest, Reference, Repository, Tag

_LAYERS = {
    DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    OCI_MANIFEST: "application/vnd.oci.image.layer.v1.tar+gzip",
}
_CONFIGS = {DOCKER_MANIFEST: DOCKER_CONFIG, OCI_MANIFEST: OCI_CONFIG}


class MemoryRegistry:
    """A registry that holds what it was given."""

    def __init__(self) -> None:
        self._manifests: dict[tuple[Repository, Reference], Manifest] = {}
        self._blobs: dict[tuple[Repository, Digest], bytes] = {}

    def add_manifest(self, repository: Repository, manifest: Manifest, tag: Tag | None = None) -> Digest:
        """Take a manifest, as *tag* where one is given."""
        self._manifests[repository, manifest.descriptor.digest] = manifest
        if tag is not None:
            self._manifests[repository, tag] = manifest
        return manifest.descriptor.digest

    def add_blob(self, repository: Repository, data: bytes) -> Digest:
        """Take a blob."""
        digest = Digest.of(data)
        self._blobs[repository, digest] = data
        return digest

    def remove(self, repository: Repository, reference: Reference) -> None:
        """Forget a manifest."""
        del self._manifests[repository, reference]

    async def resolve(self, repository: Repository, reference: Reference, accept: Accept) -> Resolved:
        """Return a manifest's descriptor."""
        return Resolved((await self.manifest(repository, reference, accept)).descriptor)

    async def manifest(self, repository: Repository, reference: Reference, accept: Accept) -> Manifest:
        """Return a manifest, whatever is accepted."""
        found = self._manifests.get((repository, reference))
        if found is None:
            raise ManifestUnknown(f"no manifest {reference} in {repository}")
        return found

    @asynccontextmanager
    async def blob(self, repository: Repository, digest: Digest, part: Part) -> AsyncIterator[Blob]:
        """Open a blob."""
        data = self._blobs.get((repository, digest))
        if data is None:
            raise BlobUnknown(f"no blob {digest} in {repository}")
        wanted = select(part, len(data))
        piece = data if wanted is None else data[wanted.first : wanted.last + 1]
        chunks = _pieces(b"" if isinstance(part, Nothing) else piece)
        yield Blob(digest=digest, size=len(data), part=wanted, chunks=chunks)

    async def tags(self, repository: Repository, limit: int | None, last: str) -> TagPage:
        """Return a page of tags."""
        references = [reference for name, reference in self._manifests if name == repository]
        if not references:
            raise NameUnknown(f"no repository {repository}")
        behind = sorted(tag for tag in references if isinstance(tag, Tag) and tag > last)
        return TagPage(tuple(behind[:limit]), more=limit is not None and len(behind) > limit)

    async def referrers(self, repository: Repository, digest: Digest, artifact_type: str) -> Manifest:
        """Return the empty index: nothing here refers to anything."""
        return empty_index()


def add_image(
    registry: MemoryRegistry,
    repository: Repository,
    tag: Tag,
    platform: Platform,
    *,
    layer: bytes,
    diff_id: Digest,
    entrypoint: str = "",
    media_type: str = DOCKER_MANIFEST,
) -> Descriptor:
    """Put a single-layer image together and into *registry*, as a build and a push would.

    Args:
        layer: A gzipped tar.
        diff_id: Digest of the tar inside.
        media_type: Of the manifest, Docker's or OCI's.
    """
    fields = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    config = orjson.dumps(
        {
            **{name: value for name, value in fields.items() if value},
            "config": {"Entrypoint": [entrypoint]} if entrypoint else {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    )
    blobs = [
        {"mediaType": kind, "size": len(data), "digest": registry.add_blob(repository, data)}
        for kind, data in ((_CONFIGS[media_type], config), (_LAYERS[media_type], layer))
    ]
    body = orjson.dumps({"schemaVersion": 2, "mediaType": media_type, "config": blobs[0], "layers": blobs[1:]})
    manifest = Manifest.of(media_type, body)
    registry.add_manifest(repository, manifest, tag)
    return manifest.descriptor


async def _pieces(data: bytes, size: int = 256 * 1024) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
