"""Where a client believes it is, when a reverse proxy stands in front: only a trusted one may say."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from aiohttp import web

Networks = Collection[IPv4Network | IPv6Network]

_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?", re.ASCII)

_MAX_PROXIES: Final = 20  # in a row in front of us


@dataclass(frozen=True, slots=True)
class Origin:
    """How the client addresses us.

    Attributes:
        host: What selects the registry, as `Host` does.
        url: What is put in front of a path to make it absolute; empty where nobody trusted said it, so that
            paths stay relative: they are right whoever stands in between.
    """

    host: str
    url: str = ""


def origin(http: web.BaseRequest, trusted: Networks) -> Origin:
    """Read the `Host` of a request, or what a trusted proxy forwarded; of several values the first, the client's."""
    host = http.headers.get("Host", "")
    if not trusted or not is_trusted(http.remote or "", trusted):
        return Origin(host)
    forwarded = _first(http, "X-Forwarded-Host")
    scheme = _first(http, "X-Forwarded-Proto").lower()
    if forwarded and not _HOST.fullmatch(forwarded):
        forwarded = ""
    if not _HOST.fullmatch(forwarded or host) or scheme not in ("", "http", "https") or not (forwarded or scheme):
        return Origin(forwarded or host)
    return Origin(forwarded or host, f"{scheme or http.scheme}://{forwarded or host}")


def _first(http: web.BaseRequest, name: str) -> str:
    return http.headers.get(name, "").partition(",")[0].strip()


def forwarded_for(http: web.BaseRequest, trusted: Networks) -> str:
    """Return the client that trusted proxies have passed on: the last address in `X-Forwarded-For` that is no proxy's.

    Every proxy appends who it heard from, so what stands in front of that is the client's own word. Empty where there
    is no address.
    """
    named = ",".join(http.headers.getall("X-Forwarded-For", ())).split(",")
    for each in reversed(named[-_MAX_PROXIES:]):
        address = each.strip()
        if not is_trusted(address, trusted):
            return address if _is_address(address) else ""
    return ""


def is_host(text: str) -> bool:
    """Whether *text* is what a `Host` header may hold: a name or an address, and perhaps a port. No user, no path."""
    return _HOST.fullmatch(text) is not None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_trusted(remote: str, trusted: Networks) -> bool:
    """Whether *remote* is an address of a reverse proxy whose word counts."""
    try:
        address = ip_address(remote)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in network for network in trusted)
