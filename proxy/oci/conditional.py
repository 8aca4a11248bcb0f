"""Conditional requests of RFC 9110 §13, for things whose strong `ETag` is their digest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from proxy.oci.byterange import Part, Whole, parse_range
from proxy.oci.reference import Digest

# An entity tag, weak or strong; without quotes, as some clients send a digest, it ends where the list goes on.
_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"|([^\s,"]+)')


def etag(digest: Digest) -> str:
    """Write the strong `ETag` of what *digest* names: its bytes never change."""
    return f'"{digest}"'


def is_known(if_none_match: Iterable[str], digest: Digest) -> bool:
    """Whether a client that sent these `If-None-Match` headers has what *digest* names, so that 304 says it all.

    The comparison is the weak one. A `*` stands for anything that is there, so ask only once that is known.
    """
    header = ",".join(if_none_match)
    if header.strip() == "*":
        return True
    return any((quoted or bare) == digest for quoted, bare in _TAG.findall(header))


def wanted(range_header: str | None, if_range: str | None, digest: Digest) -> Part:
    """Return which part of what *digest* names a GET asks for.

    `If-Range` makes the range count only for its own bytes, by the strong comparison. A date can't be that: it
    names no bytes, and no date was ever given out. Then the whole is the answer.
    """
    if if_range is not None and if_range.strip() != etag(digest):
        return Whole()
    return parse_range(range_header)
