"""A registry in a dictionary: the demo's and the tests' upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import orjson

from proxy.oci.byterange import Nothing, Part, select
from proxy.oci.content import Blob, Descriptor, Manifest, RepositoryPage, Resolved, TagPage
from proxy.oci.document import Index, parse
from proxy.oci.endpoint import BlobAt, ManifestAt, UploadAt
from proxy.oci.errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    Rejected,
    UploadUnknown,
)
from proxy.oci.mediatype import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST, Accept
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest, Reference, Repository, Tag
from proxy.oci.referrers import described, union
from proxy.oci.write import Target, Write, Written, digest_of, parameter

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
        self._uploads: dict[str, bytearray] = {}
        self._sessions = map(str, count(1))

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

    async def referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what names *digest* as its subject."""
        mine = [manifest for (name, _), manifest in self._manifests.items() if name == repository]
        return union(entry for subject, entry in filter(None, map(described, mine)) if subject == digest)

    async def catalog(self, limit: int | None, last: str) -> RepositoryPage:
        """Return a page of repositories."""
        behind = sorted({name for name, _ in self._manifests if name > last})
        return RepositoryPage(tuple(behind[:limit]), more=limit is not None and len(behind) > limit)

    def check_write(self, at: Target) -> None:
        """Everything can be written here."""

    async def write(self, write: Write) -> Written:
        """Take a step of a push, or a deletion."""
        body = b"".join([chunk async for chunk in _body(write)])
        match write.at:
            case UploadAt(repository=repository, session=""):
                return self._begin(repository, write, body)
            case UploadAt(repository=repository, session=session):
                return self._go_on(repository, session, write, body)
            case ManifestAt() as at if write.method == "PUT":
                return self._put_manifest(at, write, body)
            case ManifestAt(repository=repository, reference=reference):
                self._delete_manifest(repository, reference)
            case BlobAt(repository=repository, digest=digest):
                if self._blobs.pop((repository, digest), None) is None:
                    raise BlobUnknown(f"no blob {digest} in {repository}")
        return Written(status=202)

    def _begin(self, repository: Repository, write: Write, body: bytes) -> Written:
        mounted, source = digest_of(write.query, "mount"), parameter(write.query, "from")
        held = self._blobs.get((Repository(source), mounted)) if mounted else None
        if held is not None and mounted is not None:
            self._blobs[repository, mounted] = held
            return Written(status=201, headers={"Docker-Content-Digest": mounted})
        if write.digest is not None:
            return self._keep(repository, write.digest, body)
        session = next(self._sessions)
        self._uploads[session] = bytearray()
        return Written(status=202, session=session, query="_state=new")

    def _go_on(self, repository: Repository, session: str, write: Write, body: bytes) -> Written:
        if session not in self._uploads:
            raise UploadUnknown(f"no upload {session} to {repository}")
        upload = self._uploads[session]
        if write.method == "DELETE":
            del self._uploads[session]
            return Written(status=204)
        first = write.headers.get("Content-Range", "").partition("-")[0]
        if first and first != str(len(upload)):
            raise RangeInvalid(f"the upload has {len(upload)} bytes, the chunk starts at {first}")
        upload += body
        if write.method == "PUT":
            if write.digest is None or not write.digest.matches(bytes(upload)):
                raise DigestInvalid("the upload doesn't hash to the digest")
            del self._uploads[session]
            return self._keep(repository, write.digest, bytes(upload))
        status = 204 if write.method == "GET" else 202
        headers = {"Range": f"0-{max(0, len(upload) - 1)}"}
        return Written(status=status, headers=headers, session=session, query=f"_state={len(upload)}")

    def _keep(self, repository: Repository, digest: Digest, data: bytes) -> Written:
        self._blobs[repository, digest] = data
        return Written(status=201, headers={"Docker-Content-Digest": digest})

    def _put_manifest(self, at: ManifestAt, write: Write, body: bytes) -> Written:
        document = parse(body, write.headers.get("Content-Type", ""))
        manifest = Manifest.of(document.media_type, body)
        named = [] if isinstance(document, Index) else [blob.digest for blob in document.blobs]
        children = [child.digest for child in document.manifests] if isinstance(document, Index) else []
        if any((at.repository, digest) not in self._blobs for digest in named) or any(
            (at.repository, digest) not in self._manifests for digest in children
        ):
            raise Rejected("the manifest names what isn't here", status=400, code="MANIFEST_BLOB_UNKNOWN")
        digest = self.add_manifest(at.repository, manifest, at.reference if isinstance(at.reference, Tag) else None)
        refers = described(manifest)
        headers = {"Docker-Content-Digest": digest} | ({"OCI-Subject": refers[0]} if refers else {})
        return Written(status=201, headers=headers)

    def _delete_manifest(self, repository: Repository, reference: Reference) -> None:
        """Delete a tag, or a manifest with all its tags."""
        found = self._manifests.get((repository, reference))
        if found is None:
            raise ManifestUnknown(f"no manifest {reference} in {repository}")
        for key in [key for key, manifest in self._manifests.items() if key[0] == repository and manifest == found]:
            if isinstance(reference, Digest) or key[1] == reference:
                del self._manifests[key]


async def _body(write: Write) -> AsyncIterator[bytes]:
    if isinstance(write.body, bytes):
        yield write.body
    elif write.body is not None:
        async for chunk in write.body:
            yield chunk


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
