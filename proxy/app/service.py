"""The service: it listens, serves a site, and takes another one when the configuration is loaded anew."""

from __future__ import annotations

import resource
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from proxy.app.foundation import HOT_SHARE, PATIENCE, behind
from proxy.app.site import Site, build
from proxy.oci.registry import Served
from proxy.settings.keys import LimitSettings, Settings
from proxy.settings.load import SettingsInvalid
from proxy.siblings import Siblings
from proxy.store.disk import Folder
from proxy.store.upkeep import Upkeep
from proxy.telemetry import Accesses, AccessEvents, Metrics
from proxy.web.descriptors import Shortage
from proxy.web.distribution import Distribution
from proxy.web.gate import Gate
from proxy.web.generations import Generations
from proxy.web.limits import Limits
from proxy.web.request import House, always
from proxy.web.server import bind, is_loopback, listen
from proxy.web.status import Status
from proxy.web.table import Tables

if TYPE_CHECKING:
    from proxy.tls import Certificate

_FIXED: Final = (
    "listen",
    "admin_listen",
    "workers",
    "drain",
    "log_level",
    "trusted_proxies",
    "hot",
    "watch",
    "tls",
    "limits",
)  # read once, at the start

_ADMIN: Final = Limits(  # of the admin port: probes and operators are few
    connections=256, requests=64, header_max=16 * 1024, header_fields=64, head_timeout=10.0, body_timeout=10.0
)
_SPARED: Final = 4  # of so many files that the process may open, one isn't taken by a client's connection

_log: Final = structlog.get_logger("app")


@dataclass(frozen=True, slots=True)
class Work:
    """What a process is given that is one of several workers.

    Attributes:
        registry, admin: Sockets to listen on, bound already.
        siblings: The others.
        secret: Signs uploads, the same for all of them.
    """

    registry: socket.socket
    admin: socket.socket
    siblings: Siblings
    secret: bytes


class Running:
    """A service that listens: where, and what it serves."""

    def __init__(
        self,
        settings: Settings,
        generations: Generations[Site],
        rebuild: Callable[[Settings], AbstractAsyncContextManager[Site]],
        registry: tuple[str, int],
        admin: tuple[str, int],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._generations = generations
        self._rebuild = rebuild
        self._metrics = metrics
        self.registry = registry
        self.admin = admin

    @property
    def site(self) -> Site:
        """What is served now."""
        return self._generations.present

    async def reload(self, load: Callable[[], Settings]) -> None:
        """Serve by a new configuration from the next request on; requests in flight end by the old one.

        A bad configuration is refused in the words of `check`, and the old one stays.
        """
        try:
            settings = load()
            before = self._generations.present
            await self._generations.replace(self._rebuild(settings))
            before.retire()
        except SettingsInvalid as invalid:
            self._metrics.reloads.labels("refused").inc()
            _log.error("configuration refused, the old one stays", problems=[str(p) for p in invalid.problems])
            return
        except Exception:  # noqa: BLE001 - or a bug of ours would be the last of all reloads
            self._metrics.reloads.labels("refused").inc()
            _log.exception("configuration can't be loaded, the old one stays")
            return
        for key in _FIXED:
            if getattr(settings, key) != getattr(self._settings, key):
                _log.warning("this key needs a restart", key=key)
        self._metrics.reloads.labels("taken").inc()
        _log.info("configuration loaded", upstreams=[u.name for u in settings.upstream], rules=len(settings.rule))


@asynccontextmanager
async def serve(
    settings: Settings,
    clock: Callable[[], float] = time.time,
    ticks: Callable[[], float] = time.monotonic,
    work: Work | None = None,
    accesses: Accesses | None = None,
) -> AsyncIterator[Running]:
    """Serve both ports while the block runs, then let requests in flight finish.

    Args:
        clock: Seconds since the epoch.
        ticks: Seconds that never go backwards.
        work: What this process is given as one of several workers.
        accesses: Where requests are logged; without it they are events like any other.

    Raises:
        SettingsInvalid: As `build` does.
        OSError: An address can't be listened on.
    """
    Folder(settings.cache.dir).sweep()
    metrics = Metrics()
    secret = work.secret if work else secrets.token_bytes(32)  # uploads go on when the configuration is loaded anew
    siblings = work.siblings if work else None
    upkeep = Upkeep(clock, ticks)
    ready = False

    def rebuild(changed: Settings) -> AbstractAsyncContextManager[Site]:
        return build(changed, clock, metrics, ticks, secret, siblings, upkeep)

    @contextmanager
    def house() -> Iterator[House]:
        with generations.borrow() as site:
            yield site.house

    async with Generations[Site]() as generations:
        await generations.replace(rebuild(settings))
        certificate = _certificate(settings)
        places = (work.registry, work.admin) if work else (settings.listen, settings.admin_listen)
        certified = settings.tls.admin and settings.tls.client_auth == "required"
        status = Status(metrics, lambda: ready, generations.borrow, local=is_loopback(places[1]), certified=certified)
        if not is_loopback(places[1]) and generations.present.token is None:
            _log.warning("the admin port is not on loopback and has no admin_token: it answers probes alone")
        accesses = accesses or AccessEvents()
        gate = Gate(_limits(settings.limits), metrics, settings.trusted_proxies, ticks)
        registry = Distribution(house, metrics, settings.trusted_proxies, accesses=accesses, gate=gate)
        hot = settings.cache.memory // HOT_SHARE
        patience, coalesced = settings.request_budget / PATIENCE, metrics.coalesced.inc
        trusted = settings.trusted_proxies
        tables = Tables(hot, clock, trusted, patience=patience, coalesced=coalesced) if settings.hot else None

        async def hear(message: bytes) -> None:
            with generations.borrow() as site:
                await site.changes.heard(message)

        async with (
            siblings.listening(hear) if siblings else nullcontext(),
            behind(
                certificate.watch() if certificate else Shortage().watch()
            ),  # TLS takes connections itself, and tells
            listen(
                status.handle,
                places[1],
                drain=1.0,
                gate=Gate(_ADMIN),
                tls=certificate.admin if certificate and settings.tls.admin else None,
            ) as admin,
            listen(
                registry.handle, places[0], drain=settings.drain, tables=tables, gate=gate, tls=certificate
            ) as address,
        ):
            ready = True
            yield Running(settings, generations, rebuild, address, admin, metrics)
            ready = False
            upkeep.stop()
        accesses.settle()
        metrics.settle()


def bound(address: tuple[str, int], count: int) -> list[socket.socket]:
    """Bind *count* sockets to one address; port 0 means one free port for all.

    Raises `OSError`, also where another service has sockets there that it would share with us.
    """
    bind(address).close()
    first = bind(address, shared=True)
    port = first.getsockname()[1]
    return [first, *(bind((address[0], port), shared=True) for _ in range(count - 1))]


@asynccontextmanager
async def serve_registry(registry: Served, address: tuple[str, int]) -> AsyncIterator[tuple[str, int]]:
    """Serve any registry on *address*, without an admin port: the demo's upstream. Yields where."""
    async with listen(Distribution(always(registry), Metrics()).handle, address, drain=1.0) as listening:
        yield listening


def _certificate(settings: Settings) -> Certificate | None:
    """Return what handshakes are made with; None without TLS. Raises `SettingsInvalid`."""
    if settings.tls.certificate is None:
        return None
    from proxy.tls import Certificate  # noqa: PLC0415 - memory that most don't need

    return Certificate(settings.tls)


def _limits(settings: LimitSettings) -> Limits:
    """Return the registry port's limits: connections at most as files can be opened, and some left for the rest."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    can = max(1, files - files // _SPARED) if files != resource.RLIM_INFINITY else settings.connections
    return Limits(
        connections=min(settings.connections, can),
        connections_per_client=settings.connections_per_client,
        requests=settings.requests,
        requests_per_client=settings.requests_per_client,
        streams_per_client=settings.streams_per_client,
        rate=settings.rate or 0.0,
        burst=settings.burst,
        upload_max=settings.upload_max,
        manifests_max=settings.manifests_max,
        header_max=settings.header_max,
        header_fields=settings.header_fields,
        head_timeout=settings.head_timeout,
        idle_timeout=settings.idle_timeout,
        body_timeout=settings.body_timeout,
        send_timeout=settings.send_timeout,
    )
