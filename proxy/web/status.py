"""The admin port: health, readiness, metrics, explanations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol

import orjson
from aiohttp import web

from proxy.oci.errors import NotFound, RegistryError, Unsupported
from proxy.telemetry import METRICS_TYPE, Metrics
from proxy.web.failures import respond
from proxy.web.hooks import Hooks

_EXPLAIN: Final = "/explain/"
_HOOKS: Final = "/hooks/"
_PAGES: Final = "/healthz, /readyz, /metrics, /explain/<repository>:<tag> and /hooks/<upstream>"


class Operated(Protocol):
    """What operators ask and notify."""

    @property
    def hooks(self) -> Hooks:
        """Takes notifications."""
        ...

    async def explain(self, image: str) -> object:
        """Say why *image* is what it is, as something JSON can hold. Raises `RegistryError`."""
        ...


class NoSuchPage(NotFound):
    """The path isn't one of the admin port's."""


class Status:
    """Pages for operators and their tools."""

    def __init__(
        self, metrics: Metrics, ready: Callable[[], bool], borrow: Callable[[], AbstractContextManager[Operated]]
    ) -> None:
        """Take what is needed.

        Args:
            ready: Whether the registry port is listening; never the upstreams' health, or one broken registry
                would take every replica out of service.
            borrow: Lends what is operated for one request.
        """
        self._metrics = metrics
        self._ready = ready
        self._borrow = borrow

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            path = request.rel_url.path
            if path.startswith(_HOOKS):
                with self._borrow() as operated:
                    return await operated.hooks.handle(request, path.removeprefix(_HOOKS))
            if request.method not in ("GET", "HEAD"):
                raise Unsupported("the admin port answers GET and HEAD")
            return await self._page(path)
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
                with self._borrow() as operated:
                    found = await operated.explain(path.removeprefix(_EXPLAIN))
                body = orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
                return web.Response(body=body, headers={"Content-Type": "application/json"})
        raise NoSuchPage(f"the admin port has {_PAGES}")
