"""Pushes through the proxy: streamed to the upstream, and what they change is asked for anew at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qs, urlencode

import structlog

from proxy.merge.inverse import VirtualTag, affected
from proxy.merge.rule import Rule
from proxy.oci.content import Manifest
from proxy.oci.document import Index, parse
from proxy.oci.endpoint import BlobAt, ManifestAt, UploadAt
from proxy.oci.errors import BadAnswer, Invalid, NotFound, Refused, Rejected, Unsupported
from proxy.oci.mediatype import ANYTHING, bare
from proxy.oci.reference import Digest, Reference, Repository, Tag
from proxy.oci.referrers import fallback_tag
from proxy.oci.write import Write, Written, digest_of, parameter
from proxy.store.base import Virtual
from proxy.virtual.changes import Changes, Deleted, Listed, Pushed
from proxy.virtual.copying import Copier, Store
from proxy.virtual.digests import Digests
from proxy.virtual.places import Place, Places
from proxy.virtual.subjects import Subjects

_MISSING_PARTS: Final = (400, 404, 422)  # what registries answer to a manifest that names what they don't have
_MAX_DEPTH: Final = 4  # indexes within indexes that are brought along

_log: Final = structlog.get_logger("push")


class Pushes:
    """Writes to virtual repositories: to the repository of that name on its own upstream, where that allows it."""

    def __init__(
        self,
        *,
        upstreams: Mapping[str, Store],
        allowed: Collection[str],
        rules: Sequence[Rule],
        places: Places,
        digests: Digests,
        changes: Changes,
    ) -> None:
        """Take what is needed; *allowed* are the upstreams that may be pushed to."""
        self._upstreams = upstreams
        self._allowed = allowed
        self._rules = rules
        self._places = places
        self._digests = digests
        self._changes = changes
        self._copier = Copier(upstreams)
        self._subjects = Subjects(upstreams)

    def check(self, virtual: Virtual) -> None:
        """Raise `Unsupported` where *virtual* can't be pushed to."""
        if virtual.upstream not in self._allowed:
            raise Unsupported(
                f"{virtual.upstream} is read-only here: push to the registry itself, or set push = true for it"
            )

    async def write(self, virtual: Virtual, write: Write) -> Written:
        """Pass a write on and let it count. Raises `Unsupported`, `Rejected`, `Refused`, `NoAnswer`."""
        self.check(virtual)
        match write.at:
            case UploadAt():
                return await self._upload(virtual, write)
            case ManifestAt(reference=reference) if write.method == "PUT":
                return await self._put_manifest(virtual, reference, write)
            case ManifestAt(reference=reference):
                return await self._delete_manifest(virtual, reference, write)
            case BlobAt():
                written = await self._pass_on(virtual, write)
                await self._changes.happened(Deleted(virtual, write.at.digest))
                return written

    async def _pass_on(self, virtual: Virtual, write: Write) -> Written:
        return await self._upstreams[virtual.upstream].write(write)

    async def _upload(self, virtual: Virtual, write: Write) -> Written:
        if write.method == "POST":
            write = replace(write, query=await self._mountable(virtual, write.query))
        written = await self._pass_on(virtual, write)
        digest = write.digest or digest_of(write.query, "mount")
        if written.status == 201 and digest is not None:
            await self._places.keep_blobs(virtual, [digest], (virtual.upstream, virtual.repository))
        return written

    async def _mountable(self, virtual: Virtual, query: str) -> str:
        """Say in the upstream's names where a blob is to be mounted from: a virtual repository isn't one of them.

        Where it can't be mounted from anywhere the client is asked for its bytes, as a registry would.
        """
        digest, source = digest_of(query, "mount"), parameter(query, "from")
        if not source or digest is None:
            return query
        try:
            place = await self._places.blob(Virtual(virtual.upstream, Repository.parse(source)), digest)
        except Invalid:
            place = None
        fields = {name: values[-1] for name, values in parse_qs(query).items()}
        if place is not None and place[0] == virtual.upstream:
            return urlencode({**fields, "from": place[1]})
        if place is None:
            return query
        return urlencode({name: value for name, value in fields.items() if name not in ("mount", "from")})

    async def _put_manifest(self, virtual: Virtual, reference: Reference, write: Write) -> Written:
        """Write a manifest; what it names and only another source has is brought along, as clients were told of it."""
        body = write.body if isinstance(write.body, bytes) else b""
        pushed = _read(body, reference, write.headers.get("Content-Type", ""))
        try:
            written = await self._pass_on(virtual, write)
        except Rejected as rejected:
            if rejected.status not in _MISSING_PARTS or not await self._adopted(virtual, body, write):
                raise
            written = await self._pass_on(virtual, write)
        named = [reference] if isinstance(reference, Tag) else []
        await self._changed(virtual, [*named, *_tags(write.query)])  # first: it is written, whatever else fails
        if pushed is None:
            return written
        await self._digests.learn(virtual, (virtual.upstream, virtual.repository), pushed)
        return await self._listed(virtual, pushed, written)

    async def _listed(self, virtual: Virtual, pushed: Manifest, written: Written) -> Written:
        """See that a manifest with a subject is in the list of what refers to it, whoever keeps that."""
        if "OCI-Subject" in written.headers:
            return written
        subject = await self._subjects.refers((virtual.upstream, virtual.repository), pushed)
        if subject is None:
            return written
        await self._changed(virtual, [fallback_tag(subject)])
        return replace(written, headers={**written.headers, "OCI-Subject": subject})

    async def _delete_manifest(self, virtual: Virtual, reference: Reference, write: Write) -> Written:
        if isinstance(reference, Digest):
            place = (virtual.upstream, virtual.repository)
            deleted = await self._known(place, reference)
            written = await self._pass_on(virtual, write)
            await self._changes.happened(Deleted(virtual, reference))  # nobody says which tags go with it
            subject = await self._subjects.refers_no_more(place, deleted) if deleted else None
            if subject is not None:
                await self._changed(virtual, [fallback_tag(subject)])
        else:
            written = await self._pass_on(virtual, write)
            await self._changed(virtual, [reference])
        return written

    async def _known(self, place: Place, digest: Digest) -> Manifest | None:
        """Return what is about to be deleted, or None where it can't be read: that is the registry's to mind."""
        try:
            return await self._upstreams[place[0]].manifest(place[1], digest, ANYTHING)
        except (NotFound, Refused, BadAnswer):
            return None

    async def _changed(self, virtual: Virtual, tags: Sequence[Tag]) -> None:
        """Let nobody be answered any more with what was before *tags* of the upstream's repository changed."""
        for tag in tags:
            _log.info("pushed", upstream=virtual.upstream, image=f"{virtual.repository}:{tag}")
            await self._changes.happened(Listed(virtual))
            for each in self._affected((virtual.upstream, virtual.repository), tag):
                await self._changes.happened(Pushed(Virtual(each.upstream, each.repository), each.tag))

    def _affected(self, place: Place, tag: Tag) -> tuple[VirtualTag, ...]:
        return affected(self._rules, list(self._upstreams), (*place, tag))

    async def _adopted(self, virtual: Virtual, body: bytes, write: Write) -> bool:
        """Bring along what a rejected manifest names and only another source of *virtual* has.

        A client that asked for a blob under the virtual name was told that it is there, and didn't send it. Returns
        whether anything was missing in the repository itself.
        """
        target: Place = (virtual.upstream, virtual.repository)
        try:
            document = parse(body, write.headers.get("Content-Type", ""))
        except BadAnswer:
            return False
        done = set[Digest]()
        if isinstance(document, Index):
            found = [await self._adopt_manifest(virtual, child.digest, target, done) for child in document.manifests]
        else:
            found = [await self._adopt_blob(virtual, blob.digest, target, done) for blob in document.blobs]
        return any(found)

    async def _adopt_manifest(
        self, virtual: Virtual, digest: Digest, target: Place, done: set[Digest], depth: int = 0
    ) -> bool:
        """Bring a manifest along with all that it names, each once: indexes may name the same a thousand times."""
        if digest in done or depth > _MAX_DEPTH:
            return False
        location = await self._places.known(virtual, digest)
        if location is None or not location.upstream or (location.upstream, location.repository) == target:
            return False
        done.add(digest)
        manifest = await self._digests.manifest(virtual, digest)
        document = parse(manifest.body, manifest.descriptor.media_type)
        if isinstance(document, Index):
            for child in document.manifests:
                await self._adopt_manifest(virtual, child.digest, target, done, depth + 1)
        else:
            source = (location.upstream, location.repository)
            for each in dict.fromkeys(blob.digest for blob in document.blobs if blob.digest not in done):
                await self._copier.blob(each, source, target)
                done.add(each)
        await self._copier.manifest(manifest, target)
        return True

    async def _adopt_blob(self, virtual: Virtual, digest: Digest, target: Place, done: set[Digest]) -> bool:
        place = await self._places.blob(virtual, digest)
        if place is None or place == target or digest in done:
            return False
        done.add(digest)
        await self._copier.blob(digest, place, target)
        await self._places.keep_blobs(virtual, [digest], target)
        return True


def _read(body: bytes, reference: Reference, content_type: str) -> Manifest | None:
    """Return what was pushed as a manifest, or None where it can't be read as one: that is the registry's to say."""
    try:
        media_type = parse(body, bare(content_type)).media_type
    except BadAnswer:
        return None
    manifest = Manifest.of(media_type, body)
    if not isinstance(reference, Digest) or reference == manifest.descriptor.digest:
        return manifest
    if not reference.matches(body):
        return None
    return Manifest(replace(manifest.descriptor, digest=reference), body)


def _tags(query: str) -> list[Tag]:
    """Return the tags that end-7b's `?tag=` names."""
    found = []
    for text in parse_qs(query).get("tag", []):
        try:
            found.append(Tag.parse(text))
        except Invalid:
            continue  # the registry says so
    return found
