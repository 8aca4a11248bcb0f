"""The image's health check: `python -m proxy.healthy FILE` asks the service beside it whether it answers.

It needs little but the standard library, and so a fraction of the time that the configuration takes when it is read as
the service does: a container may have a small part of a core, and is asked every half minute.
"""

from __future__ import annotations

import os
import ssl
import sys
import tomllib
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

_SECONDS: Final = 2.0
_DEFAULT: Final = "127.0.0.1:5081"
_YES: Final = ("1", "true", "t", "yes", "y", "on")


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Return 0 if the service answers, else 1. A file that `MANIFUSE_CONFIG` names counts instead of the argument."""
    host, port, secure = where(_document(Path(environ.get("MANIFUSE_CONFIG") or arguments[0])), environ)
    connection = (
        HTTPSConnection(host, port, timeout=_SECONDS, context=_ourselves())
        if secure
        else HTTPConnection(host, port, timeout=_SECONDS)
    )
    try:
        connection.request("GET", "/healthz")
        return int(connection.getresponse().status != 200)
    except (OSError, HTTPException):
        return 1
    finally:
        connection.close()


def where(document: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, int, bool]:
    """Return host and port of the admin port, and whether it speaks TLS, as the service itself would find them."""
    listen = environ.get("MANIFUSE_ADMIN_LISTEN") or document.get("admin_listen") or _DEFAULT
    host, _, port = str(listen).rpartition(":")
    tls = document.get("tls")
    written = tls.get("admin") if isinstance(tls, dict) else False
    secure = environ.get("MANIFUSE_TLS__ADMIN") or str(written)
    return _asked_at(host.removeprefix("[").removesuffix("]")), int(port), secure.lower() in _YES


def _asked_at(host: str) -> str:
    """Return where to ask a service that listens at *host*: on this machine, if it does so everywhere."""
    if not host:
        return "127.0.0.1"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    loopback = "127.0.0.1" if address.version == 4 else "::1"
    return loopback if address.is_unspecified else host


def _document(path: Path) -> dict[str, Any]:
    """Return what the file says; nothing where it can't be read: the service goes on by what it has read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _ourselves() -> ssl.SSLContext:
    """Return what takes any certificate: that of the service has the names by which clients call it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
