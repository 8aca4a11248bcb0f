"""Listening: aiohttp's low-level server with our limits and our errors, and a stop that lets requests finish."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from proxy.oci.errors import Invalid, RegistryError
from proxy.web.failures import respond
from proxy.web.hot import Front, Fronts, Tables

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_MAX_LINE: Final = 64 * 1024  # a longer request line or header isn't read; what is shorter gets an OCI error
_KEEPALIVE: Final = 150.0  # seconds; longer than Go clients keep idle connections, so that they close first
_NEVER: Final = 1e9  # seconds; aiohttp doesn't see what is answered in front of it, so it can't know what is idle

_log: Final = structlog.get_logger("web")


class _BadRequest(Invalid):
    """What came isn't HTTP."""


class _Protocol(web.RequestHandler):
    """aiohttp's protocol, with its own errors in OCI's words: a client's parser expects JSON of any 400."""

    front: Front | None = None  # what stands in front of it

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


class _Answered(AbstractAccessLogger):
    """aiohttp's access logger, called when a response was written: it tells the front."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Tell that *response* was written."""
        if (front := _front(request)) is not None:
            front.answered(response)


class _Server(web.Server):
    """A server whose connections speak `_Protocol`, behind fronts where there are hot answers."""

    def __init__(self, handler: Handler, tables: Tables | None, **options: Any) -> None:
        super().__init__(self._handle, **options)
        self._handler = handler
        self._options = options
        self._fronts = Fronts(tables, self._behind) if tables is not None else None

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=asyncio.get_running_loop(), **self._options)

    @property
    def factory(self) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of a new connection."""
        return self._fronts or self

    def pre_shutdown(self) -> None:
        """Close connections that nothing is in flight on."""
        if self._fronts is not None:
            self._fronts.stop()
        super().pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Let requests in flight finish for *timeout* seconds, then close every connection."""
        await super().shutdown(timeout)
        if self._fronts is not None:
            self._fronts.stop()  # of those that came last nobody has heard a word

    def watch(self) -> None:
        """Close idle connections from now on."""
        if self._fronts is not None:
            self._fronts.watch()

    def _behind(self, front: Front) -> web.RequestHandler:
        protocol = _Protocol(self, loop=asyncio.get_running_loop(), **self._options)
        protocol.front = front
        return protocol

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if (front := _front(request)) is not None:
            front.began()
        return await self._handler(request)


def _front(request: web.BaseRequest) -> Front | None:
    protocol = request.protocol
    return protocol.front if isinstance(protocol, _Protocol) else None


@asynccontextmanager
async def listen(
    handler: Handler,
    address: tuple[str, int] | socket.socket,
    *,
    drain: float,
    tables: Tables | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """Serve *handler* on *address* while the block runs, then finish what is in flight.

    Yields the address really listened on: port 0 means a free one.

    Args:
        address: Where to listen, or a socket that is bound already.
        drain: Seconds that requests in flight have to finish; then they are cut.
        tables: Where hot answers are kept; without them every request takes the full path.

    Raises:
        OSError: The address can't be listened on.
    """
    server = _Server(
        handler,
        tables,
        access_log=logging.getLogger("aiohttp.access") if tables is not None else None,
        access_log_class=_Answered,
        logger=logging.getLogger("aiohttp.server"),
        keepalive_timeout=_KEEPALIVE if tables is None else _NEVER,
        max_line_size=_MAX_LINE,
        max_field_size=_MAX_LINE,
    )
    runner = web.ServerRunner(server, shutdown_timeout=drain)
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        sock = address if isinstance(address, socket.socket) else bind(address)
        listening = await asyncio.get_running_loop().create_server(server.factory, sock=sock, backlog=1024)
        stack.callback(listening.close)
        server.watch()
        host, port = sock.getsockname()[:2]
        yield host, port


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
