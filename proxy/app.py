"""The composition root: settings in, a running service out. The only place that constructs."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from proxy.merge.explain import Explanation
from proxy.merge.route import Address
from proxy.oci.content import Manifest
from proxy.oci.errors import Invalid
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, parse_image
from proxy.oci.registry import Registry
from proxy.settings.keys import CredentialSettings, Settings, UpstreamSettings
from proxy.settings.load import Problem, SettingsInvalid
from proxy.store.base import Content, Metadata
from proxy.store.disk import DiskContent, DiskMetadata, Folder
from proxy.store.memory import LruMemory, MemoryContent, MemoryMetadata, Shared
from proxy.store.tiered import TieredContent, TieredMetadata
from proxy.telemetry import Metrics
from proxy.upstream.auth import Authorizer
from proxy.upstream.client import Upstream
from proxy.upstream.credentials import Credential, from_docker_config, from_file
from proxy.upstream.transport import Limits, Transport
from proxy.virtual.blobs import Blobs
from proxy.virtual.budget import Budget
from proxy.virtual.manifests import Manifests
from proxy.virtual.places import Places
from proxy.virtual.referrers import Referrers
from proxy.virtual.registry import Directory, Reads, VirtualRegistry
from proxy.virtual.tags import Tags
from proxy.web.distribution import Distribution, Single
from proxy.web.server import listen
from proxy.web.status import Status

_log: Final = structlog.get_logger("app")


@dataclass(frozen=True, slots=True)
class Site:
    """The virtual registries of all upstreams, not yet listening."""

    directory: Directory
    metrics: Metrics

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


@dataclass(frozen=True, slots=True)
class Running:
    """A service that listens: where."""

    site: Site
    registry: tuple[str, int]
    admin: tuple[str, int]


@asynccontextmanager
async def build(settings: Settings, clock: Callable[[], float] = time.time) -> AsyncIterator[Site]:
    """Open pools and stores and put the virtual registries on top.

    Args:
        clock: Seconds since the epoch.

    Raises:
        SettingsInvalid: A file that the settings name can't be used.
    """
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        upstreams: dict[str, Registry] = {
            each.name: await _open(stack, each, f"upstream[{n}]", metrics) for n, each in enumerate(settings.upstream)
        }
        memory: Shared = LruMemory(settings.cache.memory)
        volatile = MemoryMetadata(memory)
        content, metadata = _stores(stack, settings, memory, volatile)
        budget = Budget(settings.request_budget)
        places = Places(settings.rules_in_force, upstreams, metadata, volatile)
        manifests = Manifests(
            rules=settings.rules_in_force,
            upstreams=upstreams,
            metadata=metadata,
            content=content,
            places=places,
            budget=budget,
            clock=clock,
            metrics=metrics,
        )
        stack.push_async_callback(manifests.close)
        reads = Reads(
            manifests=manifests,
            blobs=Blobs(upstreams, places, content, budget),
            tags=Tags(settings.rules_in_force, upstreams, places, budget),
            referrers=Referrers(upstreams, places, budget),
        )
        registries = {name: VirtualRegistry(name, reads) for name in upstreams}
        yield Site(Directory(settings.names, registries), metrics)


@asynccontextmanager
async def serve(settings: Settings, clock: Callable[[], float] = time.time) -> AsyncIterator[Running]:
    """Serve both ports while the block runs, then let requests in flight finish.

    Raises:
        SettingsInvalid: As `build` does.
        OSError: An address can't be listened on.
    """
    async with build(settings, clock) as site:
        ready = False
        status = Status(site.metrics, lambda: ready, site.explain)
        registry = Distribution(site.directory, site.metrics)
        async with (
            listen(status.handle, settings.admin_listen, drain=1.0) as admin,
            listen(registry.handle, settings.listen, drain=settings.drain) as address,
        ):
            ready = True
            yield Running(site, address, admin)
            ready = False


@asynccontextmanager
async def serve_registry(registry: Registry, address: tuple[str, int]) -> AsyncIterator[tuple[str, int]]:
    """Serve any registry on *address*, without an admin port: the demo's upstream. Yields where."""
    async with listen(Distribution(Single(registry), Metrics()).handle, address, drain=1.0) as listening:
        yield listening


async def _open(stack: AsyncExitStack, settings: UpstreamSettings, key: str, metrics: Metrics) -> Upstream:
    limits = Limits(
        connect=settings.timeouts.connect,
        header=settings.timeouts.header,
        total=settings.timeouts.total,
        idle=settings.timeouts.idle,
        connections=settings.connections,
    )
    transport = Transport(settings.name, settings.url, limits, metrics, _tls(settings, key))
    await stack.enter_async_context(transport)
    credential = _credential(settings, key, os.environ)
    authorizer = Authorizer(transport, credential, settings.auth_realms, time.monotonic)
    return Upstream(transport, authorizer, settings.missing)


def _tls(settings: UpstreamSettings, key: str) -> ssl.SSLContext | None:
    """Return how to check certificates, or None for the system's way."""
    if settings.ca_file is None and not settings.insecure_skip_verify:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise SettingsInvalid([Problem(str(settings.ca_file), f"{key}.ca_file", f"unusable: {error}")]) from None
    if settings.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _credential(settings: UpstreamSettings, key: str, environ: Mapping[str, str]) -> Credential | None:
    match settings.credentials:
        case CredentialSettings(username=username, password=password, password_file=path):
            if password is not None:
                return Credential(username, password.get_secret_value())
            try:
                return from_file(username, path or Path())
            except (OSError, UnicodeDecodeError) as error:
                reason = f"the file can't be read: {type(error).__name__}"
                raise SettingsInvalid([Problem(str(path), f"{key}.credentials.password_file", reason)]) from None
        case "docker-config":
            try:
                return from_docker_config(settings.url, environ, Path.home())
            except ValueError as error:
                raise SettingsInvalid([Problem("docker-config", f"{key}.credentials", str(error))]) from None
        case _:
            return None


def _stores(
    stack: AsyncExitStack, settings: Settings, memory: Shared, metadata: MemoryMetadata
) -> tuple[Content, Metadata]:
    """Put memory in front of disk; without a usable disk, memory alone."""
    folder = Folder(settings.cache.dir)
    try:
        folder.prepare()
    except OSError as error:
        _log.warning(
            "cache folder unusable, keeping in memory alone: digests are forgotten at the next start",
            dir=str(settings.cache.dir),
            error=str(error),
        )
        return MemoryContent(memory), metadata
    urls = {upstream.name: str(upstream.url) for upstream in settings.upstream}
    content = TieredContent(MemoryContent(memory), DiskContent(folder))
    stack.push_async_callback(content.close)
    return content, TieredMetadata(metadata, DiskMetadata(folder, urls))
