"""What all who ask have in common: connections to upstreams, what is kept, how long anything may take."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog

from proxy.files import Files
from proxy.files import read as read_files
from proxy.settings.keys import Settings, UpstreamSettings
from proxy.store.base import Content, Metadata
from proxy.store.behind import Behind
from proxy.store.disk import DiskContent, DiskMetadata, Folder
from proxy.store.history import Pruner, Uses, noting
from proxy.store.memory import LruMemory, MemoryContent, MemoryMetadata, Shared
from proxy.store.shelf import Shelf
from proxy.store.spool import Spool
from proxy.store.tiered import TieredContent, TieredMetadata
from proxy.store.upkeep import Upkeep
from proxy.telemetry import Metrics
from proxy.upstream.auth import Authorizer, Door
from proxy.upstream.client import Upstream
from proxy.upstream.retry import Retries
from proxy.upstream.transport import Limits as UpstreamLimits
from proxy.upstream.transport import Transport
from proxy.virtual.budget import Budget

HOT_SHARE: Final = 8
"""Hot answers may take this part of `cache.memory`."""
PATIENCE: Final = 20
"""This part of `request_budget`, at most, a request waits for the answer to one that is the same."""

_log: Final = structlog.get_logger("app")


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every view stands on.

    Attributes:
        upstreams: By name, asked with the credentials of the configuration.
        memory: What content, metadata and all views share, within its budget.
        folder: Where things are kept; None where it can't be used.
        spool: Keeps blobs; None where no upstream's are kept.
        clock: Seconds since the epoch.
        ticks: Seconds that never go backwards.
    """

    settings: Settings
    files: Files
    upstreams: dict[str, Upstream]
    memory: Shared
    content: Content
    metadata: Metadata
    folder: Folder | None
    spool: Spool | None
    budget: Budget
    clock: Callable[[], float]
    ticks: Callable[[], float]
    metrics: Metrics


@asynccontextmanager
async def laid(
    settings: Settings,
    clock: Callable[[], float],
    metrics: Metrics,
    ticks: Callable[[], float],
    secret: bytes,
    upkeep: Upkeep,
    *,
    on_disk: bool = True,
) -> AsyncIterator[Foundation]:
    """Open pools and stores.

    Args:
        on_disk: Whether anything is kept in the cache folder.
        clock: Seconds since the epoch.
        ticks: Seconds that never go backwards.
        secret: Signs what clients bring back of an upload.
        upkeep: What is known of the cache folder.

    Raises:
        SettingsInvalid: A file that the settings name can't be used.
    """
    files = read_files(settings, os.environ, ticks)
    async with AsyncExitStack() as stack:
        upstreams = {each.name: await _open(stack, each, files, metrics, ticks, secret) for each in settings.upstream}
        hot = settings.cache.memory // HOT_SHARE if settings.hot else 0
        memory: Shared = LruMemory(settings.cache.memory - hot)
        content, metadata, folder = (
            await _stores(stack, settings, memory, clock, metrics, upkeep) if on_disk else _in_memory(memory)
        )
        yield Foundation(
            settings=settings,
            files=files,
            upstreams=upstreams,
            memory=memory,
            content=content,
            metadata=metadata,
            folder=folder,
            spool=_spool(stack, settings, folder, metrics, clock, ticks, upkeep),
            budget=Budget(settings.request_budget, settings.request_budget / PATIENCE),
            clock=clock,
            ticks=ticks,
            metrics=metrics,
        )


async def _open(
    stack: AsyncExitStack,
    settings: UpstreamSettings,
    files: Files,
    metrics: Metrics,
    ticks: Callable[[], float],
    secret: bytes,
) -> Upstream:
    limits = UpstreamLimits(
        connect=settings.timeouts.connect,
        header=settings.timeouts.header,
        total=settings.timeouts.total,
        idle=settings.timeouts.idle,
        connections=settings.connections,
        failures=settings.breaker,
    )
    tls = files.tls[settings.name]
    retries = Retries(more=settings.retries)
    transport = Transport(
        settings.name,
        settings.url,
        limits,
        metrics,
        tls.own,
        others=tls.others,
        realms=settings.auth_realms,
        redirect_hosts=settings.redirect_hosts,
        retries=retries,
        clock=ticks,
    )
    await stack.enter_async_context(transport)
    door = Door(transport, ticks)
    authorizer = Authorizer(door, files.credentials[settings.name])
    return Upstream(transport, authorizer, settings.missing, secret)


async def _stores(
    stack: AsyncExitStack,
    settings: Settings,
    memory: Shared,
    clock: Callable[[], float],
    metrics: Metrics,
    upkeep: Upkeep,
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
        return _in_memory(memory)
    history = settings.cache.history
    uses = Uses(noting(history), clock)
    line = Behind()

    async def settle() -> None:
        if not await line.close(upkeep.patience(settings.drain)):
            folder.abandon()

    stack.push_async_callback(settle)
    content = TieredContent(MemoryContent(memory), DiskContent(folder), uses, line)
    await stack.enter_async_context(behind(Pruner(folder, history, metrics, upkeep.pruning, clock=clock).run()))
    return (
        content,
        TieredMetadata(MemoryMetadata(memory), DiskMetadata(folder, _registries(settings.upstream)), uses, line),
        folder,
    )


def _registries(upstreams: Sequence[UpstreamSettings]) -> dict[str, str]:
    """Return what is kept of each upstream by: its URL, and its name where that is another one's already.

    They may have other credentials, and then what was said to one is no answer of another. A URL is the default's
    before it is others': most likely it was alone, and what it has advertised has to stay pullable.
    """
    registries: dict[str, str] = {}
    for each in sorted(upstreams, key=lambda upstream: not upstream.default):
        url = str(each.url)
        registries[each.name] = f"{url} {each.name}" if url in registries.values() else url
    return registries


def _in_memory(memory: Shared) -> tuple[Content, Metadata, Folder | None]:
    """Keep things in memory alone."""
    return MemoryContent(memory), MemoryMetadata(memory), None


def _spool(
    stack: AsyncExitStack,
    settings: Settings,
    folder: Folder | None,
    metrics: Metrics,
    clock: Callable[[], float],
    ticks: Callable[[], float],
    upkeep: Upkeep,
) -> Spool | None:
    """Return what keeps blobs, where some are to be kept and there is a folder for them."""
    if folder is None or all(each.blobs != "cache" for each in settings.upstream):
        return None
    spool = Spool(Shelf(folder, settings.cache.blobs_max, metrics, clock, upkeep.seen), metrics, ticks)
    stack.push_async_callback(spool.close)
    return spool


@asynccontextmanager
async def behind(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let *work* go on while the block runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
