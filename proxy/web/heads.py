"""What aiohttp lets pass and we don't: heads whose meaning a proxy in front of us might see otherwise."""

from __future__ import annotations

from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, web

from proxy.oci.errors import Invalid, RegistryError
from proxy.web.forwarded import is_host

_HTTP: Final = ("http", "https")


class BadRequest(Invalid):
    """What came isn't HTTP, or not in one way alone."""


class WrongVersion(RegistryError):
    """Another HTTP is spoken than 1.0 and 1.1."""

    code = "UNSUPPORTED"
    status = 505


class UnknownCoding(RegistryError):
    """A body is sent in a transfer coding beside `chunked`."""

    code = "UNSUPPORTED"
    status = 501


def check(request: web.BaseRequest) -> None:
    """Refuse what has two readings. Raises `BadRequest`, `WrongVersion` or `UnknownCoding`.

    `Host` says which registry is meant, so it has to be a host, and the target's (RFC 9112, 3.2). A body's end is
    told by its length or by `chunked` alone, and by the latter not in HTTP/1.0 (6.1).
    """
    if request.version not in (HttpVersion10, HttpVersion11):
        raise WrongVersion("HTTP/1.1 and HTTP/1.0 are spoken")
    host = request.headers.get("Host")
    if host is not None and not is_host(host):
        raise BadRequest("the Host header is not a host")
    if not _is_of(request.raw_path, host or "", request.method):
        raise BadRequest("the target of the request is not a path, or names another host than the Host header")
    coding = request.headers.get("Transfer-Encoding")
    if coding is None:
        return
    if request.version == HttpVersion10:
        raise BadRequest("HTTP/1.0 has no Transfer-Encoding")
    if coding.strip().lower() != "chunked":
        raise UnknownCoding("of transfer codings chunked is known")


def _is_of(target: str, host: str, method: str) -> bool:
    """Whether *target* is a path, or an address on *host*; other methods' own forms are refused with the method."""
    if target.startswith("/") or method in ("OPTIONS", "CONNECT"):
        return True
    scheme, _, rest = target.partition("://")
    return scheme.lower() in _HTTP and rest.partition("/")[0].lower() == host.lower()
