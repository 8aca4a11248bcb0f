"""The registry API: a path becomes an endpoint, the endpoint one of a registry's reads, the answer a response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
from aiohttp import web

from proxy.oci.access import EVERYBODY, Action, Caller
from proxy.oci.endpoint import (
    BlobAt,
    Catalog,
    Endpoint,
    ManifestAt,
    Ping,
    ReferrersOf,
    TagsOf,
    UploadAt,
    parse,
)
from proxy.oci.errors import Invalid, NoAnswer, RegistryError, Unsupported
from proxy.telemetry import Access, Accesses, AccessEvents, Metrics
from proxy.web import blobs, lists, manifests, pushes
from proxy.web.failures import respond
from proxy.web.forwarded import Networks, origin
from proxy.web.gate import Gate
from proxy.web.limits import Limits
from proxy.web.request import ALWAYS, Borrow, Knock, Request
from proxy.web.table import Leased, Record

_METHODS: Final = pushes.METHODS | {"GET", "HEAD"}

_log: Final = structlog.get_logger("web")


class Distribution:
    """Serves registries over the distribution API."""

    def __init__(
        self,
        borrow: Borrow,
        metrics: Metrics,
        trusted: Networks = (),
        clock: Callable[[], float] = time.perf_counter,
        accesses: Accesses | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Take what is needed.

        Args:
            trusted: Networks of reverse proxies whose `X-Forwarded-…` counts.
            accesses: Where requests are logged; without it they are events like any other.
            gate: Limits bodies, and how long a client may take nothing of an answer.
        """
        self._borrow = borrow
        self._metrics = metrics
        self._trusted = trusted
        self._clock = clock
        self._accesses = accesses or AccessEvents()
        self._gate = gate or Gate(Limits())

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, count it and log it. An error of ours is a 500 with its trace in the log."""
        began = self._clock()
        route, caller = "none", EVERYBODY
        try:
            self._check_method(http)
            target = parse(http.rel_url.raw_path)
            route = _route(target.endpoint)
            namespaces = tuple(http.rel_url.query.getall("ns", ()))
            repository = None if isinstance(target.endpoint, Ping | Catalog) else target.endpoint.repository
            here = origin(http, self._trusted)
            client = self._gate.asking(http, self._gate.client(http.remote))
            knock = Knock(_authorization(http), here.host, namespaces, target.prefix, repository, client)
            with self._borrow() as house:
                async with house.admit(knock) as admission:
                    caller, action = admission.caller, _action(http.method, target.endpoint)
                    request = Request(
                        http, caller, admission.directory, action, target.prefix, namespaces, here, self._gate
                    )
                    request.identify(repository)
                    response = await self._answer(request, target.endpoint)
        except RegistryError as error:
            response = respond(error)
            if isinstance(error, NoAnswer) and not error.told:
                error.told = True
                _log.warning("no answer", path=http.rel_url.raw_path, status=error.status, reason=error.message)
        except ConnectionError:
            raise  # the client left; there is nobody to answer
        except Exception:  # noqa: BLE001 - a bug of ours is told as one, and never in a trace sent to a client
            _log.exception("internal error", path=http.rel_url.raw_path)
            response = respond(RegistryError("internal error; the log has the details"))
        response.headers.update(ALWAYS)
        self._record(http, response, route, caller, self._clock() - began)
        return response

    async def _answer(self, request: Request, endpoint: Endpoint) -> web.StreamResponse:
        if request.http.method in pushes.METHODS:
            return await pushes.write(request, endpoint)
        match endpoint:
            case Ping():
                request.directory.check(request.namespaces, request.prefix)
                return request.json(b"{}")
            case ManifestAt():
                return await manifests.manifest(request, endpoint)
            case BlobAt():
                return await blobs.blob(request, endpoint)
            case TagsOf():
                return await lists.tags(request, endpoint)
            case ReferrersOf():
                return await lists.referrers(request, endpoint)
            case Catalog():
                return await lists.catalog(request, endpoint)
            case UploadAt():
                return await pushes.write(request, endpoint)  # how far it has come

    def _check_method(self, http: web.BaseRequest) -> None:
        if http.method not in _METHODS:
            raise Unsupported(f"{http.method[:20]} is not allowed here: GET and HEAD are")

    def _record(
        self, http: web.BaseRequest, response: web.StreamResponse, route: str, caller: Caller, seconds: float
    ) -> None:
        method = http.method if http.method in _METHODS else "other"
        cache = response.headers.get("X-Manifuse-Cache", "none")
        labels = (route, method, str(response.status), cache)
        access = Access(
            method=http.method,
            path=_asked(http),
            status=response.status,
            bytes=response.content_length or 0,
            ms=round(seconds * 1000, 1),
            cache=cache,
            agent=http.headers.get("User-Agent", "")[:200],
            user=caller.name,
        )
        self._metrics.requests.labels(*labels).inc()
        # The client has its answer first: aiohttp writes it before the loop comes to this.
        asyncio.get_running_loop().call_soon(self._accesses.log, access, http.remote)
        if isinstance(response, Leased) and response.lease is not None:
            response.guard = caller.lease
            response.record = partial(self._again, access, labels, response.again.get("X-Manifuse-Cache", cache))

    def _again(self, access: Access, labels: tuple[str, str, str, str], cache: str) -> Record:
        """Return how the same answer is counted and logged when it is given again."""
        again = self._accesses.again(replace(access, ms=0.0, cache=cache))
        return Record(self._metrics.tally(*labels[:-1], cache), again)


def _asked(http: web.BaseRequest) -> str:
    """Return the path for the log, with the registry that a mirror's client means: a wrong one is why it gets a 404."""
    named = [part for part in http.rel_url.raw_query_string.split("&") if part.startswith("ns=")]
    return f"{http.rel_url.raw_path}?{'&'.join(named)}" if named else http.rel_url.raw_path


def _authorization(http: web.BaseRequest) -> str | None:
    """Return what a client says of itself. Two of it could mean one thing here and another behind."""
    found = http.headers.getall("Authorization", ())
    if len(found) > 1:
        raise Invalid("the request has several Authorization headers")
    return found[0] if found else None


def _action(method: str, endpoint: Endpoint) -> Action:
    """Say what a request does: asking how far an upload has come is part of a push."""
    if method == "DELETE" and not isinstance(endpoint, UploadAt):
        return Action.DELETE
    if method in ("GET", "HEAD") and not isinstance(endpoint, UploadAt):
        return Action.PULL
    return Action.PUSH


def _route(endpoint: Endpoint) -> str:
    names: dict[type[Endpoint], str] = {
        Ping: "ping",
        ManifestAt: "manifest",
        BlobAt: "blob",
        TagsOf: "tags",
        ReferrersOf: "referrers",
        UploadAt: "upload",
        Catalog: "catalog",
    }
    return names[type(endpoint)]
