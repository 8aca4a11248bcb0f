"""Listening: aiohttp's low-level server with our limits and our errors, and a stop that lets requests finish."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from aiohttp import web

from proxy.oci.errors import Invalid, RegistryError
from proxy.web.failures import respond

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_MAX_LINE: Final = 64 * 1024  # a longer request line or header isn't read; what is shorter gets an OCI error
_KEEPALIVE: Final = 150.0  # seconds; longer than Go clients keep idle connections, so that they close first

_log: Final = structlog.get_logger("web")


class _BadRequest(Invalid):
    """What came isn't HTTP."""


class _Protocol(web.RequestHandler):
    """aiohttp's protocol, with its own errors in OCI's words: a client's parser expects JSON of any 400."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached a handler: malformed HTTP."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun, no other can follow")
        error: RegistryError = _BadRequest("the request is not valid HTTP")
        if status >= 500:
            _log.error("internal error", exc_info=exc)
            error = RegistryError("internal error; the log has the details")
        response = respond(error)
        response.force_close()
        return response


class _Server(web.Server):
    """A server whose connections speak `_Protocol`."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        super().__init__(handler, **options)
        self._options = options

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=asyncio.get_running_loop(), **self._options)


@asynccontextmanager
async def listen(
    handler: Handler, address: tuple[str, int] | socket.socket, *, drain: float
) -> AsyncIterator[tuple[str, int]]:
    """Serve *handler* on *address* while the block runs, then finish what is in flight.

    Yields the address really listened on: port 0 means a free one.

    Args:
        address: Where to listen, or a socket that is bound already.
        drain: Seconds that requests in flight have to finish; then they are cut.

    Raises:
        OSError: The address can't be listened on.
    """
    server = _Server(
        handler,
        access_log=None,
        logger=logging.getLogger("aiohttp.server"),
        keepalive_timeout=_KEEPALIVE,
        max_line_size=_MAX_LINE,
        max_field_size=_MAX_LINE,
    )
    runner = web.ServerRunner(server, shutdown_timeout=drain)
    await runner.setup()
    try:
        sock = address if isinstance(address, socket.socket) else bind(address)
        await web.SockSite(runner, sock, backlog=1024).start()
        host, port = sock.getsockname()[:2]
        yield host, port
    finally:
        await runner.cleanup()


def bind(address: tuple[str, int], *, shared: bool = False) -> socket.socket:
    """Bind a socket to listen on; a name such as `localhost` takes its first address.

    Args:
        shared: Whether others may be bound to the same address, so that the kernel spreads connections over them.

    Raises:
        OSError: The address can't be listened on.
    """
    host, port = address
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR, 1)
            sock.bind(place)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise OSError(f"{host}:{port} can't be listened on: {error.strerror}") from error
    sock.setblocking(False)
    return sock
