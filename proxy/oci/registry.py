"""The interface in the middle: a registry is anything that answers five reads."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from proxy.oci.byterange import Part
from proxy.oci.content import Blob, Descriptor, Manifest, Redirect, RepositoryPage, Resolved, TagPage
from proxy.oci.mediatype import Accept
from proxy.oci.reference import Digest, Reference, Repository
from proxy.oci.write import Target, Write, Written


class Registry(Protocol):
    """Five reads. An upstream, the virtual registry and the memory registry all answer them.

    Any of them may raise `NoAnswer` (nothing was learned) or `Refused` (not with these credentials).
    """

    async def resolve(self, repository: Repository, reference: Reference, accept: Accept) -> Resolved:
        """Return what `manifest` would, without the bytes. Raises `ManifestUnknown` or `NameUnknown`."""
        ...

    async def manifest(self, repository: Repository, reference: Reference, accept: Accept) -> Manifest:
        """Return a manifest or index, verified against *reference* where that is a digest.

        Only a virtual registry looks at *accept*: a client that takes no index gets one child by tag.
        Raises `ManifestUnknown` or `NameUnknown`.
        """
        ...

    def blob(self, repository: Repository, digest: Digest, part: Part) -> AbstractAsyncContextManager[Blob | Redirect]:
        """Open a blob, or *part* of it, or say where it is. Raises `BlobUnknown` or `RangeInvalid` on entering."""
        ...

    async def tags(self, repository: Repository, limit: int | None, last: str) -> TagPage:
        """Return at most *limit* tags that sort behind *last*. Raises `NameUnknown`."""
        ...

    async def referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to *digest*, of every artifact type; empty where nothing does."""
        ...


class Bringing(Registry, Protocol):
    """A registry that brings the bytes of its blobs itself: what is merged and kept has to be seen."""

    def blob(self, repository: Repository, digest: Digest, part: Part) -> AbstractAsyncContextManager[Blob]:
        """Open a blob, or *part* of it. Raises `BlobUnknown` or `RangeInvalid` on entering."""
        ...


class Catalogue(Protocol):
    """What there is to read. Beside the five reads, as many registries don't tell, and no client needs it to pull."""

    async def catalog(self, limit: int | None, last: str) -> RepositoryPage:
        """Return at most *limit* repositories that sort behind *last*.

        Raises `NoCatalog`, `Refused` or `NoAnswer`.
        """
        ...


class Writable(Protocol):
    """A registry that can be pushed to."""

    def check_write(self, at: Target) -> None:
        """Raise `Unsupported` where nothing can be written, before a body is taken for it."""
        ...

    async def write(self, write: Write) -> Written:
        """Do one step of a push, or a deletion.

        Raises:
            Rejected: The registry doesn't take it.
            Unsupported: It takes none of the kind.
            UploadUnknown: The upload's session isn't one of its own.
        """
        ...


class Served(Registry, Catalogue, Writable, Protocol):
    """What can be served: read, listed as far as it tells, and written to as far as it allows."""
