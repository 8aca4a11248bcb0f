"""Asking sources: all at once, each for as little as possible, every answer read and verified."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from proxy.merge.compose import select
from proxy.merge.outcome import (
    Absent,
    Failed,
    Found,
    Kind,
    ManyImages,
    OtherArtifact,
    Outcome,
    Present,
    Probe,
    Release,
    SingleImage,
    winners,
)
from proxy.merge.plan import Plan, Source
from proxy.merge.rule import Attestations, Base, Coherence
from proxy.oci import mediatype
from proxy.oci.byterange import Whole
from proxy.oci.content import MAX_CONFIG, Descriptor, Manifest
from proxy.oci.document import Artifact, Document, Image, Index, parse, parse_labels, parse_platform
from proxy.oci.errors import BadAnswer, NotFound, RegistryError, Unreachable
from proxy.oci.mediatype import ANYTHING
from proxy.oci.platform import Platform, normalize
from proxy.oci.reference import Digest, Repository, Tag
from proxy.oci.registry import Bringing
from proxy.store.base import Content
from proxy.virtual.holdings import Holdings
from proxy.virtual.together import together

MAX_DEPTH: Final = 3  # indexes within indexes; buildx makes none, people at most one
MAX_CHILDREN: Final = 256  # entries of one source, all depths together
_MAX_READ: Final = 1024  # entries that are looked at for them, those of an index that comes again and again included
_REVISION: Final = "org.opencontainers.image.revision"
_VERSION: Final = "org.opencontainers.image.version"
_AT_ONCE: Final = 8  # children of one index that are fetched at the same time

Known = Mapping[tuple[str, Repository, Tag], Digest]


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking.

    Attributes:
        probes: Whether each source and the base is there.
        outcomes: The same for those that count, read; None where nothing changed since *known*.
    """

    probes: tuple[Probe, ...]
    outcomes: tuple[Outcome, ...] | None


NOTHING: Final = Asked((), None)


class Sources:
    """Questions to upstreams. Manifests and configs that were read before come from *content*.

    Content is shared by all repositories, and what an index or a manifest names isn't thereby in its own: registries
    take what names things that they don't hold. So what is kept counts once the source was seen to hold it, too.
    """

    def __init__(self, upstreams: Mapping[str, Bringing], content: Content, holdings: Holdings) -> None:
        self._upstreams = upstreams
        self._content = content
        self._holdings = holdings

    async def ask(self, plan: Plan, known: Known, earlier: Asked = NOTHING) -> Asked:
        """Ask for everything that *plan* names, in at most two rounds: manifests, then configs.

        What was fetched is read at once: its config is asked for while other sources still answer.

        Args:
            known: What the sources stood for last time. If any did all are asked with HEAD, also those that were
                missing or had no part in it, and read only if anything at all changed.
            earlier: What came of a narrower plan a moment ago: nobody is asked twice.
        """
        everything = (*plan.sources, *((plan.base,) if plan.base else ()))
        seen = _seen(plan, earlier)
        new = iter(await together(self._look(plan, each, known) for each in everything if each not in seen))
        looked = tuple(seen.get(each) or next(new) for each in everything)
        probes = tuple(probe for probe, _ in looked)
        if known and _unchanged(probes, known):
            return Asked(probes, None)
        if plan.guessing:
            read = {probe.source: outcome for probe, outcome in looked if isinstance(probe, Present)}
            looked = tuple((probe, read.get(probe.source)) for probe in self._counted(plan, probes, known))
        late = iter(await together(self._read(plan, probe) for probe, outcome in looked if outcome is None))
        return Asked(probes, tuple(next(late) if outcome is None else outcome for _, outcome in looked))

    def _counted(self, plan: Plan, probes: Sequence[Probe], known: Known) -> tuple[Probe, ...]:
        guesses = [probe for probe in probes if probe.source != plan.base]
        expected = {source.place for source in plan.sources if not plan.is_guess(source)}
        return (*winners(guesses, {*known, *expected}), *(probe for probe in probes if probe.source == plan.base))

    async def _look(self, plan: Plan, source: Source, known: Known) -> tuple[Probe, Outcome | None]:
        """See whether *source* is there, and what it is unless that takes another question.

        It is asked by HEAD where it probably isn't there, or probably is what was read before; else by fetching it.
        """
        aside = source == plan.base and bool(plan.sources)
        by_head = plan.is_guess(source) or aside or bool(known)
        probe = await self._probe(source, by_head=by_head)
        if isinstance(probe, Present):
            return probe, None if by_head else await self._read(plan, probe)
        return probe, probe

    async def _probe(self, source: Source, *, by_head: bool) -> Probe:
        began = time.perf_counter()
        try:
            registry = self._registry(source.upstream)
            if by_head:
                descriptor = (await registry.resolve(source.repository, source.tag, ANYTHING)).descriptor
            else:
                descriptor = (await self._fetch(source, source.tag)).descriptor
        except NotFound:
            return Absent(source, time.perf_counter() - began)
        except RegistryError as error:
            return Failed(source, error, time.perf_counter() - began)
        return Present(source, descriptor, time.perf_counter() - began)

    async def _read(self, plan: Plan, probe: Probe) -> Outcome:
        """Read what *probe* found: what kind of thing it is, and for what platform."""
        if not isinstance(probe, Present):
            return probe
        began = time.perf_counter()
        try:
            manifest = await self._current(probe)
            kind = await self._kind(plan, probe.source, manifest)
        except NotFound:
            return Absent(probe.source, probe.seconds + time.perf_counter() - began)
        except RegistryError as error:
            return Failed(probe.source, error, probe.seconds + time.perf_counter() - began)
        return Found(probe.source, manifest.descriptor, kind, probe.seconds + time.perf_counter() - began)

    async def _current(self, probe: Present) -> Manifest:
        """Return the manifest that was seen; the tag's present one where it was replaced meanwhile."""
        try:
            return await self._manifest(probe.source, probe.descriptor)
        except NotFound:
            return await self._fetch(probe.source, probe.source.tag)

    async def _manifest(self, source: Source, descriptor: Descriptor) -> Manifest:
        body = await self._content.get(descriptor.digest)
        if body is not None:
            return Manifest(replace(descriptor, size=len(body)), body)
        return await self._fetch(source, descriptor.digest)

    async def _fetch(self, source: Source, reference: Tag | Digest) -> Manifest:
        manifest = await self._registry(source.upstream).manifest(source.repository, reference, ANYTHING)
        await self._content.remember(manifest.descriptor.digest, manifest.body)
        self._saw(source, manifest.descriptor.digest)
        return manifest

    def _saw(self, source: Source, digest: Digest) -> None:
        self._holdings.saw((source.upstream, source.repository), digest)

    def _holds(self, source: Source, digest: Digest) -> bool:
        """Whether *source* was seen to hold it."""
        return self._holdings.has((source.upstream, source.repository), digest)

    async def _kind(self, plan: Plan, source: Source, manifest: Manifest) -> Kind:
        document = parse(manifest.body, manifest.descriptor.media_type)
        match document:
            case Image() if plan.passes_through:
                return SingleImage(None)
            case Image():
                return await self._image(plan, source, document)
            case Artifact():
                return OtherArtifact(document.artifact_type)
            case Index() if source == plan.base and plan.rule.base is Base.PASSTHROUGH:
                return ManyImages(document.manifests)  # its author's work, served as it is
            case Index():
                children = await self._flatten(source, document, _Allowance(_MAX_READ), depth=1)
                return ManyImages(children, await self._verified(plan, source, children))

    async def _image(self, plan: Plan, source: Source, image: Image) -> SingleImage:
        """Read an image's config. What is at the name itself is served without, where there is nothing else."""
        try:
            config = await self._config(source, image.config)
            return SingleImage(parse_platform(config), _release(config))
        except RegistryError as error:
            if source != plan.base:
                raise
            return SingleImage(None, unread=error)

    async def _platform(self, source: Source, image: Image) -> Platform | None:
        """Return the platform that the image's config names."""
        return parse_platform(await self._config(source, image.config))

    async def _config(self, source: Source, config: Descriptor) -> bytes:
        # What the source wasn't seen to hold has to be asked for anyway: a look at the disk would only cost time.
        kept = await self._content.get(config.digest) if self._holds(source, config.digest) else None
        if kept is not None:
            return kept
        if config.size > MAX_CONFIG:
            raise BadAnswer(f"the image config of {source} has {config.size} bytes, at most {MAX_CONFIG} are read")
        registry = self._registry(source.upstream)
        body = bytearray()
        try:
            async with registry.blob(source.repository, config.digest, Whole()) as blob:
                self._saw(source, config.digest)
                async for chunk in blob.chunks:
                    body += chunk
                    if len(body) > config.size:
                        raise BadAnswer(f"the image config of {source} is larger than its manifest says")
        except NotFound:
            raise BadAnswer(f"{source} is broken: its image config {config.digest} does not exist") from None
        await self._content.remember(config.digest, bytes(body))
        return bytes(body)

    async def _flatten(self, source: Source, index: Index, allowance: _Allowance, depth: int) -> tuple[Descriptor, ...]:
        """Return the images and attestations of *index*, those of indexes within included (law 5)."""
        if depth > MAX_DEPTH:
            raise BadAnswer(f"{source} nests indexes more than {MAX_DEPTH} deep")
        if len(index.manifests) > MAX_CHILDREN or not allowance.take(len(index.manifests)):
            raise BadAnswer(f"{source} has more than {MAX_CHILDREN} entries")
        parts = await together((self._entry(source, entry, allowance, depth) for entry in index.manifests), _AT_ONCE)
        flat = tuple(child for part in parts for child in part)
        if len(flat) > MAX_CHILDREN:
            raise BadAnswer(f"{source} has more than {MAX_CHILDREN} entries")
        return flat

    async def _entry(
        self, source: Source, entry: Descriptor, allowance: _Allowance, depth: int
    ) -> tuple[Descriptor, ...]:
        """Return what one entry brings: itself with its platform, what an index holds, or nothing."""
        if entry.media_type in mediatype.INDEXES:
            document = await self._child(source, entry)
            if not isinstance(document, Index):
                return ()
            return await self._flatten(source, document, allowance, depth + 1)
        if entry.media_type not in mediatype.MANIFESTS:
            return ()
        if entry.platform is not None:
            return (replace(entry, platform=normalize(entry.platform)),)
        document = await self._child(source, entry)
        platform = await self._platform(source, document) if isinstance(document, Image) else None
        return (replace(entry, platform=normalize(platform)),) if platform else ()

    async def _verified(self, plan: Plan, source: Source, children: tuple[Descriptor, ...]) -> tuple[Release, ...]:
        """Fetch those children that may be advertised: nothing is that wasn't measured and hashed (law 9).

        Returns the releases of the images among them, where the rule compares labels.
        """
        images = select(source, children)
        wanted = list(images)
        if plan.rule.attestations is Attestations.KEEP:
            subjects = {image.digest for image in images}
            wanted += [child for child in children if child.attests in subjects]
        documents = await together((self._child(source, child) for child in wanted), _AT_ONCE)
        if plan.rule.coherence is not Coherence.LABEL:
            return ()
        configs = [each.config for each in documents[: len(images)] if isinstance(each, Image)]
        return tuple(map(_release, await together((self._config(source, each) for each in configs), _AT_ONCE)))

    async def _child(self, source: Source, entry: Descriptor) -> Document:
        try:
            manifest = await self._manifest(source, entry)
            if not self._holds(source, entry.digest):
                await self._registry(source.upstream).resolve(source.repository, entry.digest, ANYTHING)
                self._saw(source, entry.digest)
        except NotFound:
            raise BadAnswer(f"{source} is broken: its entry {entry.digest} does not exist") from None
        if len(manifest.body) != entry.size:
            raise BadAnswer(
                f"{source} is broken: its entry {entry.digest} has {len(manifest.body)} bytes, not {entry.size}"
            )
        if manifest.descriptor.media_type != entry.media_type:
            raise BadAnswer(f"{source} is broken: its entry {entry.digest} is no {entry.media_type}")
        return parse(manifest.body, entry.media_type)

    def _registry(self, upstream: str) -> Bringing:
        try:
            return self._upstreams[upstream]
        except KeyError:
            raise Unreachable(f"no upstream is called {upstream!r}") from None


class _Allowance:
    """How many entries of a source may still be looked at, by whoever reads its indexes."""

    def __init__(self, entries: int) -> None:
        self._left = entries

    def take(self, entries: int) -> bool:
        """Take so many; False where there aren't as many left."""
        self._left -= entries
        return self._left >= 0


def _seen(plan: Plan, earlier: Asked) -> dict[Source, tuple[Probe, Outcome | None]]:
    """Return what was asked for *earlier*. The base is read anew: what it is made for may have interested nobody."""
    read = {outcome.source: outcome for outcome in earlier.outcomes or () if outcome.source != plan.base}
    return {
        probe.source: (probe, read.get(probe.source) if isinstance(probe, Present) else probe)
        for probe in earlier.probes
    }


def _release(config: bytes) -> Release:
    labels = parse_labels(config)
    return Release(labels.get(_REVISION, ""), labels.get(_VERSION, ""))


def _unchanged(probes: Sequence[Probe], known: Known) -> bool:
    """Whether exactly what was there is there, as it was. An absent source that never was there doesn't matter."""
    if any(isinstance(probe, Failed) for probe in probes):
        return False
    return {p.source.place: p.descriptor.digest for p in probes if isinstance(p, Present)} == dict(known)
