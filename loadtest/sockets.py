"""Loads that wrk can't make: HEAD, whole blobs, and readers that are slow. Plain sockets, one thread."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from loadtest.heads import Head
from loadtest.wrk import Failed

_END = b"\r\n\r\n"
_BUFFER = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte after which a load has failed


def repeat(address: str, head: Head, *, seconds: float, connections: int = 32) -> float:
    """Send *head*, whose answer has no body, on kept-alive connections. Returns answers a second. Raises `Failed`."""
    data, answers = bytes(head), 0
    with ExitStack() as stack:
        opened = [stack.enter_context(_connected(address)) for _ in range(connections)]
        poll = stack.enter_context(select.epoll())
        by_number = {each.fileno(): each for each in opened}
        for each in opened:
            poll.register(each, select.EPOLLIN)
            each.send(data)
        began = time.perf_counter()
        end = began + seconds
        while (now := time.perf_counter()) < end:
            for number, _ in poll.poll(1):
                each = by_number[number]
                answer = each.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(_END):
                    raise Failed(f"not an answer to a HEAD: {answer[:200]!r}")
                answers += 1
                each.send(data)
    return answers / (now - began)


def fetch(address: str, heads: Sequence[Head]) -> int:
    """Send *heads* one after the other on one connection, read all of the answers, and count the bytes."""
    buffer, total = bytearray(_BUFFER), 0
    with _connected(address) as connection:
        for head in heads:
            connection.sendall(bytes(head))
            left = _begin(connection)
            total += left
            while left:
                count = connection.recv_into(buffer, min(left, _BUFFER))
                if not count:
                    raise Failed(f"{head.path} ended {left} bytes early")
                left -= count
    return total


@contextmanager
def slow_readers(address: str, head: Head, count: int, limit: int) -> Iterator[Iterator[int]]:
    """Open *count* connections that ask for a blob and have small buffers.

    Yields an iterator: each step lets every reader read a little, and says how many bytes that were; it stops when
    each has read *limit* of them.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(_connected(address, buffer=32 << 10)) for _ in range(count)]
        for each in opened:
            each.sendall(bytes(head))
        for each in opened:
            _begin(each)
        yield _sips(opened, limit)


def _sips(opened: Sequence[socket.socket], limit: int) -> Iterator[int]:
    done = 0
    while done < limit:
        sips = [len(each.recv(16 << 10)) for each in opened]
        done += min(sips)
        yield sum(sips)


def _begin(connection: socket.socket) -> int:
    """Read the head of an answer, no byte more, and return the length of its body. Raises `Failed`."""
    seen = b""
    while _END not in seen:
        seen = connection.recv(8192, socket.MSG_PEEK)
        if not seen or (len(seen) == 8192 and _END not in seen):
            raise Failed(f"no head of an answer: {seen[:200]!r}")
    head = connection.recv(seen.index(_END) + len(_END))
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next((line.partition(":")[2] for line in lines if line.startswith("content-length:")), "")
    if not lines[0].startswith("http/1.1 200 ") or not length:
        raise Failed(f"not a whole answer: {head[:200]!r}")
    return int(length)


@contextmanager
def _connected(address: str, buffer: int = 0) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    with socket.socket() as connection:
        if buffer:
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, buffer
            )  # before it connects, or it has no effect
        connection.settimeout(_TIMEOUT)
        connection.connect((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection
