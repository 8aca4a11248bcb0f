"""Taking connections that begin with a TLS handshake.

`create_server` would do it, but it counts no connection before its handshake, and shakes every hand with the context it
was given. Here a connection that is one too many is closed before it has cost anything, and each handshake is made with
the context of the moment: a renewed certificate, and a shorter list of authorities for clients, count from the next
connection on, and those that are open don't notice. (A context that is loaded anew keeps the authorities it had, and
may be seen between its certificate and its key.)
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from proxy.web.descriptors import Shortage
from proxy.web.hot import Front, Fronts

_PAUSE: Final = 0.5  # seconds until the next try when no connection can be taken, as for want of descriptors
_LAST: Final = 0.5  # seconds that handshakes have to end when no other connection is taken
_GOODBYE: Final = 5.0  # seconds that a client has to answer the end of TLS

_log: Final = structlog.get_logger("web")


@asynccontextmanager
async def accept(
    sock: socket.socket, tls: Callable[[], ssl.SSLContext], fronts: Fronts, backlog: int
) -> AsyncIterator[None]:
    """Take connections on *sock*, which is bound, while the block runs; then close it, and finish handshakes.

    Args:
        backlog: Connections that the kernel keeps until they are taken.
    """
    sock.listen(backlog)
    shaking: set[asyncio.Task[None]] = set()
    accepting = asyncio.create_task(_accept(sock, tls, fronts, shaking))
    try:
        yield
    finally:
        accepting.cancel()
        await asyncio.wait([accepting])
        sock.close()
        if shaking:
            _, late = await asyncio.wait(shaking, timeout=_LAST)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


async def _accept(
    sock: socket.socket, tls: Callable[[], ssl.SSLContext], fronts: Fronts, shaking: set[asyncio.Task[None]]
) -> None:
    loop, gate, shortage = asyncio.get_running_loop(), fronts.gate, Shortage()
    while True:
        try:
            connection, address = await loop.sock_accept(sock)
        except OSError as error:
            shortage.tell(error)
            await asyncio.sleep(_PAUSE)
            continue
        front = fronts()
        reason = front.enter(gate.client(str(address[0])))
        if reason is not None:
            gate.refused(reason)
            connection.close()
            continue
        task = asyncio.create_task(_shake_hands(connection, tls(), front, gate.limits.head_timeout))
        shaking.add(task)
        task.add_done_callback(shaking.discard)


async def _shake_hands(connection: socket.socket, context: ssl.SSLContext, front: Front, seconds: float) -> None:
    """Let *front* speak over TLS, or nobody."""
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: front,
            connection,
            ssl=context,
            ssl_handshake_timeout=seconds,
            ssl_shutdown_timeout=_GOODBYE,
        )
    except (OSError, TimeoutError) as error:
        _log.debug("no TLS handshake", error=str(error))
        front.dropped("handshake")
    except BaseException:
        front.dropped()
        raise
