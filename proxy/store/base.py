"""The Protocols of remembering, in containerd's words.

Metadata is small, changes and could be shared between replicas; content is larger, immutable and local; blobs are
larger still, and never wholly in memory. What is kept here is a copy: a store may forget anything at any time, and an
answer of None only costs a request.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from proxy.merge.entry import Entry
from proxy.merge.rule import Learned
from proxy.oci.byterange import Part
from proxy.oci.content import Blob
from proxy.oci.reference import Digest, Repository, Tag
from proxy.oci.registry import Bringing


@dataclass(frozen=True, slots=True)
class Virtual:
    """A virtual repository: the upstream whose namespace the client spoke of, and the repository there."""

    upstream: str
    repository: Repository

    def __str__(self) -> str:
        """Name it as people do."""
        return f"{self.upstream}/{self.repository}"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a digest of a virtual repository is found.

    Attributes:
        upstream: Empty for an index that is our own.
        body: Such an index itself, where its content may not be on disk yet: one file is durable sooner than two.
        personal: Whether a client's own credentials found it: it tells nothing to whoever is asked for no proof.
    """

    upstream: str
    repository: Repository
    media_type: str
    body: bytes = field(default=b"", repr=False)
    personal: bool = False


class Metadata(Protocol):
    """Tag entries, digest locations, learned conventions. Nothing but `location` raises for what it can't read."""

    async def entry(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the last good generation of a tag."""
        ...

    async def reread(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the last good generation of a tag, also one that another process has kept since."""
        ...

    async def settle(self, virtual: Virtual, tag: Tag) -> None:
        """Wait until what was kept of a tag is there for other processes to read."""
        ...

    async def keep_entry(self, virtual: Virtual, tag: Tag, entry: Entry) -> None:
        """Keep *entry*: from now on it is what the tag stands for, and after a restart a moment later."""
        ...

    async def drop_entry(self, virtual: Virtual, tag: Tag) -> None:
        """Forget what a tag stood for; what its digests are and where, stays."""
        ...

    async def location(self, virtual: Virtual, digest: Digest) -> Location | None:
        """Return where a manifest's digest was last found for this virtual repository.

        Raises:
            Unreadable: It may be known. None would be the end of an index of our own, which nobody else has.
        """
        ...

    async def keep_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is. It lasts when this returns."""
        ...

    async def remember_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is, which could be found again: at once where that is quick, lasting a moment later."""
        ...

    async def drop_location(self, virtual: Virtual, digest: Digest) -> None:
        """Forget where *digest* is: it was deleted there."""
        ...

    async def learned(self, virtual: Virtual) -> Learned | None:
        """Return which naming convention came true here."""
        ...

    async def keep_learned(self, virtual: Virtual, learned: Learned) -> None:
        """Keep which naming convention came true."""
        ...

    async def touch(self, virtual: Virtual, name: Tag | Digest | None = None) -> bool:
        """Note a use of a tag's entry, a digest's location or what was learned; say whether it is still kept."""
        ...


class Turns(Protocol):
    """Lets one process at a time ask for something, where several share a cache folder."""

    def turn(self, key: str) -> AbstractAsyncContextManager[bool]:
        """Wait for the turn to ask for *key*. The block gets True where somebody else had it before."""
        ...


class Content(Protocol):
    """Manifests and configs by digest. What comes out hashes to its name."""

    async def get(self, digest: Digest) -> bytes | None:
        """Return the bytes of *digest*."""
        ...

    async def put(self, digest: Digest, data: bytes) -> None:
        """Keep *data*, which the caller has verified against *digest*. It lasts when this returns."""
        ...

    async def remember(self, digest: Digest, data: bytes) -> None:
        """Keep *data* that could be had again: at once where that is quick, lasting a moment later."""
        ...

    async def touch(self, digest: Digest) -> bool:
        """Note a use of *digest*, whose bytes nobody needs now; say whether it is still kept."""
        ...


@dataclass(frozen=True, slots=True)
class Holder:
    """Where a blob is to be had when it isn't kept."""

    registry: Bringing
    repository: Repository
    digest: Digest

    def __str__(self) -> str:
        """Name it as people do."""
        return f"{self.repository}@{self.digest}"

    def open(self, part: Part) -> AbstractAsyncContextManager[Blob]:
        """Open the blob there, or *part* of it."""
        return self.registry.blob(self.repository, self.digest, part)


class Blobs(Protocol):
    """Blobs by digest. What comes out hashes to its name."""

    def open(self, holder: Holder, part: Part) -> AbstractAsyncContextManager[Blob]:
        """Open a blob, or *part* of it: what is kept, else what *holder* has, which is kept on its way.

        Whether the client may have it is the caller's business. Raises what the holder raises.
        """
        ...
