"""A file to a client without copying it through the process: the kernel sends it, we wait until it can take more.

`loop.sendfile` isn't there under uvloop. What is here works on every loop: a second descriptor of the connection's
socket, which the loop watches beside its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp.abc import AbstractStreamWriter

from proxy.oci.content import FileSlice
from proxy.oci.errors import Unreachable

_AT_ONCE: Final = 1024 * 1024  # bytes, so that a disk which has to be waited for holds up nobody else for long


def can_send(transport: asyncio.BaseTransport) -> bool:
    """Whether the kernel can send files there: over a plain socket, but not through TLS."""
    return (
        hasattr(os, "sendfile")
        and transport.get_extra_info("sslcontext") is None
        and transport.get_extra_info("socket") is not None
    )


async def send(writer: AbstractStreamWriter, transport: asyncio.WriteTransport, file: FileSlice) -> None:
    """Send *file* behind what *writer* has written, all of it.

    Raises:
        ConnectionError: The client left.
        Unreachable: The file can't be read, or is shorter than it should be.
    """
    await _flushed(writer, transport)
    async with _second_descriptor(transport) as descriptor:
        pump = _Pump(transport, descriptor, file)
        loop = asyncio.get_running_loop()
        loop.add_writer(descriptor, pump.step)
        try:
            await pump.done
        finally:
            loop.remove_writer(descriptor)


async def _flushed(writer: AbstractStreamWriter, transport: asyncio.WriteTransport) -> None:
    """Wait until everything that was written has gone to the kernel: what follows must not overtake it."""
    if not transport.is_closing():
        transport.set_write_buffer_limits(high=0)
    try:
        await writer.drain()
    finally:
        if not transport.is_closing():
            transport.set_write_buffer_limits()


@asynccontextmanager
async def _second_descriptor(transport: asyncio.WriteTransport) -> AsyncIterator[int]:
    """Lend a descriptor of the connection that stays what it is when the transport closes its own."""
    if transport.is_closing():
        raise ConnectionResetError("the client left")
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Pump:
    """Sends a piece of a file each time that the socket takes more; `done` says when all of it is sent."""

    def __init__(self, transport: asyncio.WriteTransport, descriptor: int, file: FileSlice) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport = transport
        self._descriptor = descriptor
        self._file = file
        self._position = file.offset
        self._end = file.offset + file.length

    def step(self) -> None:
        """Send a piece. The loop calls this, once in each of its rounds: no client keeps others waiting."""
        if self.done.done():
            return
        try:
            self._send()
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, Unreachable) as error:
            self.done.set_exception(_cause(error))
        else:
            if self._position == self._end:
                self.done.set_result(None)

    def _send(self) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the client left")
        left = min(_AT_ONCE, self._end - self._position)
        sent = os.sendfile(self._descriptor, self._file.descriptor, self._position, left) if left else 0
        if left and not sent:
            raise Unreachable("the cached file is shorter than it was")
        self._position += sent


def _cause(error: Exception) -> Exception:
    """Tell a disk that fails from a client that left, in whatever words the kernel has for that."""
    if isinstance(error, ConnectionError | Unreachable):
        return error
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return Unreachable("the cached file can't be read")
    return ConnectionResetError(str(error))
