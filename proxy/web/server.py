"""Listening: aiohttp's low-level server with our limits and our errors, and a stop that lets requests finish."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import InvalidURLError, LineTooLong

from proxy.oci.errors import RegistryError
from proxy.web import heads
from proxy.web.failures import respond
from proxy.web.gate import Gate
from proxy.web.heads import BadRequest
from proxy.web.hot import Front, Fronts
from proxy.web.limits import ClientStalled, Limits, TooMany
from proxy.web.request import ALWAYS
from proxy.web.table import END, Tables

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_BACKLOG: Final = 1024  # connections that the kernel keeps until they are taken
_LINGER: Final = 10.0  # seconds that a body which nobody wants is read for, so that its sender hears why
_NOTICE: Final = 0.1  # seconds that requests have to end which are cut when the service stops
_TOO_MANY_FIELDS: Final = "Too many headers"  # how aiohttp begins to say so; it has no class for it
_FIRST_WORD: Final = 0.5  # seconds that a connection just taken has for its first request when we stop
_UNHEEDED: Final = "h2c"  # what Java's clients want to speak, and say so again and again
_NEVER: Final = 1e9  # seconds; aiohttp doesn't see what is answered in front of it, so it can't know what is idle

_log: Final = structlog.get_logger("web")


class _Parser:
    """aiohttp's parser. A target that yarl can't take, such as `http://[]@`, is malformed to it like any other."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> Any:
        """Read requests. Raises `HttpProcessingError`."""
        try:
            return self._parser.feed_data(data)
        except (IndexError, ValueError):
            raise InvalidURLError("the target is no URL") from None


class _Protocol(web.RequestHandler):
    """aiohttp's protocol, with its own errors in OCI's words: a client's parser expects JSON of any 400."""

    front: Front | None = None  # what stands in front of it
    gate: Gate
    # aiohttp's parser stops behind a head that asks for another protocol, or behind its body, and drops what came with
    # it in one piece. It may go on in the middle of a request then: the next answer has to be the last.
    astray: bool = False
    _clean: bool = True  # what came last ended where a head does
    _body: Any = None  # of the request that was read last
    _unread: int = 0  # bytes of a head that isn't whole
    _lost: bool = False  # what came wasn't HTTP: where the next request would begin can't be known

    def data_received(self, data: bytes) -> None:
        """Read requests, and keep an eye on a head that doesn't end."""
        if self._lost:
            return
        before = self._request_count
        in_head = self._body is None or self._body.is_eof()
        is_one_head = self._clean and data.find(END) == len(data) - len(END)
        self._clean = data.endswith(END)
        super().data_received(data)
        if self._request_count != before:
            # What stands behind the last head of a chunk may be a part of the next one: at most a chunk too little.
            self._unread = 0
            if self._messages:
                message, self._body = self._messages[-1]
                self._lost = not isinstance(message, RawRequestMessage)
                if isinstance(message, RawRequestMessage) and message.upgrade:
                    is_alone = is_one_head and self._body.is_eof()
                    self.astray |= not (is_alone and message.headers.get("Upgrade", "").lower() == _UNHEEDED)
        elif in_head:
            self._unread += len(data)
        if self.front is not None:
            self.front.read(self._request_count, partly=self._unread > 0)
            if self._unread > self.gate.limits.header_max:
                self.front.refuse(self.gate.head_too_large())

    def __init__(self, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._parser: Any = _Parser(self._parser)

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
        if isinstance(exc, ConnectionError):
            raise exc  # the client left; there is nobody to answer, and nothing to be told of
        error: RegistryError = BadRequest("the request is not valid HTTP")
        if isinstance(exc, LineTooLong) or (message or "").startswith(_TOO_MANY_FIELDS):
            error = self.gate.head_too_large()
        elif status >= 500:
            _log.error("internal error", exc_info=exc)
            error = RegistryError("internal error; the log has the details")
        else:
            self.gate.refused("malformed")
        response = respond(error)
        response.headers.update(ALWAYS)
        response.force_close()
        return response


class _Answered(AbstractAccessLogger):
    """aiohttp's access logger, called when a response was written: it tells the front."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Tell that *response* was written."""
        if (front := _front(request)) is not None:
            front.answered(response)


class _Server(web.Server):
    """A server whose connections speak `_Protocol`, behind fronts where there are limits or hot answers."""

    def __init__(self, handler: Handler, tables: Tables | None, gate: Gate | None) -> None:
        guarded = gate is not None or tables is not None
        self._gate = gate or Gate(Limits())
        self._options: dict[str, Any] = {
            "access_log": logging.getLogger("aiohttp.access") if guarded else None,
            "access_log_class": _Answered,
            "logger": logging.getLogger("aiohttp.server"),
            "keepalive_timeout": _NEVER if guarded else self._gate.limits.idle_timeout,
            "lingering_time": min(_LINGER, self._gate.limits.body_timeout),
            "max_line_size": self._gate.limits.header_max,
            "max_field_size": self._gate.limits.header_max,
            "max_headers": self._gate.limits.header_fields,
            "auto_decompress": False,  # a body is passed on as it came, and none becomes larger than it is
        }
        super().__init__(self._handle, **self._options)
        self._handler = handler
        self.fronts = Fronts(tables or Tables(0, time.time), self._behind, self._gate) if guarded else None

    def __call__(self) -> web.RequestHandler:
        protocol = _Protocol(self, loop=asyncio.get_running_loop(), **self._options)
        protocol.gate = self._gate
        return protocol

    @property
    def factory(self) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of a new connection."""
        return self.fronts or self

    def pre_shutdown(self) -> None:
        """Close connections that nothing is in flight on, but for those that have just been taken."""
        if self.fronts is not None:
            self.fronts.stop(spare=True)
        super().pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Let requests in flight finish for *timeout* seconds, then close every connection.

        aiohttp waits twice: for answers, and as long again for handlers to notice that nobody wants them any more.
        """
        try:
            async with asyncio.timeout(timeout):
                if self.fronts is not None:
                    await self.fronts.heard(_FIRST_WORD)
                    self.fronts.stop()
                    super().pre_shutdown()
                await super().shutdown(None)
        except TimeoutError:
            await super().shutdown(_NOTICE)
        if self.fronts is not None:
            self.fronts.stop()  # of those that came last nobody has heard a word

    def watch(self) -> None:
        """Close idle connections from now on."""
        if self.fronts is not None:
            self.fronts.watch()

    def _behind(self, front: Front) -> web.RequestHandler:
        protocol = _Protocol(self, loop=asyncio.get_running_loop(), **self._options)
        protocol.gate = self._gate
        protocol.front = front
        return protocol

    def _check(self, request: web.BaseRequest) -> None:
        self._gate.check_head(request)
        try:
            heads.check(request)
        except RegistryError:
            self._gate.refused("malformed")
            raise

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._answer(request)
        if isinstance(request.protocol, _Protocol) and request.protocol.astray:
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        front = _front(request)
        if front is None:
            return await self._handler(request)
        client = front.began(request)
        try:
            self._check(request)
            with self._gate.answering(client):
                return await self._handler(request)
        except RegistryError as refused:
            response = respond(refused)
            response.headers.update(ALWAYS)
            if not isinstance(refused, TooMany):
                response.force_close()  # what comes next on it can't be trusted either
            return response
        except ClientStalled:
            self._gate.refused("send_timeout")
            raise


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
    gate: Gate | None = None,
    tls: Callable[[], ssl.SSLContext] | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """Serve *handler* on *address* while the block runs, then finish what is in flight.

    Yields the address really listened on: port 0 means a free one.

    Args:
        address: Where to listen, or a socket that is bound already.
        drain: Seconds that requests in flight have to finish; then they are cut.
        tables: Where hot answers are kept; without them every request takes the full path.
        gate: Lets clients in; without it only heads are limited.
        tls: What the next handshake is made with; without it the port speaks plain HTTP.

    Raises:
        OSError: The address can't be listened on.
    """
    server = _Server(handler, tables, gate if gate or not tls else Gate(Limits()))
    runner = web.ServerRunner(server, shutdown_timeout=drain)
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        sock = address if isinstance(address, socket.socket) else bind(address)
        if tls is not None and server.fronts is not None:
            from proxy.web.accept import accept  # noqa: PLC0415 - memory that most don't need

            await stack.enter_async_context(accept(sock, tls, server.fronts, _BACKLOG))
        else:
            listening = await asyncio.get_running_loop().create_server(server.factory, sock=sock, backlog=_BACKLOG)
            stack.callback(listening.close)
        server.watch()
        host, port = sock.getsockname()[:2]
        yield host, port


def is_loopback(address: tuple[str, int] | socket.socket) -> bool:
    """Whether nobody but this machine reaches *address*. Raises `OSError` for a name that can't be resolved."""
    host = address.getsockname()[0] if isinstance(address, socket.socket) else _resolved(address)[4][0]
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def bind(address: tuple[str, int], *, shared: bool = False) -> socket.socket:
    """Bind a socket to listen on; a name such as `localhost` takes its first address.

    Args:
        shared: Whether others may be bound to the same address, so that the kernel spreads connections over them.

    Raises:
        OSError: The address can't be listened on.
    """
    host, port = address
    family, kind, protocol, _, place = _resolved(address)
    try:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # by its connections, which outlive it
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(place)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise OSError(f"{host}:{port} can't be listened on: {error.strerror}") from error
    sock.setblocking(False)
    return sock


def _resolved(address: tuple[str, int]) -> Any:
    host, port = address
    try:
        return socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise OSError(f"{host}:{port} can't be listened on: {error.strerror}") from error
