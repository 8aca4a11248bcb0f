"""How the blobs of an upstream reach clients: through us, past us, or from our disk. The words of the key `blobs`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from proxy.oci.byterange import Part
from proxy.oci.content import Blob, Redirect
from proxy.oci.reference import Digest, Repository
from proxy.oci.registry import Bringing, Registry
from proxy.store.base import Blobs, Holder

Opening = Callable[[Repository, Digest, Part], AbstractAsyncContextManager[Blob | Redirect]]
"""Opens a blob of one upstream. Raises as `Registry.blob` does."""


class Locating(Protocol):
    """A registry that says where it would send a client."""

    async def locate(self, repository: Repository, digest: Digest, part: Part) -> Redirect:
        """Return where a blob is to be fetched. Raises `BlobUnknown`."""
        ...


def stream(registry: Registry) -> Opening:
    """Pass blobs through."""
    return registry.blob


def redirect(registry: Locating) -> Opening:
    """Send clients to where the upstream would send them."""

    @asynccontextmanager
    async def opening(repository: Repository, digest: Digest, part: Part) -> AsyncIterator[Blob | Redirect]:
        yield await registry.locate(repository, digest, part)

    return opening


def cache(registry: Bringing, blobs: Blobs) -> Opening:
    """Serve blobs from what is kept, and keep them on their way."""

    def opening(repository: Repository, digest: Digest, part: Part) -> AbstractAsyncContextManager[Blob]:
        return blobs.open(Holder(registry, repository, digest), part)

    return opening
