"""The virtual registry's five reads, and its writes: a table of contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from proxy.merge.entry import Entry
from proxy.merge.explain import Explanation
from proxy.merge.inverse import affected
from proxy.merge.route import Address, Names, route, route_registry
from proxy.merge.rule import Rule
from proxy.oci.access import Resource
from proxy.oci.byterange import Part
from proxy.oci.content import Blob, Descriptor, Manifest, Redirect, RepositoryPage, Resolved, TagPage
from proxy.oci.errors import ManifestUnknown, NameUnknown
from proxy.oci.mediatype import INDEXES, Accept
from proxy.oci.reference import Digest, Reference, Repository, Tag
from proxy.oci.registry import Catalogue, Served
from proxy.oci.write import Target, Write, Written
from proxy.store.base import Virtual
from proxy.virtual.blobs import Blobs
from proxy.virtual.budget import Budget, Left
from proxy.virtual.catalogs import Catalogs
from proxy.virtual.changes import Changes, Suspected
from proxy.virtual.digests import Digests
from proxy.virtual.manifests import Answer, Manifests
from proxy.virtual.pushes import Pushes
from proxy.virtual.referrers import Referrers
from proxy.virtual.tags import Tags


@dataclass(frozen=True, slots=True)
class Parts:
    """What virtual registries of all upstreams share."""

    manifests: Manifests
    digests: Digests
    blobs: Blobs
    tags: Tags
    referrers: Referrers
    pushes: Pushes
    changes: Changes
    catalogs: Catalogs
    budget: Budget


class VirtualRegistry:
    """The registry that clients see who speak of one upstream."""

    def __init__(self, upstream: str, parts: Parts) -> None:
        self._upstream = upstream
        self._parts = parts

    async def resolve(self, repository: Repository, reference: Reference, accept: Accept) -> Resolved:
        """Return what a reference stands for; a tag costs no more than GET does, as its index is made for both."""
        if isinstance(reference, Digest):
            manifest = await self.manifest(repository, reference, accept)
            return Resolved(manifest.descriptor, manifest.delivery)
        left = self._parts.budget.begin()
        answer = await self._parts.manifests.tag(self.virtual(repository), reference, left)
        if _too_narrow(answer.entry, accept):
            manifest = await self._default_child(repository, reference, answer, left)
            return Resolved(manifest.descriptor, manifest.delivery)
        return Resolved(answer.entry.descriptor, answer.delivery)

    async def manifest(self, repository: Repository, reference: Reference, accept: Accept) -> Manifest:
        """Return a manifest, or the index of a virtual tag."""
        virtual = self.virtual(repository)
        if isinstance(reference, Digest):
            return await self._parts.digests.manifest(virtual, reference)
        left = self._parts.budget.begin()
        answer = await self._parts.manifests.tag(virtual, reference, left)
        if _too_narrow(answer.entry, accept):
            return await self._default_child(repository, reference, answer, left)
        return replace(await self._parts.manifests.body(virtual, answer.entry, left), delivery=answer.delivery)

    def blob(self, repository: Repository, digest: Digest, part: Part) -> AbstractAsyncContextManager[Blob | Redirect]:
        """Open a blob at the source that owns it, or say where that is."""
        return self._parts.blobs.open(self.virtual(repository), digest, part)

    async def tags(self, repository: Repository, limit: int | None, last: str) -> TagPage:
        """Return the union of the sources' tags."""
        return await self._parts.tags.page(self.virtual(repository), limit, last)

    async def referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to *digest*."""
        return await self._parts.referrers.of(self.virtual(repository), digest)

    async def catalog(self, limit: int | None, last: str) -> RepositoryPage:
        """Return what there is, sources and what they are merged into."""
        return await self._parts.catalogs.page(self._upstream, limit, last)

    def check_write(self, at: Target) -> None:
        """Raise `Unsupported` where the upstream may not be pushed to."""
        self._parts.pushes.check(self.virtual(at.repository))

    async def write(self, write: Write) -> Written:
        """Pass a write on to the upstream, where it may be pushed to."""
        return await self._parts.pushes.write(self.virtual(write.at.repository), write)

    async def explain(self, repository: Repository, tag: Tag) -> Explanation:
        """Say why a tag is what it is."""
        return await self._parts.manifests.explain(self.virtual(repository), tag)

    async def revalidate(self, repository: Repository, tag: Tag) -> None:
        """Ask anew for a tag whose sources are said to have changed."""
        await self._parts.changes.happened(Suspected(self.virtual(repository), tag))

    async def _default_child(self, repository: Repository, tag: Tag, answer: Answer, left: Left) -> Manifest:
        """Return the one child for a client that accepts no index (law 7)."""
        child = answer.entry.default_child
        if child is None:
            raise ManifestUnknown(
                f"{repository}:{tag} is an index without an entry for the default platform, "
                "and the client's Accept names no index type"
            )
        manifest = await self._parts.digests.manifest(self.virtual(repository), child.digest, left)
        return replace(manifest, delivery=answer.delivery)

    def virtual(self, repository: Repository) -> Virtual:
        """Return a repository of this registry as the key that everything is kept by."""
        return Virtual(self._upstream, repository)


class Directory:
    """Which registry a request speaks of: one virtual registry for each configured upstream, and no others."""

    def __init__(
        self, names: Sequence[Names], rules: Sequence[Rule], registries: Mapping[str, VirtualRegistry]
    ) -> None:
        self._names = names
        self._rules = rules
        self._registries = registries

    def find(
        self, host: str, namespaces: tuple[str, ...], prefix: str, repository: Repository
    ) -> tuple[Served, Resource]:
        """Return the registry and the repository there. Raises `NameUnknown`."""
        upstream, there = route(self._names, Address(host, namespaces, prefix), repository)
        return self._registries[upstream], Resource(upstream, there, self._name(upstream, there))

    def catalogue(self, host: str, namespaces: tuple[str, ...], prefix: str) -> tuple[Catalogue, str]:
        """Return the registry that a request means which names no repository, and its upstream's name.

        Raises `NameUnknown`.
        """
        upstream = route_registry(self._names, Address(host, namespaces, prefix))
        return self._registries[upstream], upstream

    def check(self, namespaces: tuple[str, ...], prefix: str) -> None:
        """Raise `NameUnknown` where a request that names no repository names a registry that is none of ours."""
        for word in (prefix, *namespaces):
            if word and not any(names.claims(word) for names in self._names):
                raise NameUnknown(f"no upstream is called {word[:80]!a}")

    async def revalidate(self, upstream: str, repository: Repository, tag: Tag) -> tuple[str, ...]:
        """Ask anew for every virtual tag that a source belongs to; return their names. Raises `NameUnknown`."""
        if upstream not in self._registries:
            raise NameUnknown(f"no upstream is called {upstream[:80]!a}")
        found = affected(self._rules, list(self._registries), (upstream, repository, tag))
        for each in found:
            await self._registries[each.upstream].revalidate(each.repository, each.tag)
        return tuple(f"{each.upstream}/{each.repository}:{each.tag}" for each in found)

    def virtual(self, address: Address, repository: Repository) -> tuple[VirtualRegistry, Repository]:
        """Return the virtual registry and the repository there. Raises `NameUnknown`."""
        upstream, there = route(self._names, address, repository)
        return self._registries[upstream], there

    def _name(self, upstream: str, repository: Repository) -> str:
        """Return what a token calls a repository: the words that lead there without `Host` and `?ns=`."""
        default = any(names.default for names in self._names if names.name == upstream)
        return str(repository) if default else f"{upstream}/{repository}"


def _too_narrow(entry: Entry, accept: Accept) -> bool:
    return accept.only_single_images and entry.descriptor.media_type in INDEXES
