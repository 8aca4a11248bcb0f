"""Writes of the distribution API: what a push or a deletion sends, and what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qs

from proxy.oci.endpoint import BlobAt, ManifestAt, UploadAt
from proxy.oci.errors import DigestInvalid
from proxy.oci.reference import Digest

Method = Literal["GET", "POST", "PATCH", "PUT", "DELETE"]
Body = AsyncIterator[bytes] | bytes
Target = UploadAt | ManifestAt | BlobAt

# What a client may say of its body, and what a registry says of a write: everything else stays on its own side.
SENT: Final = ("Content-Type", "Content-Range")
ANSWERED: Final = (
    "Docker-Content-Digest",
    "Docker-Upload-UUID",
    "OCI-Chunk-Min-Length",
    "OCI-Subject",
    "OCI-Tag",
    "Range",
)

# Which methods write what; GET asks how far an upload has come (end-13).
OPENING: Final[tuple[Method, ...]] = ("POST",)
GOING_ON: Final[tuple[Method, ...]] = ("GET", "PATCH", "PUT", "DELETE")
MANIFEST: Final[tuple[Method, ...]] = ("PUT", "DELETE")
BLOB: Final[tuple[Method, ...]] = ("DELETE",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One request of a push or a deletion: end-4 to end-7, end-9 to end-11, end-13 and end-14.

    Attributes:
        at: What is written to. An upload that goes on has its session.
        query: As it came, percent-encoded, without `ns`: what a registry put into an upload's `Location` comes
            back to it to the byte.
        body: Bytes that can be sent again, or an iterator whose bytes pass once.
        length: Bytes of the body; None where nobody said.
        headers: Those of `SENT`.
    """

    method: Method
    at: Target
    query: str = ""
    body: Body | None = None
    length: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> Digest | None:
        """The digest that the query names for a blob, or None where there is none that could exist."""
        return digest_of(self.query, "digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What came of a write.

    Attributes:
        status: 201 for what is there now, 202 for what goes on or is deleted, 204 for how far it has come.
        headers: Those of `ANSWERED`.
        session: Names an upload that goes on; empty for none.
        query: What belongs into its `Location`, percent-encoded.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    session: str = ""
    query: str = ""


def parameter(query: str, name: str) -> str:
    """Return the first value of *name* in a percent-encoded *query*; empty without one."""
    return parse_qs(query).get(name, [""])[0]


def digest_of(query: str, name: str) -> Digest | None:
    """Return the digest that *query* calls *name*, or None."""
    try:
        return Digest.parse(parameter(query, name))
    except DigestInvalid:
        return None


def joined(*queries: str) -> str:
    """Put percent-encoded queries behind each other."""
    return "&".join(query for query in queries if query)
