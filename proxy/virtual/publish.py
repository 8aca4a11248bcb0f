"""Freezing a release: the index that a virtual tag stands for, with all that it names, becomes a real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.merge.entry import Entry
from proxy.merge.publication import Kind, Publication, Step, Way
from proxy.oci.content import CacheResult, Descriptor, Manifest
from proxy.oci.document import Index, parse
from proxy.oci.errors import BadAnswer, ManifestUnknown
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, Tag
from proxy.store.base import Virtual
from proxy.virtual.copying import Copier, Store
from proxy.virtual.manifests import Manifests
from proxy.virtual.places import Place
from proxy.virtual.together import together

_AT_ONCE: Final = 4  # blobs copied at the same time: more only share the same line
_MAX_DEPTH: Final = 4  # indexes within indexes

Watch = Callable[[Step, int], None]
"""Is told how many more bytes of a step are done."""


class NotPublishable(ManifestUnknown):
    """There is nothing that could be published as it is asked for."""


@dataclass(slots=True)
class _Found:
    """What was found on the way down, each digest once, what is named before what names it."""

    blobs: dict[Digest, tuple[Descriptor, Place]] = field(default_factory=dict)
    manifests: dict[Digest, tuple[Descriptor, Place, Manifest]] = field(default_factory=dict)


class Publisher:
    """Does what `docker manifest push` or `buildx imagetools create` would, for what is merged here."""

    def __init__(self, upstreams: Mapping[str, Store], manifests: Manifests) -> None:
        self._upstreams = upstreams
        self._manifests = manifests
        self._copier = Copier(upstreams)

    async def plan(self, virtual: Virtual, tag: Tag, target: Place, as_tag: Tag, *, partial: bool) -> Publication:
        """Ask the sources anew and say what publishing takes.

        Args:
            partial: Whether an index may be published that lacks a required platform.

        Raises:
            NotPublishable: It isn't complete, or sources gave no answer and only an older index is at hand.
            RegistryError: The sources or the target say no, or nothing.
        """
        await self._manifests.outdate(virtual, tag)
        answer = await self._manifests.tag(virtual, tag)
        if answer.delivery.cache is CacheResult.STALE:
            why = "; ".join(answer.delivery.warnings) or "its sources gave no answer"
            raise NotPublishable(f"{virtual.repository}:{tag} is served from an older generation: {why}")
        if not answer.entry.complete and not partial:
            why = "; ".join(answer.entry.warnings)
            raise NotPublishable(f"{virtual.repository}:{tag} is not complete: {why}")
        manifest = await self._manifests.body(virtual, answer.entry)
        found = _Found()
        for child, place in _children(answer.entry, manifest):
            await self._walk(child, place, found, depth=1)
        return Publication(
            target=target,
            tag=as_tag,
            manifest=manifest,
            steps=await self._steps(found, target),
            warnings=answer.entry.warnings,
            bodies={digest: body for digest, (_, _, body) in found.manifests.items()},
        )

    async def run(self, publication: Publication, watch: Watch = lambda _step, _count: None) -> Digest:
        """Copy what isn't there yet, and let the tag stand for it last. Run it again after a failure: it goes on.

        Returns what clients get under that name from now on: another digest only where its own rule merges
        something else. Raises `RegistryError`.
        """
        target = publication.target
        blobs = [step for step in publication.steps if step.kind is Kind.BLOB]
        await together((self._copy(step, target, watch) for step in blobs), _AT_ONCE)
        for step in publication.steps:
            if step.kind is Kind.MANIFEST:
                if step.way is not Way.THERE:
                    await self._copier.manifest(publication.bodies[step.digest], target)
                watch(step, step.size)
        await self._copier.manifest(publication.manifest, target, publication.tag)
        await self._manifests.outdate(Virtual(*target), publication.tag)
        return (await self._manifests.tag(Virtual(*target), publication.tag)).entry.descriptor.digest

    async def _copy(self, step: Step, target: Place, watch: Watch) -> None:
        counted = 0

        def count(size: int) -> None:
            nonlocal counted
            counted += size
            watch(step, size)

        if step.way is not Way.THERE:
            await self._copier.blob(step.digest, step.source, target, count)
        watch(step, step.size - counted)

    async def _walk(self, descriptor: Descriptor, place: Place, found: _Found, depth: int) -> None:
        """Read a manifest and what it names."""
        if descriptor.digest in found.manifests:
            return
        if depth > _MAX_DEPTH:
            raise BadAnswer(f"{place[1]} nests indexes more than {_MAX_DEPTH} deep")
        manifest = await self._upstreams[place[0]].manifest(place[1], descriptor.digest, ANYTHING)
        document = parse(manifest.body, manifest.descriptor.media_type)
        if isinstance(document, Index):
            for child in document.manifests:
                await self._walk(child, place, found, depth + 1)
        else:
            for blob in document.blobs:
                if not _is_foreign(blob):
                    found.blobs.setdefault(blob.digest, (blob, place))
        found.manifests[descriptor.digest] = (descriptor, place, manifest)

    async def _steps(self, found: _Found, target: Place) -> tuple[Step, ...]:
        blobs = await together((self._blob_step(*each, target) for each in found.blobs.values()), _AT_ONCE * 2)
        manifests = await together(
            (self._manifest_step(*each, target) for each in found.manifests.values()), _AT_ONCE * 2
        )
        return (*blobs, *manifests)

    async def _blob_step(self, blob: Descriptor, source: Place, target: Place) -> Step:
        way = await self._copier.blob_way(blob.digest, source, target)
        return Step(kind=Kind.BLOB, digest=blob.digest, size=blob.size, source=source, way=way)

    async def _manifest_step(self, child: Descriptor, source: Place, manifest: Manifest, target: Place) -> Step:
        way = Way.THERE if source == target else await self._copier.manifest_way(child.digest, target)
        return Step(
            kind=Kind.MANIFEST,
            digest=child.digest,
            size=len(manifest.body),
            source=source,
            way=way,
            platform=child.platform,
        )


def _is_foreign(blob: Descriptor) -> bool:
    """Whether a layer is one that registries don't hold: Windows' base layers come from their vendor."""
    return ".foreign." in blob.media_type or ".nondistributable." in blob.media_type


def _children(entry: Entry, manifest: Manifest) -> list[tuple[Descriptor, Place]]:
    """Return what is named by what the tag stands for, each with where it is; itself where it is an image."""
    if entry.merged:
        return [(child, (part.upstream, part.repository)) for part in entry.parts for child in part.children]
    place = (entry.parts[0].upstream, entry.parts[0].repository)
    document = parse(manifest.body, manifest.descriptor.media_type)
    if isinstance(document, Index):
        return [(child, place) for child in document.manifests]
    return [(entry.descriptor, place)]
