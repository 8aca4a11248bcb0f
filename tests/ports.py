"""Ports of the loopback address, kept for who is told of them."""

from __future__ import annotations

import socket
from typing import Final

_KEPT: Final[list[socket.socket]] = []


def free_port() -> int:
    """Return a port that nobody listens on and that the system gives to nobody else while the tests run.

    A socket stays bound to it. That is in the way of no server that lets its address be used again, as servers do,
    but neither another socket that is bound to any port nor a connection to elsewhere gets this one.
    """
    sock = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # as one process listens, and as several do
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    sock.bind(("127.0.0.1", 0))
    _KEPT.append(sock)
    port: int = sock.getsockname()[1]
    return port
