"""What travels: descriptors, manifests, blobs, pages. Immutable values; sizes in bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from proxy.oci.byterange import ContentRange
from proxy.oci.errors import DigestInvalid
from proxy.oci.lease import Lease
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest

# The interoperable limit: distribution, zot, containers/image and oras stop at 4 MiB, containerd just above.
MAX_MANIFEST: Final = 4 * 1024 * 1024
MAX_CONFIG: Final = 4 * 1024 * 1024

SUBJECT_DIGEST: Final = "vnd.docker.reference.digest"  # buildx: which image an attestation entry speaks of
REFERENCE_TYPE: Final = "vnd.docker.reference.type"
ATTESTATION: Final = "attestation-manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A typed, sized content address, as in an index or a manifest.

    Of what a descriptor may carry, `urls` and `data` are left behind on purpose: clients would fetch from the
    one past the proxy, and take the other instead of asking.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @property
    def attests(self) -> Digest | None:
        """The digest of the image that this buildx attestation entry speaks of, or None for anything else."""
        subject = self.annotations.get(SUBJECT_DIGEST)
        if subject is None or self.annotations.get(REFERENCE_TYPE) != ATTESTATION:
            return None
        try:
            return Digest.parse(subject)
        except DigestInvalid:
            return None  # an attestation of nothing that could exist


class CacheResult(StrEnum):
    """What the cache had to do with an answer: the words of `X-Manifuse-Cache`."""

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"
    REVALIDATED = "revalidated"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How an answer came about, for the headers that tell a client.

    Attributes:
        cache: None where no cache was involved.
        age: Seconds since the upstreams last confirmed the answer.
        warnings: Sentences for `Warning: 299`, stale or partial answers.
        lease: How long the same may be answered again; None for never.
    """

    cache: CacheResult | None = None
    age: float = 0.0
    warnings: tuple[str, ...] = ()
    lease: Lease | None = field(default=None, compare=False, repr=False)


DIRECT: Final = Delivery()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference stands for, without its bytes: the answer to HEAD."""

    descriptor: Descriptor
    delivery: Delivery = DIRECT


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index: its descriptor and its exact bytes."""

    descriptor: Descriptor
    body: bytes = field(repr=False)
    delivery: Delivery = DIRECT

    @classmethod
    def of(cls, media_type: str, body: bytes) -> Manifest:
        """Wrap *body*, measured and hashed here with sha256."""
        return cls(Descriptor(media_type=media_type, digest=Digest.of(body), size=len(body)), body)


@dataclass(frozen=True, slots=True)
class FileSlice:
    """*length* bytes of an open file from *offset* on. Whoever opened it closes it; nobody else moves its position."""

    descriptor: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """An open blob, or a part of one.

    Attributes:
        size: Bytes of the whole blob, or None where the upstream doesn't say.
        part: Which bytes `chunks` brings, or None for all.
        chunks: The bytes, once. It raises `NoAnswer` when they end early or don't hash to the digest, so
            that whoever passes them on can break off instead of ending cleanly. Empty for a HEAD.
        file: Where the same bytes are for the kernel to send, instead of `chunks`; None where they are in no file.
        streamed: Whether a connection to a registry is taken until the last of `chunks`.
    """

    digest: Digest
    size: int | None
    part: ContentRange | None
    chunks: AsyncIterator[bytes]
    file: FileSlice | None = None
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a client may fetch a blob itself: an absolute URL, byte for byte as it was given."""

    url: str


@dataclass(frozen=True, slots=True)
class TagPage:
    """Some of a repository's tags, sorted; `more` says whether others follow."""

    tags: tuple[str, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class RepositoryPage:
    """Some of a registry's repositories, sorted; `more` says whether others follow.

    Attributes:
        warnings: Sentences about what the list lacks.
    """

    repositories: tuple[str, ...]
    more: bool = False
    warnings: tuple[str, ...] = ()
