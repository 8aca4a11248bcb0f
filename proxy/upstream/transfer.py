"""The bytes of a blob on their way: resumed when they break off, and never ended cleanly unless they are right."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final

from proxy.oci.byterange import ByteRange, ContentRange
from proxy.oci.errors import BadAnswer, Denial, NoAnswer, Refused, Unreachable
from proxy.oci.reference import Digest

MAX_RESUMPTIONS: Final = 3  # in a row without a single byte; every byte that comes starts the count anew

Chunks = AsyncIterator[bytes]
Reopen = Callable[[ByteRange], AbstractAsyncContextManager[Chunks]]
"""Opens the rest of a blob. Raises `RegistryError` where the upstream doesn't give exactly these bytes."""


async def resumed(
    chunks: Chunks, start: int, length: int | None, reopen: Reopen, name: str
) -> AsyncGenerator[bytes, None]:
    """Pass on *length* bytes that begin at *start* of a blob, asking for the rest when they break off.

    A client of ours doesn't notice. With *length* None the end is unknown, and so is what is missing: then the
    break is raised, as is one that can't be mended. The caller owns *chunks*; what is opened here is closed here.
    """
    position, failures = start, 0
    end = None if length is None else start + length
    try:
        async for chunk in chunks:
            position += len(chunk)
            yield chunk
        _whole(position, end, name)
    except NoAnswer as error:
        broken = error
    else:
        return
    while end is not None and position < end and failures < MAX_RESUMPTIONS:
        try:
            async with reopen(ByteRange(position, end - 1)) as rest:
                async for chunk in rest:
                    position, failures = position + len(chunk), 0
                    yield chunk
            _whole(position, end, name)
        except (BadAnswer, Denial, Refused):
            break  # it can't be resumed there; why it broke is what counts
        except NoAnswer as error:
            failures, broken = failures + 1, error
        else:
            return
    raise broken


async def hashed(chunks: Chunks, digest: Digest, name: str) -> AsyncGenerator[bytes, None]:
    """Pass chunks on, one behind: the last one leaves only when the whole hashes to *digest* (law 9)."""
    hasher = digest.hasher()
    pending = b""
    async for chunk in chunks:
        hasher.update(chunk)
        if pending:
            yield pending
        pending = chunk
    if hasher.hexdigest() != digest.hex:
        raise BadAnswer(f"{name} sent a blob that doesn't hash to {digest}")
    yield pending


async def measured(chunks: Chunks, length: int, name: str) -> AsyncGenerator[bytes, None]:
    """Pass on exactly *length* bytes. Raises `BadAnswer` for more and `Unreachable` for less."""
    left = length
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise BadAnswer(f"{name} sent more than the {length} bytes it announced")
        yield chunk
    if left:
        raise Unreachable(f"{name} broke off {left} bytes before the end")


async def cut(chunks: Chunks, wanted: ContentRange) -> AsyncGenerator[bytes, None]:
    """Pass on only the bytes of *wanted*; what is behind them is still read, for its hash."""
    position = 0
    async for chunk in chunks:
        piece = chunk[max(0, wanted.first - position) : max(0, wanted.last + 1 - position)]
        position += len(chunk)
        if piece:
            yield piece


async def primed(chunks: AsyncGenerator[bytes, None], first: bytes) -> AsyncGenerator[bytes, None]:
    """Put the chunk that was awaited already in front of the others."""
    async with aclosing(chunks):
        yield first
        async for chunk in chunks:
            yield chunk


async def nothing() -> AsyncGenerator[bytes, None]:
    """Pass on no bytes: the answer to HEAD."""
    none: tuple[bytes, ...] = ()
    for chunk in none:
        yield chunk


def _whole(position: int, end: int | None, name: str) -> None:
    if end is not None and position < end:
        raise Unreachable(f"{name} broke off {end - position} bytes before the end")
