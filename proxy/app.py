"""The composition root: settings in, a running service out. The only place that constructs."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import structlog

from proxy.files import Files
from proxy.files import read as read_files
from proxy.merge.explain import Explanation
from proxy.merge.publication import Publication
from proxy.merge.route import Address
from proxy.oci.content import Manifest
from proxy.oci.errors import Invalid
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, Tag, parse_image
from proxy.oci.registry import Served
from proxy.settings.keys import Settings, UpstreamSettings
from proxy.settings.load import SettingsInvalid
from proxy.siblings import Siblings
from proxy.store.base import Content, Metadata, Virtual
from proxy.store.behind import Behind
from proxy.store.disk import DiskContent, DiskMetadata, Folder
from proxy.store.history import Pruner, Uses, noting
from proxy.store.memory import LruMemory, MemoryContent, MemoryMetadata, Shared
from proxy.store.shelf import Shelf
from proxy.store.spool import Spool
from proxy.store.tiered import TieredContent, TieredMetadata
from proxy.store.turns import FileTurns
from proxy.telemetry import Accesses, AccessEvents, Metrics
from proxy.upstream.auth import Authorizer
from proxy.upstream.client import Upstream
from proxy.upstream.retry import Retries
from proxy.upstream.transport import Limits, Transport
from proxy.virtual import modes
from proxy.virtual.blobs import Blobs
from proxy.virtual.budget import Budget
from proxy.virtual.catalogs import Catalogs
from proxy.virtual.changes import Changes, nobody
from proxy.virtual.digests import Digests
from proxy.virtual.history import History
from proxy.virtual.leases import Leases
from proxy.virtual.lists import Lists
from proxy.virtual.manifests import Manifests
from proxy.virtual.modes import Opening
from proxy.virtual.places import Places
from proxy.virtual.publish import Publisher
from proxy.virtual.pushes import Pushes
from proxy.virtual.referrers import Referrers
from proxy.virtual.registry import Directory, Parts, VirtualRegistry
from proxy.virtual.standing import Standing
from proxy.virtual.tags import Tags
from proxy.web.distribution import Distribution
from proxy.web.generations import Generations
from proxy.web.hooks import Hooks
from proxy.web.hot import Tables
from proxy.web.request import always
from proxy.web.server import bind, listen
from proxy.web.status import Status

_FIXED: Final = (
    "listen",
    "admin_listen",
    "drain",
    "log_level",
    "trusted_proxies",
    "hot",
    "watch",
)  # read once, at the start

_HOT_SHARE: Final = 8  # hot answers may take this part of `cache.memory`

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


@dataclass(frozen=True, slots=True)
class Site:
    """The virtual registries of all upstreams, not yet listening."""

    directory: Directory
    hooks: Hooks
    publisher: Publisher
    changes: Changes
    leases: Leases

    async def explain(self, image: str) -> Explanation:
        """Say why *image* is what it is. Raises `RegistryError`."""
        repository, reference = parse_image(image)
        if isinstance(reference, Digest):
            raise Invalid("a digest explains itself: a tag was expected")
        registry, there = self.directory.virtual(Address(), repository)
        return await registry.explain(there, reference)

    async def manifest(self, image: str) -> Manifest:
        """Return what *image* stands for. Raises `RegistryError`."""
        repository, reference = parse_image(image)
        registry, there = self.directory.virtual(Address(), repository)
        return await registry.manifest(there, reference, ANYTHING)

    async def publication(self, image: str, to: str, *, partial: bool) -> Publication:
        """Say what publishing *image* as *to* takes. Raises `RegistryError`."""
        (virtual, tag), (target, as_tag) = self._tagged(image), self._tagged(to)
        place = (target.upstream, target.repository)
        return await self.publisher.plan(virtual, tag, place, as_tag, partial=partial)

    def _tagged(self, image: str) -> tuple[Virtual, Tag]:
        repository, reference = parse_image(image)
        if isinstance(reference, Digest):
            raise Invalid(f"{image} is a digest: a tag was expected")
        registry, there = self.directory.virtual(Address(), repository)
        return registry.virtual(there), reference


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
            before.leases.close()
        except SettingsInvalid as invalid:
            self._metrics.reloads.labels("refused").inc()
            _log.error("configuration refused, the old one stays", problems=[str(p) for p in invalid.problems])
            return
        for key in _FIXED:
            if getattr(settings, key) != getattr(self._settings, key):
                _log.warning("this key needs a restart", key=key)
        self._metrics.reloads.labels("taken").inc()
        _log.info("configuration loaded", upstreams=[u.name for u in settings.upstream], rules=len(settings.rule))


@asynccontextmanager
async def build(
    settings: Settings,
    clock: Callable[[], float] = time.time,
    metrics: Metrics | None = None,
    ticks: Callable[[], float] = time.monotonic,
    secret: bytes | None = None,
    siblings: Siblings | None = None,
) -> AsyncIterator[Site]:
    """Open pools and stores and put the virtual registries on top.

    Args:
        clock: Seconds since the epoch.
        ticks: Seconds that never go backwards.
        secret: Signs what clients bring back of an upload; without it one of this site's own.
        siblings: The other worker processes, which are told of what has changed.

    Raises:
        SettingsInvalid: A file that the settings name can't be used.
    """
    metrics = metrics or Metrics()
    secret = secret or secrets.token_bytes(32)
    files = read_files(settings, os.environ)
    async with AsyncExitStack() as stack:
        upstreams: dict[str, Upstream] = {
            each.name: await _open(stack, each, files, metrics, ticks, secret) for each in settings.upstream
        }
        hot = settings.cache.memory // _HOT_SHARE if settings.hot else 0
        memory: Shared = LruMemory(settings.cache.memory - hot)
        content, metadata, folder = await _stores(stack, settings, memory, clock, metrics)
        budget = Budget(settings.request_budget)
        leases = Leases()
        places = Places(settings.rules_in_force, upstreams, metadata, MemoryMetadata(memory), leases)
        history = History(
            metadata=metadata, content=content, places=places, clock=clock, noting=noting(settings.cache.history)
        )
        stretch = {name: upstream.stretch for name, upstream in upstreams.items()}
        digests = Digests(
            upstreams=upstreams,
            content=content,
            places=places,
            history=history,
            leases=leases,
            budget=budget,
            clock=clock,
            coalesced=metrics.coalesced,
        )
        stack.push_async_callback(digests.close)
        manifests = Manifests(
            rules=settings.rules_in_force,
            upstreams=upstreams,
            metadata=metadata,
            content=content,
            places=places,
            history=history,
            standing=Standing(settings.rules_in_force, stretch, clock),
            digests=digests,
            leases=leases,
            budget=budget,
            clock=clock,
            metrics=metrics,
            turns=FileTurns(Folder(settings.cache.dir)) if siblings else None,
        )
        stack.push_async_callback(manifests.close)
        tag_lists, catalog_lists = Lists[Virtual](clock, metrics.coalesced), Lists[str](clock, metrics.coalesced)
        stack.push_async_callback(tag_lists.close)
        stack.push_async_callback(catalog_lists.close)
        tags = Tags(settings.rules_in_force, upstreams, places, budget, tag_lists)
        catalogs = Catalogs(settings.rules_in_force, upstreams, budget, catalog_lists, settings.cache.tag_ttl)

        def forget_lists(virtual: Virtual) -> None:
            tags.forget(virtual)
            catalogs.forget()

        changes = Changes(manifests, places, forget_lists, siblings.tell if siblings else nobody)
        parts = Parts(
            manifests=manifests,
            digests=digests,
            blobs=Blobs(_openings(stack, settings, upstreams, folder, metrics, clock, ticks), places, content, budget),
            tags=tags,
            referrers=Referrers(upstreams, places, budget),
            pushes=Pushes(
                upstreams=upstreams,
                allowed=frozenset(each.name for each in settings.upstream if each.push),
                rules=settings.rules_in_force,
                places=places,
                digests=digests,
                changes=changes,
            ),
            changes=changes,
            catalogs=catalogs,
        )
        registries = {name: VirtualRegistry(name, parts) for name in upstreams}
        directory = Directory(settings.names, settings.rules_in_force, registries)
        hooks = Hooks(files.hooks, directory.revalidate, metrics)
        yield Site(directory, hooks, Publisher(upstreams, manifests), changes, leases)


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
    ready = False

    def rebuild(changed: Settings) -> AbstractAsyncContextManager[Site]:
        return build(changed, clock, metrics, ticks, secret, siblings)

    @contextmanager
    def directory() -> Iterator[Directory]:
        with generations.borrow() as site:
            yield site.directory

    async with Generations[Site]() as generations:
        await generations.replace(rebuild(settings))
        status = Status(metrics, lambda: ready, generations.borrow)
        accesses = accesses or AccessEvents()
        registry = Distribution(directory, metrics, settings.trusted_proxies, accesses=accesses)
        hot = settings.cache.memory // _HOT_SHARE
        tables = Tables(hot, clock, settings.trusted_proxies) if settings.hot else None

        async def hear(message: bytes) -> None:
            with generations.borrow() as site:
                await site.changes.heard(message)

        async with (
            siblings.listening(hear) if siblings else nullcontext(),
            listen(status.handle, work.admin if work else settings.admin_listen, drain=1.0) as admin,
            listen(
                registry.handle, work.registry if work else settings.listen, drain=settings.drain, tables=tables
            ) as address,
        ):
            ready = True
            yield Running(settings, generations, rebuild, address, admin, metrics)
            ready = False
        accesses.settle()
        metrics.settle()


def bound(address: tuple[str, int], count: int) -> list[socket.socket]:
    """Bind *count* sockets to one address; port 0 means one free port for all. Raises `OSError`."""
    first = bind(address, shared=True)
    port = first.getsockname()[1]
    return [first, *(bind((address[0], port), shared=True) for _ in range(count - 1))]


@asynccontextmanager
async def serve_registry(registry: Served, address: tuple[str, int]) -> AsyncIterator[tuple[str, int]]:
    """Serve any registry on *address*, without an admin port: the demo's upstream. Yields where."""
    async with listen(Distribution(always(registry), Metrics()).handle, address, drain=1.0) as listening:
        yield listening


async def _open(
    stack: AsyncExitStack,
    settings: UpstreamSettings,
    files: Files,
    metrics: Metrics,
    ticks: Callable[[], float],
    secret: bytes,
) -> Upstream:
    limits = Limits(
        connect=settings.timeouts.connect,
        header=settings.timeouts.header,
        total=settings.timeouts.total,
        idle=settings.timeouts.idle,
        connections=settings.connections,
        failures=settings.breaker,
    )
    tls = files.tls[settings.name]
    retries = Retries(more=settings.retries)
    transport = Transport(settings.name, settings.url, limits, metrics, tls, retries=retries, clock=ticks)
    await stack.enter_async_context(transport)
    authorizer = Authorizer(transport, files.credentials[settings.name], settings.auth_realms, ticks)
    return Upstream(transport, authorizer, settings.missing, secret)


async def _stores(
    stack: AsyncExitStack, settings: Settings, memory: Shared, clock: Callable[[], float], metrics: Metrics
) -> tuple[Content, Metadata, Folder | None]:
    """Put memory in front of disk, and prune the disk behind; without a usable disk, memory alone and no folder."""
    folder = Folder(settings.cache.dir, clock)
    try:
        folder.prepare()
    except OSError as error:
        _log.warning(
            "cache folder unusable, keeping in memory alone: digests are forgotten at the next start",
            dir=str(settings.cache.dir),
            error=str(error),
        )
        return MemoryContent(memory), MemoryMetadata(memory), None
    urls = {upstream.name: str(upstream.url) for upstream in settings.upstream}
    history = settings.cache.history
    uses = Uses(noting(history), clock)
    behind = Behind()
    stack.push_async_callback(behind.close)
    content = TieredContent(MemoryContent(memory), DiskContent(folder), uses, behind)
    await stack.enter_async_context(_behind(Pruner(folder, history, metrics, clock=clock).run()))
    return content, TieredMetadata(MemoryMetadata(memory), DiskMetadata(folder, urls), uses, behind), folder


def _openings(
    stack: AsyncExitStack,
    settings: Settings,
    upstreams: Mapping[str, Upstream],
    folder: Folder | None,
    metrics: Metrics,
    clock: Callable[[], float],
    ticks: Callable[[], float],
) -> dict[str, Opening]:
    """Say how each upstream's blobs are opened. Without a usable folder those to be cached are streamed."""
    openings = {name: modes.stream(upstream) for name, upstream in upstreams.items()}
    for each in settings.upstream:
        if each.blobs == "redirect":
            openings[each.name] = modes.redirect(upstreams[each.name])
    caching = [each.name for each in settings.upstream if each.blobs == "cache"]
    if caching and folder is not None:
        spool = Spool(Shelf(folder, settings.cache.blobs_max, metrics, clock), metrics, ticks)
        stack.push_async_callback(spool.close)
        openings |= {name: modes.cache(upstreams[name], spool) for name in caching}
    return openings


@asynccontextmanager
async def _behind(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let *work* go on while the block runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
