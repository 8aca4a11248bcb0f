"""Blobs kept on their way: one transfer from the upstream, any number of clients that follow it (`fill`), then a file.

A blob that can't be kept is streamed: one that is larger than all there may be, or for which there is no room, or
that the disk doesn't take.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final

import structlog

from proxy.oci.byterange import Nothing, Part, Whole, select
from proxy.oci.content import Blob, FileSlice
from proxy.oci.errors import RegistryError, Unreachable
from proxy.oci.reference import Digest
from proxy.store.base import Holder
from proxy.store.checks import Checks
from proxy.store.fill import BLOCK, Fill, Spoilt
from proxy.store.shelf import Kept, OpenFile, Shelf
from proxy.store.trouble import Trouble
from proxy.telemetry import Metrics

_TRIES: Final = 3  # of following a transfer that somebody else began and that failed at once
_PAUSE: Final = 30.0  # seconds that a disk which failed is left alone
_MOST: Final = 10_000  # blobs known to be too large; one that was forgotten costs a request

_log: Final = structlog.get_logger("store")


class _KeptMeanwhile(Exception):
    """There is nothing to be fetched."""


class Spool:
    """Blobs on disk. Close it: transfers that are under way are given up."""

    def __init__(self, shelf: Shelf, metrics: Metrics, ticks: Callable[[], float] = time.monotonic) -> None:
        """Keep on *shelf*; *ticks* has seconds that never go backwards."""
        self._shelf = shelf
        self._metrics = metrics
        self._ticks = ticks
        self._fills: dict[Digest, Fill] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._checks = Checks(shelf.check)
        self._too_large: dict[Digest, None] = {}
        self._unusable_until = -math.inf
        self._trouble = Trouble(ticks)

    @asynccontextmanager
    async def open(self, holder: Holder, part: Part) -> AsyncIterator[Blob]:
        """Open a blob, or *part* of it. Its beginning isn't waited for longer than the holder's headers."""
        async with AsyncExitStack() as stack:
            yield await self._opened(stack, holder, part)

    async def close(self) -> None:
        """Give up what is under way, and wait until its files are gone."""
        await self._checks.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _opened(self, stack: AsyncExitStack, holder: Holder, part: Part) -> Blob:
        try:
            for _ in range(_TRIES):
                fill = self._fills.get(holder.digest)
                if fill is None and (kept := await self._find(holder.digest)) is not None:
                    return self._kept(stack, holder.digest, kept, part)
                if isinstance(part, Nothing):
                    return await self._described(stack, holder)
                try:
                    return await self._followed(stack, holder, part)
                except _KeptMeanwhile:
                    continue
        except Spoilt as spoilt:
            self._metrics.blobs_streamed.labels(spoilt.reason).inc()
        return await stack.enter_async_context(holder.open(part))

    def _kept(self, stack: AsyncExitStack, digest: Digest, kept: Kept, part: Part) -> Blob:
        """Serve what is kept, by the kernel where that can be done."""
        stack.callback(kept.file.release)
        if kept.is_due:
            self._checks.add(digest)
        wanted = select(part, kept.size)
        self._metrics.blob_cache.labels("hit").inc()
        if isinstance(part, Nothing):
            return Blob(digest=digest, size=kept.size, part=None, chunks=_nothing())
        first, length = (wanted.first, wanted.length) if wanted else (0, kept.size)
        chunks = _read(kept.file, first, length)
        stack.push_async_callback(chunks.aclose)
        slice_ = FileSlice(kept.file.descriptor, first, length)
        return Blob(digest=digest, size=kept.size, part=wanted, chunks=chunks, file=slice_)

    async def _described(self, stack: AsyncExitStack, holder: Holder) -> Blob:
        """Answer HEAD of what isn't kept: no reason to fetch it."""
        fill = self._fills.get(holder.digest)
        if fill is not None and fill.size is not None:
            return Blob(digest=holder.digest, size=fill.size, part=None, chunks=_nothing())
        return await stack.enter_async_context(holder.open(Nothing()))

    async def _followed(self, stack: AsyncExitStack, holder: Holder, part: Part) -> Blob:
        """Follow the transfer that is under way, or a new one."""
        for _ in range(_TRIES):
            fill, result = self._fills.get(holder.digest), "joined"
            if fill is None:
                fill, result = self._begin(holder), "miss"
            try:
                file = await fill.begun()
            except RegistryError:
                if fill.holder == holder:
                    raise
                continue  # somebody else's source doesn't answer, or not to them
            file.share()
            stack.callback(file.release)
            wanted = await fill.select(part)
            chunks = fill.follow(holder, wanted)
            stack.push_async_callback(chunks.aclose)
            self._metrics.blob_cache.labels(result).inc()
            return Blob(digest=holder.digest, size=fill.size, part=wanted, chunks=chunks)
        return await stack.enter_async_context(holder.open(part))

    def _begin(self, holder: Holder) -> Fill:
        if self._ticks() < self._unusable_until:
            raise Spoilt("disk")
        if holder.digest in self._too_large:
            raise Spoilt("size")
        fill = self._fills[holder.digest] = Fill(holder, self._metrics.blobs_streamed)
        task = asyncio.create_task(self._run(fill))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return fill

    async def _run(self, fill: Fill) -> None:
        """Fill until the end, whoever follows. What goes wrong is told to them."""
        try:
            await self._fill(fill)
        except Spoilt as spoilt:
            fill.fail(spoilt)
            self._complain(spoilt)
        except (RegistryError, _KeptMeanwhile) as error:
            fill.fail(error)
            if fill.received and isinstance(error, RegistryError):
                _log.warning("blob not kept", blob=str(fill.holder), reason=error.message)
        except asyncio.CancelledError:
            fill.fail(Unreachable("the service is stopping"))
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours must not let those wait who follow
            fill.fail(error)
            _log.exception("internal error", blob=str(fill.holder))
        finally:
            del self._fills[fill.holder.digest]
            await fill.close()

    async def _fill(self, fill: Fill) -> None:
        digest = fill.holder.digest
        if (kept := await self._find(digest)) is not None:
            kept.file.release()
            raise _KeptMeanwhile
        async with fill.holder.open(Whole()) as blob:
            await self._make_room(digest, blob.size)
            with _spoiling():
                path, file = await self._shelf.scratch()
            fill.begin(blob.size, path, file)
            async for chunk in blob.chunks:
                with _spoiling():
                    await fill.add(chunk)
                self._check_size(digest, fill.received)
            with _spoiling():
                await fill.end()
        with _spoiling():
            if await self._shelf.keep(path, file, digest):
                self._trouble.may_end()

    async def _find(self, digest: Digest) -> Kept | None:
        try:
            return await self._shelf.find(digest)
        except OSError as error:
            self._complain(Spoilt("disk", error))
            return None

    async def _make_room(self, digest: Digest, size: int | None) -> None:
        """Make room for a blob, and for what others that are on their way still need."""
        self._check_size(digest, size or 0)
        others = sum(fill.size or fill.received for fill in self._fills.values())
        try:
            if not await self._shelf.room((size or 0) + others):
                raise Spoilt("room")
        except OSError as error:
            raise Spoilt("room", error) from None

    def _check_size(self, digest: Digest, size: int) -> None:
        if size > self._shelf.limit:
            if len(self._too_large) >= _MOST:
                del self._too_large[next(iter(self._too_large))]
            self._too_large[digest] = None
            raise Spoilt("size")

    def _complain(self, spoilt: Spoilt) -> None:
        """Leave a disk alone that fails, and say so once."""
        if spoilt.reason == "disk":
            self._unusable_until = self._ticks() + _PAUSE
        if spoilt.error is not None and self._trouble.begins():
            _log.warning("blob cache unusable, streaming", error=str(spoilt.error))


@contextmanager
def _spoiling() -> Iterator[None]:
    """Turn what the disk says into our words."""
    try:
        yield
    except OSError as error:
        raise Spoilt("disk", error) from None


async def _read(file: OpenFile, first: int, length: int) -> AsyncGenerator[bytes, None]:
    """Read a part of a kept blob. Raises `Unreachable` where the file has become shorter, or can't be read."""
    position, end = first, first + length
    while position < end:
        try:
            piece = await file.read(position, min(BLOCK, end - position))
        except OSError as error:
            raise Unreachable(f"the cached blob can't be read: {error.strerror}") from None
        if not piece:
            raise Unreachable("the cached blob is shorter than it was")
        position += len(piece)
        yield piece


async def _nothing() -> AsyncGenerator[bytes, None]:
    none: tuple[bytes, ...] = ()
    for chunk in none:
        yield chunk
