"""How far an address reaches: everybody's, this network's, this machine's, or nobody's who is sent there."""

from __future__ import annotations

import ipaddress
import socket
from enum import IntEnum
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Names that resolve to it are refused like the address itself. Not all of these are link-local.
_METADATA: Final = frozenset(
    {
        ipaddress.ip_address("100.100.100.200"),  # Alibaba Cloud
        ipaddress.ip_address("168.63.129.16"),  # Azure, and a public address
        ipaddress.ip_address("192.0.0.192"),  # Oracle Cloud
        ipaddress.ip_address("fd00:ec2::254"),  # AWS
        ipaddress.ip_address("fd00:ec2::23"),  # AWS, credentials of pods
        ipaddress.ip_address("fd00:42::42"),  # Scaleway
        ipaddress.ip_address("fd20:ce::254"),  # Google Cloud
    }
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")  # RFC 4291 §2.5.5.1, deprecated
_LAST_32: Final = 0xFFFFFFFF


class Reach(IntEnum):
    """Who an address leads to; the later, the more it takes to be sent there."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    NOWHERE = 3
    """Link-local, multicast, reserved, and the metadata services of clouds."""


def parse(host: str) -> Address | None:
    """Read an address as resolvers do: `127.1`, `0x7f000001` and `2130706433` are all loopback to them."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):  # a NUL, or what isn't ASCII
        return None


def reach(address: Address) -> Reach:
    """Return how far *address* reaches; one that holds an IPv4 address, as far as that one."""
    if isinstance(address, ipaddress.IPv6Address):
        embedded = _embedded(address)
        if embedded is not None:
            return max(reach(embedded), Reach.PRIVATE if address in _NAT64_LOCAL else Reach.PUBLIC)
    if address.is_loopback or address.is_unspecified:  # Linux connects to itself for both
        return Reach.LOOPBACK
    if address in _METADATA or address.is_link_local or address.is_multicast or address.is_reserved:
        return Reach.NOWHERE
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return Reach.PUBLIC if address.is_global and not site_local else Reach.PRIVATE


def reach_of_host(host: str) -> Reach | None:
    """Return how far a URL's *host* reaches, or None for a name that a resolver has to be asked about."""
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return Reach.LOOPBACK
    address = parse(host)
    return None if address is None else reach(address)


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that a packet to *address* may end at."""
    if address.is_loopback or address.is_unspecified:
        return None
    if address in _NAT64 or address in _NAT64_LOCAL or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & _LAST_32)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
