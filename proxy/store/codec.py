"""Metadata as JSON and back. What doesn't read back as it should counts as not kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from proxy.merge.entry import Entry, Part
from proxy.merge.rule import Learned
from proxy.oci.content import Descriptor
from proxy.oci.errors import Invalid
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest, Repository, Tag
from proxy.store.base import Location

Record = Entry | Location | Learned
T = TypeVar("T", bound=Record)
Json = Mapping[str, Any]


def encode(record: Record) -> bytes:
    """Write a record as JSON."""
    return orjson.dumps(record)


def decode(read: Callable[[Json], T], data: bytes) -> T | None:
    """Read a record with one of the functions below, or return None where *data* isn't one."""
    try:
        return read(orjson.loads(data))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError, Invalid):
        return None


def entry(document: Json) -> Entry:
    """Read an entry."""
    default = document["default_child"]
    return Entry(
        descriptor=_descriptor(document["descriptor"]),
        merged=bool(document["merged"]),
        default_child=None if default is None else _descriptor(default),
        parts=tuple(_part(part) for part in document["parts"]),
        warnings=tuple(str(warning) for warning in document["warnings"]),
        fingerprint=str(document["fingerprint"]),
        checked_at=float(document["checked_at"]),
        changed_at=float(document["changed_at"]),
        complete=bool(document["complete"]),
        coherent=bool(document["coherent"]),
        held=str(document["held"]),
        held_since=float(document["held_since"]),
    )


def location(document: Json) -> Location:
    """Read a location."""
    repository = Repository.parse(document["repository"])
    return Location(str(document["upstream"]), repository, str(document["media_type"]))


def learned(document: Json) -> Learned:
    """Read what was learned."""
    tokens = tuple(str(token) for token in document["tokens"])
    return Learned(str(document["convention"]), tokens, float(document["learned_at"]))


def _part(document: Json) -> Part:
    return Part(
        upstream=str(document["upstream"]),
        repository=Repository.parse(document["repository"]),
        tag=Tag.parse(document["tag"]),
        digest=Digest.parse(document["digest"]),
        children=tuple(_descriptor(child) for child in document["children"]),
    )


def _descriptor(document: Json) -> Descriptor:
    platform = document["platform"]
    return Descriptor(
        media_type=str(document["media_type"]),
        digest=Digest.parse(document["digest"]),
        size=int(document["size"]),
        platform=None if platform is None else Platform(**{**platform, "os_features": tuple(platform["os_features"])}),
        annotations=dict(document["annotations"]),
        artifact_type=str(document["artifact_type"]),
    )
