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
    return orjson.dumps(record, default=_text)


def decode(read: Callable[[Json], T], data: bytes) -> T | None:
    """Read a record with one of the functions below, or return None where *data* isn't one."""
    try:
        return read(orjson.loads(data))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError, Invalid, RecursionError):
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
    body = str(document.get("body", "")).encode()
    personal = bool(document.get("personal"))
    return Location(str(document["upstream"]), repository, str(document["media_type"]), body, personal)


def learned(document: Json) -> Learned:
    """Read what was learned."""
    tokens = tuple(str(token) for token in document["tokens"])
    return Learned(str(document["convention"]), tokens, float(document["learned_at"]))


def _text(value: object) -> str:
    """Write the bytes of an index, which are JSON and so UTF-8."""
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(type(value).__name__)


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
        size=_size(document["size"]),
        platform=None if platform is None else _platform(platform),
        annotations={name: _word(value) for name, value in document["annotations"].items()},
        artifact_type=str(document["artifact_type"]),
    )


def _size(value: object) -> int:
    """Read a number of bytes. Raises `ValueError` for what no file can have."""
    size = int(str(value))
    if not 0 <= size < 1 << 63:
        raise ValueError("not a size")
    return size


def _platform(document: Json) -> Platform:
    words = {name: _word(value) for name, value in document.items() if name != "os_features"}
    return Platform(**words, os_features=tuple(map(_word, document["os_features"])))


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a string was expected")
    return value
