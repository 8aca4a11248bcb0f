"""The admin port: an overview, health, readiness, metrics, explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from ipaddress import ip_address
from typing import Final, Protocol

import orjson
from aiohttp import web

from proxy.oci.errors import Denied, NotFound, RegistryError, Unsupported
from proxy.telemetry import METRICS_TYPE, Metrics
from proxy.web.failures import respond
from proxy.web.hooks import Hooks
from proxy.web.overview import Overview, page
from proxy.web.token import AdminUnauthorized, Token

_EXPLAIN: Final = "/explain/"
_HOOKS: Final = "/hooks/"
_PROBES: Final = ("/healthz", "/readyz")  # open to everybody: what probes has no token, and they say one word
_PAGES: Final = "/, /healthz, /readyz, /metrics, /explain/<repository>:<tag> and /hooks/<upstream>"


class Operated(Protocol):
    """What operators ask and notify."""

    @property
    def hooks(self) -> Hooks:
        """Takes notifications."""
        ...

    @property
    def token(self) -> Token | None:
        """What all pages but the probes' want, None where no token is configured."""
        ...

    @property
    def overview(self) -> Overview:
        """What is served."""
        ...

    async def explain(self, image: str) -> object:
        """Say why *image* is what it is, as something JSON can hold. Raises `RegistryError`."""
        ...


class NoSuchPage(NotFound):
    """The path isn't one of the admin port's."""


class WrongName(Denied):
    """The request is for a name that anybody may have given to this machine."""


class NoCertificate(Denied):
    """A client certificate is required, and none was shown."""


class Status:
    """Pages for operators and their tools."""

    def __init__(
        self,
        metrics: Metrics,
        ready: Callable[[], bool],
        borrow: Callable[[], AbstractContextManager[Operated]],
        *,
        local: bool = True,
        certified: bool = False,
    ) -> None:
        """Take what is needed.

        Args:
            ready: Whether the registry port is listening; never the upstreams' health, or one broken registry
                would take every replica out of service.
            borrow: Lends what is operated for one request.
            local: Whether only this machine reaches the port; if others do, nothing is shown without a token.
            certified: Whether all but probes have to show a certificate. One that was shown is valid.
        """
        self._metrics = metrics
        self._ready = ready
        self._borrow = borrow
        self._local = local
        self._certified = certified

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            path = request.rel_url.path
            if self._certified and path not in _PROBES and not request.get_extra_info("peercert"):
                raise NoCertificate("without a client certificate only /healthz and /readyz are shown")
            if path.startswith(_HOOKS):
                with self._borrow() as operated:
                    return await operated.hooks.handle(request, path.removeprefix(_HOOKS))
            if request.method not in ("GET", "HEAD"):
                raise Unsupported("the admin port answers GET and HEAD")
            if path not in _PROBES:
                self._check(request.headers)
            return await self._page(path)
        except RegistryError as error:
            response = respond(error)
            if isinstance(error, AdminUnauthorized):
                response.headers["WWW-Authenticate"] = 'Bearer realm="manifuse admin"'
            return response

    def _check(self, headers: Mapping[str, str]) -> None:
        """Raise `AdminUnauthorized` or `WrongName` unless the pages may be seen. Hooks have a secret of their own."""
        with self._borrow() as operated:
            token = operated.token
        if token is not None:
            token.check(headers.get("Authorization", ""))
        elif not self._local:
            raise AdminUnauthorized(
                "the admin port is not on loopback and has no admin_token: only /healthz and /readyz are shown"
            )
        elif not _is_ours(headers.get("Host", "")):
            raise WrongName("without an admin_token the admin port is asked as localhost or by its address")

    async def _page(self, path: str) -> web.Response:
        match path:
            case "/":
                with self._borrow() as operated:
                    overview = operated.overview
                text = page(overview, self._metrics.samples(), ready=self._ready())
                return web.Response(text=text, headers={"Cache-Control": "no-store"})
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


def _is_ours(host: str) -> bool:
    """Whether *host*, which every browser sends, is an address or localhost.

    A web page can't read another origin's pages, but whoever answers for its name may say that it is 127.0.0.1 now.
    """
    name = host.rpartition("]")[0].removeprefix("[") or host.partition(":")[0]
    try:
        ip_address(name)
    except ValueError:
        return name.lower() in ("localhost", "")
    return True
