"""The virtual registries of all upstreams, as somebody sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from proxy.app.foundation import Foundation
from proxy.merge.rule import Rule
from proxy.store.base import Metadata, Turns, Virtual
from proxy.store.history import noting
from proxy.store.memory import MemoryMetadata
from proxy.upstream.client import Upstream
from proxy.virtual import modes
from proxy.virtual.blobs import Blobs
from proxy.virtual.catalogs import Catalogs
from proxy.virtual.changes import Changes, Effects
from proxy.virtual.digests import Digests
from proxy.virtual.history import History
from proxy.virtual.holdings import Holdings
from proxy.virtual.leases import Leases
from proxy.virtual.lists import LONGEST, Lists
from proxy.virtual.manifests import Manifests
from proxy.virtual.modes import Opening
from proxy.virtual.permissions import Everything, EverythingThere, Permissions
from proxy.virtual.places import Places
from proxy.virtual.publish import Publisher
from proxy.virtual.pushes import Pushes
from proxy.virtual.referrers import Referrers
from proxy.virtual.registry import Directory, Parts, VirtualRegistry
from proxy.virtual.standing import Standing
from proxy.virtual.tags import Tags


@dataclass(frozen=True, slots=True)
class Eyes:
    """Whose eyes a view is seen through.

    Attributes:
        upstreams: Asked in their name.
        rules: Those in force for them.
        metadata: What is remembered for them.
        permissions: What they may see of what is kept.
        holdings: What places were seen to hold in their requests.
        longest: Seconds that lists are remembered at most.
        turns: Whose turn it is to ask, where other processes share what is remembered.
    """

    upstreams: Mapping[str, Upstream]
    rules: Sequence[Rule]
    metadata: Metadata
    permissions: Permissions
    holdings: Holdings
    longest: float = LONGEST
    turns: Turns | None = None


def everybodys(foundation: Foundation, turns: Turns | None) -> Eyes:
    """Return the eyes of all who are asked for with the credentials of the configuration."""
    rules, access = foundation.settings.rules_in_force, foundation.settings.access
    differ = access.mode == "token" or bool(access.allow)  # whoever may come in doesn't see everything
    holdings = Holdings()
    permissions = EverythingThere(foundation.upstreams, holdings) if differ else Everything()
    return Eyes(foundation.upstreams, rules, foundation.metadata, permissions, holdings, turns=turns)


@dataclass(frozen=True, slots=True)
class View:
    """What somebody sees, and what has to be told of changes."""

    directory: Directory
    publisher: Publisher
    effects: Effects
    leases: Leases


@asynccontextmanager
async def seen(foundation: Foundation, eyes: Eyes, changes: Changes) -> AsyncIterator[View]:
    """Put virtual registries on top of a foundation; *changes* is told of what is changed through them."""
    async with AsyncExitStack() as stack:
        yield _view(stack, foundation, eyes, changes)


def _view(stack: AsyncExitStack, foundation: Foundation, eyes: Eyes, changes: Changes) -> View:
    settings, metrics, clock = foundation.settings, foundation.metrics, foundation.clock
    leases = Leases()
    places = Places(eyes.rules, eyes.upstreams, eyes.metadata, MemoryMetadata(foundation.memory), leases)
    history = History(
        metadata=eyes.metadata,
        content=foundation.content,
        places=places,
        clock=clock,
        noting=noting(settings.cache.history),
    )
    digests = Digests(
        upstreams=eyes.upstreams,
        content=foundation.content,
        places=places,
        history=history,
        leases=leases,
        permissions=eyes.permissions,
        budget=foundation.budget,
        clock=clock,
        coalesced=metrics.coalesced,
    )
    stretch = {name: upstream.stretch for name, upstream in eyes.upstreams.items()}
    manifests = Manifests(
        rules=eyes.rules,
        upstreams=eyes.upstreams,
        metadata=eyes.metadata,
        content=foundation.content,
        places=places,
        history=history,
        standing=Standing(eyes.rules, stretch, clock),
        digests=digests,
        leases=leases,
        permissions=eyes.permissions,
        holdings=eyes.holdings,
        budget=foundation.budget,
        clock=clock,
        metrics=metrics,
        turns=eyes.turns,
    )
    tag_lists = Lists[Virtual](clock, metrics.coalesced, eyes.longest)
    catalog_lists = Lists[str](clock, metrics.coalesced, eyes.longest)
    for closing in (digests, manifests, tag_lists, catalog_lists):
        stack.push_async_callback(closing.close)
    tags = Tags(eyes.rules, eyes.upstreams, places, foundation.budget, tag_lists)
    catalogs = Catalogs(eyes.rules, eyes.upstreams, foundation.budget, catalog_lists, settings.cache.tag_ttl)

    def forget_lists(virtual: Virtual) -> None:
        tags.forget(virtual)
        catalogs.forget()

    openings = _openings(foundation, eyes.upstreams)
    keeping = [each.name for each in settings.upstream if each.blobs == "cache"]
    parts = Parts(
        manifests=manifests,
        digests=digests,
        blobs=Blobs(openings, places, foundation.content, eyes.permissions, foundation.budget, keeping),
        tags=tags,
        referrers=Referrers(eyes.upstreams, places, foundation.budget),
        pushes=Pushes(
            upstreams=eyes.upstreams,
            allowed=frozenset(each.name for each in settings.upstream if each.push),
            rules=eyes.rules,
            places=places,
            digests=digests,
            changes=changes,
        ),
        changes=changes,
        catalogs=catalogs,
        budget=foundation.budget,
    )
    registries = {name: VirtualRegistry(name, parts) for name in eyes.upstreams}
    directory = Directory(settings.names, eyes.rules, registries)
    return View(directory, Publisher(eyes.upstreams, manifests), Effects(manifests, places, forget_lists), leases)


def _openings(foundation: Foundation, upstreams: Mapping[str, Upstream]) -> dict[str, Opening]:
    """Say how each upstream's blobs are opened. Without a usable folder those to be cached are streamed."""
    openings: dict[str, Opening] = {}
    for each in foundation.settings.upstream:
        upstream = upstreams[each.name]
        if each.blobs == "redirect":
            openings[each.name] = modes.redirect(upstream)
        elif each.blobs == "cache" and foundation.spool is not None:
            openings[each.name] = modes.cache(upstream, foundation.spool)
        else:
            openings[each.name] = modes.stream(upstream)
    return openings


def impatient(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Return *rules* for callers with credentials of their own: a refusal is meant for them, and counts at once."""
    return tuple(
        replace(
            rule,
            freshness=replace(rule.freshness, stale_if_refused=0.0),
            tag_freshness=tuple((tag, replace(each, stale_if_refused=0.0)) for tag, each in rule.tag_freshness),
        )
        for rule in rules
    )
