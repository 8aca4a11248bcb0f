"""Where an upstream may send us, and with what. The upstream's own words never pick a target freely (law 10)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from functools import cache
from typing import Final

from publicsuffixlist import PublicSuffixList
from yarl import URL

from proxy.oci.errors import BadAnswer

MAX_REDIRECTS: Final = 5


def check_realm(upstream: URL, realm: str, allowed: Collection[str]) -> URL:
    """Return a token *realm* as a URL that credentials for *upstream* may be sent to.

    Allowed are the upstream's own origin, a host of the same registrable domain over https on the default
    port (`auth.docker.io` for `registry-1.docker.io`), and what the operator listed. The rule is
    distribution's after CVE-2026-33540, and stricter on ports.

    Args:
        allowed: Origins such as `https://gitlab.example` or bare host names of the configuration.

    Raises:
        BadAnswer: It is somewhere else; the sentence names the key that would allow it.
    """
    try:
        url = URL(realm)
        usable = url.scheme in {"http", "https"} and bool(url.host) and not url.user and not url.password
    except ValueError:
        usable = False
    if not usable:
        raise BadAnswer("the upstream's token realm is not a plain http(s) URL")
    origin = url.origin()
    listed = str(origin) in allowed or (origin.scheme == "https" and origin.host in allowed)
    if listed or origin == upstream.origin() or _siblings(upstream, origin):
        return url
    raise BadAnswer(f"the upstream's token realm {origin} is on another host; auth_realms can allow it")


def check_redirect(upstream: URL, here: URL, location: str) -> URL:
    """Return where a redirect of *here* leads, byte for byte: signed URLs don't survive requoting.

    Raises:
        BadAnswer: It leaves https for http, isn't http at all, or points at a private address that the
            upstream isn't on itself.
    """
    try:
        url = here.join(URL(location, encoded=True))
        usable = url.scheme in {"http", "https"} and bool(url.host) and not url.user and not url.password
    except ValueError:
        usable = False
    if not usable:
        raise BadAnswer("the upstream redirects to something that is not a plain http(s) URL")
    if here.scheme == "https" and url.scheme == "http":
        raise BadAnswer(f"the upstream redirects from https to {url.origin()}")
    if url.host != upstream.host and _is_private(url.host or "") and not _is_reachable_from(upstream, url):
        raise BadAnswer(f"the upstream redirects to the private address {url.origin()}")
    return url


def passed_on(upstream: URL, here: URL, location: str) -> str:
    """Return a redirect of *here* as an absolute URL for a client to follow: where it has a scheme, as it came.

    A client is sent to no place that we wouldn't go to. Raises `BadAnswer` as `check_redirect` does.
    """
    target = check_redirect(upstream, here, location)
    if not (location and location.isascii() and location.isprintable()):
        raise BadAnswer("the upstream redirects to something that is not a plain http(s) URL")
    return location if URL(location, encoded=True).scheme else str(target)


def _siblings(upstream: URL, realm: URL) -> bool:
    """Whether both are https on the default port, under one registrable domain."""
    if (upstream.scheme, realm.scheme) != ("https", "https") or realm.port != 443:
        return False
    mine, theirs = _registrable(upstream.host or ""), _registrable(realm.host or "")
    return mine is not None and mine == theirs


def _registrable(host: str) -> str | None:
    """Return the registrable domain, or None for an address, a single word or a public suffix."""
    if _address(host) is not None:
        return None
    return _suffixes().privatesuffix(host.lower())


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(accept_unknown=False)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address as resolvers do: `127.1`, `0x7f000001` and `2130706433` are all loopback to them."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError):
        return None


def _is_private(host: str) -> bool:
    host = host.lower().removesuffix(".")
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return not mapped.is_global


def _is_reachable_from(upstream: URL, target: URL) -> bool:
    """An upstream that is on a private address itself may name another one, but never a link-local one."""
    address = _address((target.host or "").removesuffix("."))
    link_local = address is not None and (getattr(address, "ipv4_mapped", None) or address).is_link_local
    return _is_private(upstream.host or "") and not link_local
