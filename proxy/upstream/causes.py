"""aiohttp's errors in our words, naming the real cause: DNS, TLS, refused, broken off, not HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from yarl import URL

from proxy.oci.errors import BadAnswer, NoAnswer, TimedOut, Unreachable
from proxy.upstream.retry import NotConnected


@contextmanager
def translated(name: str, url: URL) -> Iterator[None]:
    """Turn what goes wrong while the upstream *name* at *url* is asked into `NoAnswer`."""
    place = f"{name} ({url.authority})"
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise NotConnected(f"{place}: no connection in time") from None
    except aiohttp.ServerTimeoutError as error:
        raise TimedOut(f"{name} was silent for too long ({type(error).__name__})") from None
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise _cause(place, error) from None
    except UnicodeError:  # a resolver's, for labels of more than 63 characters, and what isn't text
        raise Unreachable(f"{name}: a host name that it sends us to can't be resolved") from None


def _cause(place: str, error: Exception) -> NoAnswer:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Unreachable(f"{place}: the host name can't be resolved")
        case aiohttp.ClientConnectorCertificateError():
            return Unreachable(f"{place}: the TLS certificate is not trusted: {_distrust(error.certificate_error)}")
        case aiohttp.ClientSSLError():
            return Unreachable(f"{place}: TLS failed: {_failure(error)}")
        case aiohttp.ClientConnectorError():
            return Unreachable(f"{place}: no connection: {_reason(error.os_error)}")
        case aiohttp.ServerDisconnectedError():
            return Unreachable(f"{place} closed the connection without an answer")
        case aiohttp.ClientPayloadError() | OSError():
            return Unreachable(f"{place} broke off in the middle of an answer")
        case aiohttp.ClientResponseError():
            return BadAnswer(f"{place} doesn't speak proper HTTP: {error.message[:120]}")
        case _:
            return BadAnswer(f"{place}: {type(error).__name__}")


def _distrust(error: Exception) -> str:
    """Say what is wrong with a certificate in OpenSSL's words, without where in its code they come from."""
    return str(getattr(error, "verify_message", None) or error)


def _failure(error: aiohttp.ClientSSLError) -> str:
    """Say why there is no TLS. OpenSSL takes whatever a plain port answers for a version that it doesn't know."""
    reason = str(getattr(error.os_error, "reason", None) or error)
    if reason == "WRONG_VERSION_NUMBER":
        return "none is spoken there; the URL of a plain port begins with http://"
    return reason.replace("_", " ").lower()


def _reason(error: OSError) -> str:
    """Say why in the system's words: asyncio's own name the address instead."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
