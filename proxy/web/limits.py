"""What one client, and all of them together, may take of a port: connections, requests, bytes and time.

Limits of everybody together end in 503, those of one client in 429, both with `Retry-After`; where HTTP has a word of
its own (408, 413, 431) that is used. A client is its address, an IPv6 one its /64: that is what one machine is given.
"""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from proxy.oci.errors import RegistryError
from proxy.web.failures import respond

_MAX_SWEEP: Final = 10.0  # seconds between two looks for connections on which nothing happens
_MIN_SWEEP: Final = 0.02
BODY_CREDIT: Final = 16 * 1024  # bytes of a body for which a client may take the time limit again


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a port; 0 is none where a limit is for one client. Times are in seconds, sizes in bytes.

    Attributes:
        streams_per_client: Blobs that are on their way from registries to one client: each takes a connection there.
        rate: Requests that one client may send each second on average, after *burst* at once.
        upload_max: Of one body, and of the end of one part of a blob.
        manifests_max: Of all manifests that are being pushed, which are in memory; half of it of one client.
        header_max: Of a request's head, its first line included; *header_fields* is how many lines it may have besides.
        head_timeout: For a head to arrive, and for a TLS handshake.
        idle_timeout: Between two requests.
        body_timeout: For each `BODY_CREDIT` bytes of a body, as long as it is the client that is waited for.
        send_timeout: Within which a client has to take something of an answer.
    """

    connections: int = 10_000
    connections_per_client: int = 0
    requests: int = 10_000
    requests_per_client: int = 0
    streams_per_client: int = 0
    rate: float = 0.0
    burst: int = 1
    upload_max: int = 1 << 60
    manifests_max: int = 1 << 60
    header_max: int = 64 * 1024
    header_fields: int = 128
    head_timeout: float = 30.0
    idle_timeout: float = 150.0
    body_timeout: float = 60.0
    send_timeout: float = 60.0

    @property
    def sweep(self) -> float:
        """Seconds between two looks for connections on which nothing happens."""
        shortest = min(self.head_timeout, self.idle_timeout, self.send_timeout)
        return max(_MIN_SWEEP, min(_MAX_SWEEP, shortest / 3))

    def sweeps(self, seconds: float) -> int:
        """Return how many looks in a row make *seconds*."""
        return max(1, math.ceil(seconds / self.sweep))

    @property
    def tell_clients_apart(self) -> bool:
        """Whether any limit is for one client."""
        return bool(self.connections_per_client or self.requests_per_client or self.streams_per_client or self.rate)


class TooMany(RegistryError):
    """More is asked for than is answered: by everybody together (503) or by one client (429)."""

    code = "TOOMANYREQUESTS"
    status = 503

    def __init__(self, message: str, *, status: int = 503, reason: str = "requests", seconds: float = 1.0) -> None:
        """Keep the *reason* as metrics say it, and after how many *seconds* it is worth another try."""
        super().__init__(message, retry_after=str(max(1, math.ceil(seconds))))
        self.status = status
        self.reason = reason


class HeadTooLarge(RegistryError):
    """The head of a request has too many bytes or fields."""

    code = "SIZE_INVALID"
    status = 431


class HeadTooSlow(RegistryError):
    """The head of a request didn't come within its time."""

    status = 408


class BodyTooSlow(RegistryError):
    """The body of a request didn't come within its time."""

    status = 408


class ClientStalled(ConnectionError):
    """The client takes nothing of an answer."""


def network(address: str) -> str:
    """Return what stands for a client: an IPv4 address, or the /64 of an IPv6 one."""
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address
    if packed.startswith(b"\0" * 10 + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return f"{socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8))}/64"


def wire(error: RegistryError) -> bytes:
    """Write *error* as the last answer on a connection that has no handler."""
    response = respond(error)
    body = response.body if isinstance(response.body, bytes) else b""
    response.headers.update({"Content-Length": str(len(body)), "Connection": "close", "Server": "manifuse"})
    response.headers["Date"] = formatdate(usegmt=True)
    fields = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    return f"HTTP/1.1 {response.status} {response.reason}\r\n{fields}\r\n".encode() + body
