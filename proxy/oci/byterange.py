"""`Range` and `Content-Range` of RFC 9110 §14, for one range of bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from proxy.oci.errors import BadAnswer, RangeInvalid

_RANGE: Final = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE | re.ASCII)
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes *first* to *last*, both included; *last* None means to the end."""

    first: int
    last: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it has no byte of any blob: it ends before it begins."""
        return self.last is not None and self.last < self.first

    def __str__(self) -> str:
        """Write the `Range` header."""
        return f"bytes={self.first}-{'' if self.last is None else self.last}"

    def within(self, size: int) -> ContentRange:
        """Return the bytes this means in a blob of *size*, clamped to its end. Raises `RangeInvalid`."""
        if self.is_empty:
            raise RangeInvalid(f"the range ends at {self.last}, before it starts at {self.first}", size=size)
        if self.first >= size:
            raise RangeInvalid(f"the range starts at {self.first}, the blob has {size} bytes", size=size)
        last = size - 1 if self.last is None else min(self.last, size - 1)
        return ContentRange(self.first, last, size)


@dataclass(frozen=True, slots=True)
class SuffixRange:
    """The last *length* bytes."""

    length: int

    @property
    def is_empty(self) -> bool:
        """Whether it has no byte of any blob: the last none."""
        return self.length == 0

    def __str__(self) -> str:
        """Write the `Range` header."""
        return f"bytes=-{self.length}"

    def within(self, size: int) -> ContentRange:
        """Return the bytes this means in a blob of *size*. Raises `RangeInvalid`."""
        if self.length == 0 or size == 0:
            raise RangeInvalid(f"the last {self.length} bytes of a blob of {size} bytes are none", size=size)
        return ContentRange(max(0, size - self.length), size - 1, size)


@dataclass(frozen=True, slots=True)
class Whole:
    """All bytes."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """No bytes, only what is known of them: HEAD."""


Part = ByteRange | SuffixRange | Whole | Nothing


@dataclass(frozen=True, slots=True)
class ContentRange:
    """The bytes an answer holds: *first* to *last*, both included, of *size* (None: not said)."""

    first: int
    last: int
    size: int | None

    def __str__(self) -> str:
        """Write the `Content-Range` header."""
        return f"bytes {self.first}-{self.last}/{'*' if self.size is None else self.size}"

    @property
    def length(self) -> int:
        """How many bytes these are."""
        return self.last - self.first + 1


def parse_range(header: str | None) -> ByteRange | SuffixRange | Whole:
    """Read a `Range` header.

    What isn't one range of bytes is ignored, as RFC 9110 §14.2 asks: the whole blob is the answer.
    That holds for several ranges too: containers/image takes a full 200 for its partial pulls, never a 416.
    One that ends before it begins may be ignored or rejected; registries reject it, and so does its `within`.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return Whole()
    first, last = match.groups()
    if not first:
        return SuffixRange(int(last)) if last else Whole()
    return ByteRange(int(first), int(last) if last else None)


def select(part: Part, size: int) -> ContentRange | None:
    """Return which bytes *part* means in a blob of *size*, or None where that is the blob as it is.

    No 206 can hold the last bytes of an empty blob: there the whole is the answer. Raises `RangeInvalid`.
    """
    if isinstance(part, Whole | Nothing) or (isinstance(part, SuffixRange) and part.length and not size):
        return None
    return part.within(size)


def parse_content_range(header: str) -> ContentRange:
    """Read a `Content-Range` header of a 206. Raises `BadAnswer`."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise BadAnswer(f"a partial answer came with Content-Range {header[:80]!r}")
    first, last, size = match.groups()
    found = ContentRange(int(first), int(last), None if size == "*" else int(size))
    if found.last < found.first or (found.size is not None and found.last >= found.size):
        raise BadAnswer(f"a partial answer came with Content-Range {header[:80]!r}")
    return found
