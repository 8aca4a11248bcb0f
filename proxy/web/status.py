"""The admin port: health, readiness, metrics, explanations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from aiohttp import web

from proxy.oci.errors import NotFound, RegistryError, Unsupported
from proxy.telemetry import METRICS_TYPE, Metrics
from proxy.web.failures import respond

_EXPLAIN: Final = "/explain/"
_PAGES: Final = "/healthz, /readyz, /metrics and /explain/<repository>:<tag>"

Explain = Callable[[str], Awaitable[object]]


class NoSuchPage(NotFound):
    """The path isn't one of the admin port's."""


class Status:
    """Pages for operators and their tools."""

    def __init__(self, metrics: Metrics, ready: Callable[[], bool], explain: Explain) -> None:
        """Take what is needed.

        Args:
            ready: Whether the registry port is listening; never the upstreams' health, or one broken registry
                would take every replica out of service.
            explain: Explains an image by its name, as something JSON can hold. Raises `RegistryError`.
        """
        self._metrics = metrics
        self._ready = ready
        self._explain = explain

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            if request.method not in ("GET", "HEAD"):
                raise Unsupported("the admin port answers GET and HEAD")
            return await self._page(request.rel_url.path)
        except RegistryError as error:
            return respond(error)

    async def _page(self, path: str) -> web.Response:
        match path:
            case "/healthz":
                return web.Response(text="ok\n")
            case "/readyz":
                ready = self._ready()
                return web.Response(status=200 if ready else 503, text="ready\n" if ready else "not ready\n")
            case "/metrics":
                return web.Response(body=self._metrics.render(), headers={"Content-Type": METRICS_TYPE})
            case _ if path.startswith(_EXPLAIN):
                found = await self._explain(path.removeprefix(_EXPLAIN))
                body = orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
                return web.Response(body=body, headers={"Content-Type": "application/json"})
        raise NoSuchPage(f"the admin port has {_PAGES}")
