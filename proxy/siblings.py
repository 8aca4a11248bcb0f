"""Messages between the worker processes of one service, over sockets in a folder that only they can enter.

Each worker listens on a socket of its own, named by its number. A message is one line, the answer is `ok`. A
worker that isn't there needs no message: it remembers nothing when it comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

_MAX_LINE: Final = 64 * 1024  # bytes of a message; names have at most some hundreds
_SECONDS: Final = 2.0  # for a message and its answer: whoever pushes waits for it
_OK: Final = b"ok\n"

Hear = Callable[[bytes], Awaitable[None]]
"""Takes a message. Raises `ValueError` for one that it doesn't understand."""

_log: Final = structlog.get_logger("workers")


@dataclass(frozen=True, slots=True)
class Siblings:
    """The workers of a service, seen by the one with *number* of *count*."""

    folder: Path
    number: int
    count: int

    async def tell(self, message: bytes) -> None:
        """Send a message to all others at once, and wait until each has heard it or can't be reached."""
        others = [number for number in range(self.count) if number != self.number]
        await asyncio.gather(*(self._send(number, message) for number in others))

    @asynccontextmanager
    async def listening(self, hear: Hear) -> AsyncIterator[None]:
        """Let *hear* take the messages of the others while the block runs."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await hear(await reader.readline())
                writer.write(_OK)
                await writer.drain()
            except (ValueError, ConnectionError) as error:
                _log.warning("message not understood", worker=self.number, reason=str(error))
            finally:
                writer.close()

        path = self._socket(self.number)
        path.unlink(missing_ok=True)  # of the worker that had this number before
        async with await asyncio.start_unix_server(serve, path, limit=_MAX_LINE):
            yield

    async def _send(self, number: int, message: bytes) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket(number))
                try:
                    writer.write(message + b"\n")
                    if await reader.readline() != _OK:
                        _log.warning("message not understood by another worker", worker=number)
                finally:
                    writer.close()
                    with suppress(OSError):  # it has gone meanwhile; its answer counts
                        await writer.wait_closed()
        except (FileNotFoundError, ConnectionError):
            return  # it isn't there, or just ending: it remembers nothing
        except TimeoutError:
            _log.warning("another worker doesn't answer", worker=number)

    def _socket(self, number: int) -> Path:
        return self.folder / f"{number}.sock"
