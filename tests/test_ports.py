"""Ports that are kept."""

from __future__ import annotations

import socket

import pytest

from ports import free_port


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_a_port_is_kept_for_who_is_told_of_it(option: int) -> None:
    """It refuses connections until a server listens, whichever way servers bind, and again when that has left."""
    port = free_port()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, option, 1)
            server.bind(("127.0.0.1", port))
            server.listen()
            socket.create_connection(("127.0.0.1", port)).close()


def test_a_port_is_nobody_else_s() -> None:
    """Who takes any port gets another one."""
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
