"""Errors on the wire: the one place where a `RegistryError` becomes bytes."""

from __future__ import annotations

import orjson
from aiohttp import web

from proxy.oci.errors import RangeInvalid, RegistryError, Unsupported


def respond(error: RegistryError) -> web.Response:
    """Write *error* as the specification's JSON: a non-empty `errors`, and the bare type, which docker insists on."""
    body = orjson.dumps({"errors": [{"code": error.code, "message": error.message, "detail": None}]})
    response = web.Response(status=error.status, body=body, headers={"Content-Type": "application/json"})
    if error.retry_after is not None:
        response.headers["Retry-After"] = error.retry_after
    if isinstance(error, Unsupported):
        response.headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, RangeInvalid) and error.size is not None:
        response.headers["Content-Range"] = f"bytes */{error.size}"
    return response
