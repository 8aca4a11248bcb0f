"""What publishing a merged name takes: which blobs and manifests, and how each comes to the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from proxy.oci.content import Manifest
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest, Repository, Tag


class Way(StrEnum):
    """How something comes to be where it is wanted."""

    THERE = "there"  # it is already
    MOUNT = "mount"  # the registry takes it over from another of its repositories
    COPY = "copy"


class Kind(StrEnum):
    """What is published."""

    BLOB = "blob"
    MANIFEST = "manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One blob or manifest, and how it comes to the target; *size* in bytes, *source* an upstream's repository."""

    kind: Kind
    digest: Digest
    size: int
    source: tuple[str, Repository]
    way: Way
    platform: Platform | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What publishing means: in this order, the blobs of a manifest before it, the index last.

    Attributes:
        target: Where it goes, an upstream's repository, and *tag* what it is called there.
        manifest: What the tag will stand for, byte for byte what clients get now.
        steps: All blobs and manifests that it names, each once.
        bodies: The manifests among them.
        warnings: What is odd about the index: what is missing, where platforms disagree.
    """

    target: tuple[str, Repository]
    tag: Tag
    manifest: Manifest
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    bodies: Mapping[Digest, Manifest] = field(default_factory=dict, repr=False)
