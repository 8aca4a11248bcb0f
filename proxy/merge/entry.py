"""What was last answered for a virtual tag, and what it was made of."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.oci.content import Descriptor
from proxy.oci.reference import Digest, Repository, Tag


@dataclass(frozen=True, slots=True)
class Part:
    """One source of an entry.

    Attributes:
        digest: What the source's tag stood for.
        children: The manifests that came from it into the index.
    """

    upstream: str
    repository: Repository
    tag: Tag
    digest: Digest
    children: tuple[Descriptor, ...]

    @property
    def place(self) -> tuple[str, Repository, Tag]:
        """Where the source is."""
        return (self.upstream, self.repository, self.tag)

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platforms it brings, as people write them."""
        return tuple(str(c.platform) for c in self.children if c.platform and not c.platform.is_unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The last good generation of one virtual tag.

    Attributes:
        descriptor: What the tag stands for: our index, or the upstream's own manifest.
        merged: Whether the bytes are ours.
        default_child: What a client gets that accepts no index; None where there is no such child.
        parts: Its sources, in the rule's order.
        warnings: What a client should know of it: what is missing, what contradicts itself.
        complete: Whether nothing was missing.
        coherent: Whether its sources belonged to one release, as far as the rule asks.
        held: Why it is served though a newer one could be made; empty where it isn't held.
        held_since: Since when, seconds since the epoch.
        fingerprint: Of the rule it was made by.
        checked_at, changed_at: Seconds since the epoch.
    """

    descriptor: Descriptor
    merged: bool
    default_child: Descriptor | None
    parts: tuple[Part, ...]
    warnings: tuple[str, ...]
    fingerprint: str
    checked_at: float
    changed_at: float
    complete: bool = True
    coherent: bool = True
    held: str = ""
    held_since: float = 0.0

    def digests(self) -> dict[tuple[str, Repository, Tag], Digest]:
        """Return what each source's tag stood for."""
        return {part.place: part.digest for part in self.parts}
