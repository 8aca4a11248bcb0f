"""What is served: who may come in, and the virtual registries that they see."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from proxy import __version__
from proxy.app.doorkeepers import doorkeeper
from proxy.app.foundation import Foundation, laid
from proxy.app.houses import GuardedHouse, personal
from proxy.app.views import View, everybodys, seen
from proxy.merge.explain import Explanation
from proxy.merge.publication import Publication
from proxy.merge.route import Address
from proxy.oci.content import Manifest
from proxy.oci.errors import Invalid
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, Reference, Repository, Tag, parse_image
from proxy.settings.keys import Settings
from proxy.siblings import Siblings
from proxy.store.base import Virtual
from proxy.store.disk import Folder
from proxy.store.turns import FileTurns
from proxy.store.upkeep import Upkeep
from proxy.telemetry import Metrics
from proxy.upstream.client import Upstream
from proxy.virtual.changes import Changes, Effects, nobody
from proxy.virtual.publish import Publisher
from proxy.virtual.registry import Directory
from proxy.web.hooks import Hooks
from proxy.web.overview import Origin, Overview
from proxy.web.request import House, OpenHouse
from proxy.web.token import Token

_HOST_AND_PORT: Final = re.compile(r"([^/\s]+:\d+)/")


@dataclass(frozen=True, slots=True)
class Site:
    """The virtual registries of all upstreams, not yet listening.

    Attributes:
        house: Lets clients in.
        view: What is seen with the credentials of the configuration.
        views: All views that there are now.
        overview: What the configuration says is served.
        token: The admin port's; None where none is configured.
        upstreams: Asked with the credentials of the configuration.
        retired: Set when somebody else answers from now on.
    """

    house: House
    hooks: Hooks
    changes: Changes
    view: View
    views: Callable[[], Iterable[View]]
    overview: Overview
    token: Token | None = field(repr=False)
    upstreams: Collection[Upstream]
    retired: asyncio.Event

    @property
    def directory(self) -> Directory:
        """What is seen with the credentials of the configuration."""
        return self.view.directory

    @property
    def publisher(self) -> Publisher:
        """Publishes with the credentials of the configuration."""
        return self.view.publisher

    def retire(self) -> None:
        """Let no answer be given again without asking: somebody else answers from now on."""
        self.retired.set()
        for upstream in self.upstreams:
            upstream.retire()
        for view in self.views():
            view.leases.close()

    async def explain(self, image: str) -> Explanation:
        """Say why *image* is what it is. Raises `RegistryError`."""
        address, repository, reference = _parsed(image)
        if isinstance(reference, Digest):
            raise Invalid("a digest explains itself: a tag was expected")
        registry, there = self.directory.virtual(address, repository)
        return await registry.explain(there, reference)

    async def manifest(self, image: str) -> Manifest:
        """Return what *image* stands for. Raises `RegistryError`."""
        address, repository, reference = _parsed(image)
        registry, there = self.directory.virtual(address, repository)
        return await registry.manifest(there, reference, ANYTHING)

    async def publication(self, image: str, to: str, *, partial: bool) -> Publication:
        """Say what publishing *image* as *to* takes. Raises `RegistryError`."""
        (virtual, tag), (target, as_tag) = self._tagged(image), self._tagged(to)
        place = (target.upstream, target.repository)
        return await self.publisher.plan(virtual, tag, place, as_tag, partial=partial)

    def _tagged(self, image: str) -> tuple[Virtual, Tag]:
        address, repository, reference = _parsed(image)
        if isinstance(reference, Digest):
            raise Invalid(f"{image} is a digest: a tag was expected")
        registry, there = self.directory.virtual(address, repository)
        return registry.virtual(there), reference


def _parsed(image: str) -> tuple[Address, Repository, Reference]:
    """Split *image* as people write it. Raises `Invalid`.

    A registry's host and port in front name it as `?ns=` would: with its colon that is no part of a repository.
    """
    named = _HOST_AND_PORT.match(image)
    address = Address(namespaces=(named[1],)) if named else Address()
    return address, *parse_image(image[named.end() :] if named else image)


@asynccontextmanager
async def build(
    settings: Settings,
    clock: Callable[[], float] = time.time,
    metrics: Metrics | None = None,
    ticks: Callable[[], float] = time.monotonic,
    secret: bytes | None = None,
    siblings: Siblings | None = None,
    upkeep: Upkeep | None = None,
    *,
    on_disk: bool = True,
) -> AsyncIterator[Site]:
    """Open pools and stores and put the virtual registries on top.

    Args:
        clock: Seconds since the epoch.
        ticks: Seconds that never go backwards.
        secret: Signs what clients bring back of an upload; without it one of this site's own.
        siblings: The other worker processes, which are told of what has changed.
        upkeep: What is known of the cache folder; without it nothing.
        on_disk: Whether anything is kept in the cache folder.

    Raises:
        SettingsInvalid: A file that the settings name can't be used.
    """
    metrics = metrics or Metrics()
    async with AsyncExitStack() as stack:
        secret = secret or secrets.token_bytes(32)
        upkeep = upkeep or Upkeep(clock, ticks)
        foundation = await stack.enter_async_context(
            laid(settings, clock, metrics, ticks, secret, upkeep, on_disk=on_disk)
        )
        views: list[Callable[[], Iterable[View]]] = []

        def all_views() -> list[View]:
            return [view for some in views for view in some()]

        def effects() -> list[Effects]:
            return [view.effects for view in all_views()]

        changes = Changes(effects, siblings.tell if siblings else nobody)
        turns = FileTurns(Folder(settings.cache.dir)) if siblings else None
        base = await stack.enter_async_context(seen(foundation, everybodys(foundation, turns), changes))
        views.append(lambda: [base])
        upstreams, retired = foundation.upstreams.values(), asyncio.Event()
        house = await _house(stack, foundation, base, changes, views, retired)
        hooks = Hooks(foundation.files.hooks, base.directory.revalidate, metrics)
        overview = _overview(settings, clock())
        yield Site(house, hooks, changes, base, all_views, overview, foundation.files.admin, upstreams, retired)


def _overview(settings: Settings, now: float) -> Overview:
    """Return what *settings*, loaded just now, say is served."""
    origins = tuple(Origin(each.name, str(each.url.with_user(None))) for each in settings.upstream)
    return Overview(__version__, now, origins, tuple(_rules(settings)))


def _rules(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the globs over repositories and what they are made of, up to the one that fits all that is left."""
    for rule in settings.rules_in_force:
        yield f"{rule.match} on {rule.upstream}" if rule.upstream else rule.match, rule.made_of
        if rule.match == "**" and not rule.upstream:
            return


async def _house(
    stack: AsyncExitStack,
    foundation: Foundation,
    base: View,
    changes: Changes,
    views: list[Callable[[], Iterable[View]]],
    retired: asyncio.Event,
) -> House:
    """Open the house of the mode that is configured; views of callers are added to *views*."""
    mode = foundation.settings.access.mode
    if mode == "open":
        return OpenHouse(base.directory)
    if mode == "upstream":
        house, theirs = await stack.enter_async_context(personal(foundation, base, changes, retired.is_set))
        views.append(lambda: theirs)
        return house
    return GuardedHouse(await stack.enter_async_context(doorkeeper(foundation)), base.directory)
