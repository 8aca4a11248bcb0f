"""One transfer of a blob into a file, and those who follow it, each at their own pace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import Counter

from proxy.oci.byterange import ByteRange, ContentRange, Nothing, Part, Whole, select
from proxy.oci.errors import BadAnswer, RangeInvalid
from proxy.store.base import Holder
from proxy.store.shelf import OpenFile

BLOCK: Final = 1024 * 1024  # bytes that are read or written in one go: a disk is waited for in a thread
_MOST: Final = 512  # chunks of one block: the kernel takes 1024 buffers at once


class Spoilt(Exception):
    """A blob can't be kept. That is nobody's failure: whoever wants it streams it.

    Attributes:
        reason: `size`, `room` or `disk`, the words of the metric.
    """

    def __init__(self, reason: str, error: OSError | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


class Fill:
    """A file that is being filled: of its bytes some are written, some have come, some are still to come.

    The first are read from the file, the second are passed on from memory, the third are waited for. Verifying is the
    registry's business: its chunks end with an error where they are wrong, and the last comes only when all are right.
    """

    def __init__(self, holder: Holder, streamed: Counter) -> None:
        """Fill with what *holder* has; count in *streamed*, by reason, who has to go on without."""
        self.holder = holder
        self._streamed = streamed
        self.size: int | None = None
        self.is_whole = False
        self.received = 0
        self._written = 0
        self._unwritten: list[bytes] = []
        self._file: OpenFile | None = None
        self._path = Path()
        self._failure: Exception | None = None
        self._change = asyncio.Event()

    def begin(self, size: int | None, path: Path, file: OpenFile) -> None:
        """The blob is there, and so is a file for it, which belongs to the fill from now on."""
        self.size, self._path, self._file = size, path, file
        self._changed()

    async def add(self, chunk: bytes) -> None:
        """Take what has come. Raises `OSError`, and what made the fill fail meanwhile."""
        if self._failure is not None:
            raise self._failure
        self._unwritten.append(chunk)
        self.received += len(chunk)
        self._changed()
        if self.received - self._written >= BLOCK or len(self._unwritten) >= _MOST:
            await self._write()

    async def end(self) -> OpenFile:
        """Everything has come, and it was right. Raises `BadAnswer` where it wasn't, and `OSError`."""
        if self.size is not None and self.received != self.size:
            raise BadAnswer(f"{self.holder} sent {self.received} bytes, after it had announced {self.size}")
        await self._write()
        self.is_whole, self.size = True, self.received
        self._changed()
        return self._opened

    def fail(self, failure: Exception) -> None:
        """Break off everybody who follows: with *failure*, or by letting them go on by themselves if it is `Spoilt`."""
        self._failure = self._failure or failure
        self._changed()

    async def close(self) -> None:
        """Let go of the file. One that wasn't kept is deleted, and emptied where nobody may read it any more."""
        if self._file is None:
            return
        try:
            await self._file.work(lambda descriptor: _discard(self._path, descriptor, empty=self._failure is not None))
        finally:
            self._file.release()

    async def begun(self) -> OpenFile:
        """Wait until the blob is known to be there. Raises what made it fail before."""
        while self._file is None:
            await self._progress()
        if self._failure is not None:
            raise self._failure
        return self._file

    async def select(self, part: Part) -> ContentRange | None:
        """Return which bytes *part* means, or None for all, as soon as that can be said.

        Raises:
            RangeInvalid: It means none; that is only said of bytes that were verified.
        """
        if self.size is not None:
            with suppress(RangeInvalid):
                return select(part, self.size)
        if isinstance(part, Whole | Nothing):
            return None
        while not self.is_whole and not (self.size is None and _is_there(part, self.received)):
            await self._progress()
        if self.size is None and isinstance(part, ByteRange) and part.last is not None:
            return ContentRange(part.first, part.last, None)
        return select(part, self.received)

    async def follow(self, holder: Holder, wanted: ContentRange | None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of *wanted* as they come. Raises what makes the transfer fail.

        When the blob can't be kept any more, it goes on with a transfer of its own, from *holder*.
        """
        position, end = (wanted.first, wanted.last + 1) if wanted else (0, None)
        spoilt = False
        while not spoilt and (end is None or position < end):
            try:
                piece = await self._piece(position, BLOCK if end is None else min(BLOCK, end - position))
            except Spoilt as error:
                spoilt = True
                self._streamed.labels(error.reason).inc()
            else:
                if not piece:
                    return
                position += len(piece)
                yield piece
        if spoilt:
            async with holder.open(Whole()) as blob:
                seen = 0
                async for chunk in blob.chunks:
                    piece = chunk[max(0, position - seen) : None if end is None else max(0, end - seen)]
                    seen += len(chunk)
                    if piece:
                        yield piece

    async def _piece(self, position: int, most: int) -> bytes:
        """Return bytes from *position* on, at least one; none only at the end."""
        while position >= self.received and not self.is_whole:
            await self._progress()
        if position >= self.received:
            return b""
        if self._failure is not None:
            raise self._failure
        if position >= self._written:
            return self._from_memory(position, most)
        piece = await self._read(position, min(most, self._written - position))
        if not piece:
            raise self._failure or Spoilt("disk")  # somebody has cut the file
        return piece

    async def _read(self, position: int, length: int) -> bytes:
        try:
            return await self._opened.read(position, length)
        except OSError as error:
            spoilt = Spoilt("disk", error)
            self.fail(spoilt)  # for all of them: what can't be read now won't be kept either
            raise spoilt from None

    def _from_memory(self, position: int, most: int) -> bytes:
        start = self._written
        for chunk in self._unwritten:
            if position < start + len(chunk):
                return chunk[position - start : position - start + most]
            start += len(chunk)
        raise AssertionError("what has come and isn't written is in memory")

    async def _write(self) -> None:
        chunks = self._unwritten
        await self._opened.work(lambda descriptor: _write_all(descriptor, chunks))
        self._written, self._unwritten = self.received, []

    async def _progress(self) -> None:
        """Wait until something has changed. Raises what made the fill fail."""
        if self._failure is None:
            await self._change.wait()
        if self._failure is not None:
            raise self._failure

    def _changed(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()

    @property
    def _opened(self) -> OpenFile:
        if self._file is None:
            raise RuntimeError("the fill has not begun")
        return self._file


def _is_there(part: Part, received: int) -> bool:
    """Whether all bytes of a range have come; where the blob ends must be known for others."""
    return isinstance(part, ByteRange) and part.last is not None and part.last < received


def _write_all(descriptor: int, chunks: Sequence[bytes]) -> None:
    """Append *chunks*, without putting them together first."""
    left = [memoryview(chunk) for chunk in chunks if chunk]
    while left:
        written = os.writev(descriptor, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _discard(path: Path, descriptor: int, *, empty: bool) -> None:
    """Delete a file that wasn't kept; *empty* it, too, where nobody may read it any more."""
    with suppress(OSError):  # kept, or gone
        path.unlink()
        if empty:
            os.truncate(descriptor, 0)
