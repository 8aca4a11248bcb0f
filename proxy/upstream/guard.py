"""Where an upstream may send us, and with what. The upstream's own words never pick a target freely (law 10)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from typing import Final

from publicsuffixlist import PublicSuffixList
from yarl import URL

from proxy.oci.errors import BadAnswer
from proxy.upstream.addresses import Reach, parse, reach, reach_of_host

MAX_REDIRECTS: Final = 5

Places = frozenset[tuple[str, int | None]]
"""Hosts in small letters, each with a port, or with None for all of them."""


class Bounds:
    """Where one upstream may send us: what it says is checked, and what the names in it stand for.

    An upstream that is on a private address may name its neighbours, and one on loopback others there. What the
    address of an upstream is that goes by a name shows when it is resolved; who was seen on a public address once is
    never believed to be a neighbour, so that it can't become one by changing what its name stands for.
    """

    def __init__(self, upstream: URL, realms: Collection[str] = (), hosts: Collection[str] = ()) -> None:
        """Take what the operator has said.

        Args:
            realms: Origins such as `https://gitlab.example`, or bare host names, that token realms may have.
            hosts: The same of redirects that may lead to a private address.
        """
        self._upstream = upstream
        self._realms = realms
        self._trusted = _places([str(upstream), *realms])
        self._allowed = _places(hosts)
        self._home = reach_of_host(upstream.host or "")
        self._named = self._home is None

    def realm(self, realm: str) -> URL:
        """Check a token realm. Raises `BadAnswer`."""
        return check_realm(self._upstream, realm, self._realms)

    def redirect(self, here: URL, location: str) -> URL:
        """Check a redirect of *here*. Raises `BadAnswer`."""
        return check_redirect(self._upstream, here, location, self._home, self._allowed)

    def passed_on(self, here: URL, location: str) -> str:
        """Check a redirect that a client is to follow. Raises `BadAnswer`."""
        return passed_on(self._upstream, here, location, self._home, self._allowed)

    def trusts(self, url: URL) -> bool:
        """Whether this is the upstream itself or a token service that the operator has named."""
        return _is_among(self._trusted, url.host, url.port)

    def check_addresses(self, host: str, port: int, addresses: Iterable[str]) -> None:
        """Check all *addresses* of a name before any of them is connected to.

        What the operator has named is connected to wherever it is. Raises `BadAnswer`.
        """
        host = host.lower().removesuffix(".")
        found = [Reach.NOWHERE if (address := parse(each)) is None else reach(address) for each in addresses]
        if self._named and host == self._upstream.host and found:
            self._home = min(found) if self._home is None else min(self._home, *found)
        if not found or _is_among(self._trusted, host, port):
            return
        home = Reach.LOOPBACK if _is_among(self._allowed, host, port) else self._home
        if not _may_lead_to(max(found), home):
            advice = "" if max(found) is Reach.NOWHERE else "; redirect_hosts can allow it"
            raise BadAnswer(f"{host}:{port}, where the upstream sends us, is at a private address{advice}")


def check_realm(upstream: URL, realm: str, allowed: Collection[str]) -> URL:
    """Return a token *realm* as a URL that credentials for *upstream* may be sent to.

    Allowed are the upstream's own origin, a host of the same registrable domain over https on the default
    port (`auth.docker.io` for `registry-1.docker.io`), and what the operator listed. The rule is
    distribution's after CVE-2026-33540, and stricter on ports.

    Args:
        allowed: Origins such as `https://gitlab.example` or bare host names of the configuration.

    Raises:
        BadAnswer: It is plain http where the upstream isn't, or somewhere else; then the sentence names the key
            that would allow it.
    """
    try:
        url = URL(realm)
        usable = url.scheme in {"http", "https"} and bool(url.host) and not url.user and not url.password
    except (ValueError, IndexError):  # yarl's own, for hosts such as []@
        usable = False
    if not usable:
        raise BadAnswer("the upstream's token realm is not a plain http(s) URL")
    origin = url.origin()
    if upstream.scheme == "https" and origin.scheme == "http":
        raise BadAnswer(f"the upstream's token realm {origin} is plain http, which it is not itself")
    listed = str(origin) in allowed or (origin.scheme == "https" and origin.host in allowed)
    if listed or origin == upstream.origin() or _siblings(upstream, origin):
        return url
    raise BadAnswer(f"the upstream's token realm {origin} is on another host; auth_realms can allow it")


def check_redirect(
    upstream: URL, here: URL, location: str, home: Reach | None = None, allowed: Places = frozenset()
) -> URL:
    """Return where a redirect of *here* leads, byte for byte: signed URLs don't survive requoting.

    Args:
        home: How far the upstream's own address reaches, where its URL doesn't show it.
        allowed: Where it may lead although that is private.

    Raises:
        BadAnswer: It leaves https for http, isn't http at all, or points at a private address that the
            upstream isn't on itself.
    """
    try:
        url = here.join(URL(location, encoded=True))
        usable = url.scheme in {"http", "https"} and bool(url.host) and not url.user and not url.password
    except (ValueError, IndexError):  # yarl's own, for hosts such as []@
        usable = False
    if not usable:
        raise BadAnswer("the upstream redirects to something that is not a plain http(s) URL")
    if "https" in (here.scheme, upstream.scheme) and url.scheme == "http":
        raise BadAnswer(f"the upstream redirects from https to {url.origin()}")
    target = reach_of_host(url.host or "") or Reach.PUBLIC  # a name is checked when it is resolved
    home = reach_of_host(upstream.host or "") if home is None else home
    if _is_among(allowed, url.host, url.port):
        home = Reach.LOOPBACK
    if url.origin() != upstream.origin() and not _may_lead_to(target, home):
        advice = "" if target is Reach.NOWHERE else "; redirect_hosts can allow it"
        raise BadAnswer(f"the upstream redirects to the private address {url.origin()}{advice}")
    return url


def passed_on(upstream: URL, here: URL, location: str, home: Reach | None = None, allowed: Places = frozenset()) -> str:
    """Return a redirect of *here* as an absolute URL for a client to follow: where it has a scheme, as it came.

    A client is sent to no place that we wouldn't go to. Raises `BadAnswer` as `check_redirect` does.
    """
    target = check_redirect(upstream, here, location, home, allowed)
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
    if parse(host) is not None:
        return None
    return _suffixes().privatesuffix(host.lower())


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(accept_unknown=False)


def _may_lead_to(target: Reach, home: Reach | None) -> bool:
    """Whether somebody at *home* may send us to *target*: not further in than it is itself."""
    return target is Reach.PUBLIC or (target is not Reach.NOWHERE and home in (target, Reach.LOOPBACK))


def _places(named: Iterable[str]) -> Places:
    return frozenset(place for each in named if (place := _place(each)) is not None)


def _is_among(places: Places, host: str | None, port: int | None) -> bool:
    host = (host or "").lower().removesuffix(".")
    return (host, port) in places or (host, None) in places


def _place(named: str) -> tuple[str, int | None] | None:
    """Return host and port of an origin, or a host and None for all of its ports; None for what is neither."""
    try:
        url = URL(named if "://" in named else f"https://{named}")
    except ValueError:
        return None
    return (url.host.removesuffix("."), url.port if "://" in named else url.explicit_port) if url.host else None
