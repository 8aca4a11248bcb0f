"""Errors on the wire: the one place where a `RegistryError` becomes bytes."""

from __future__ import annotations

import re
from typing import Final

import orjson
from aiohttp import web

from proxy.oci.errors import RangeInvalid, RegistryError, Unauthorized, Unsupported

_MAX_MESSAGE: Final = 1000  # characters; longer ones repeat what an upstream sent
_RETRY_AFTER: Final = re.compile(r"[ -~]{1,64}", re.ASCII)  # seconds or a date, as far as a header is concerned


def respond(error: RegistryError) -> web.Response:
    """Write *error* as the specification's JSON: a non-empty `errors`, and the bare type, which docker insists on."""
    body = orjson.dumps({"errors": [{"code": error.code, "message": _sendable(error.message), "detail": None}]})
    response = web.Response(status=error.status, body=body, headers={"Content-Type": "application/json"})
    if error.retry_after is not None and _RETRY_AFTER.fullmatch(error.retry_after):
        response.headers["Retry-After"] = error.retry_after
    if isinstance(error, Unsupported):
        response.headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, Unauthorized) and error.challenge:
        response.headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, RangeInvalid) and error.size is not None:
        response.headers["Content-Range"] = f"bytes */{error.size}"
    return response


def _sendable(message: str) -> str:
    """Return *message* as JSON can hold it: aiohttp turns bytes of headers that aren't UTF-8 into surrogates."""
    text = message if len(message) <= _MAX_MESSAGE else message[: _MAX_MESSAGE - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()
