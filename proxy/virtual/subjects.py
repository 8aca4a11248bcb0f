"""Lists of referrers at registries that keep none: whoever answers the referrers API has to keep them.

A client that gets an answer from the API leaves the list to the registry (the specification's client part, and
go-containerregistry does so): it writes no fallback tag. Behind us there may be a registry without the API, whose
answer to a manifest with a `subject` lacks `OCI-Subject`. Then its fallback tag is written here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final
from weakref import WeakValueDictionary

import structlog

from proxy.oci.content import Descriptor, Manifest
from proxy.oci.document import Index, parse
from proxy.oci.errors import NotFound
from proxy.oci.mediatype import ANYTHING, OCI_INDEX
from proxy.oci.reference import Digest
from proxy.oci.referrers import described, fallback_tag, render, union
from proxy.virtual.copying import Copier, Store
from proxy.virtual.places import Place

Entries = tuple[Descriptor, ...]

_log: Final = structlog.get_logger("push")


class Subjects:
    """Fallback tags, written one change after the other: each is read, changed and written back."""

    def __init__(self, upstreams: Mapping[str, Store]) -> None:
        self._upstreams = upstreams
        self._copier = Copier(upstreams)
        self._locks: WeakValueDictionary[tuple[Place, Digest], asyncio.Lock] = WeakValueDictionary()

    async def refers(self, place: Place, pushed: Manifest) -> Digest | None:
        """List *pushed*, which *place* now has, under its subject; return that, or None where nothing could be listed.

        Raises `RegistryError` where the list can't be written: the push isn't done until it can be found.
        """
        found = described(pushed)
        if found is None:
            return None
        subject, entry = found
        return await self._change(place, subject, lambda entries: union((entry,), entries))

    async def refers_no_more(self, place: Place, deleted: Manifest) -> Digest | None:
        """Take *deleted* out of the list of its subject; return that, or None. Raises `RegistryError`."""
        found = described(deleted)
        if found is None:
            return None
        subject, gone = found
        return await self._change(place, subject, lambda entries: _without(entries, gone.digest))

    async def _change(self, place: Place, subject: Digest, change: Callable[[Entries], Entries]) -> Digest | None:
        lock = self._locks.setdefault((place, subject), asyncio.Lock())
        async with lock:
            before = await self._entries(place, subject)
            if before is None:
                return None
            after = change(before)
            if after != before:
                await self._copier.manifest(render(after), place, fallback_tag(subject))
            return subject

    async def _entries(self, place: Place, subject: Digest) -> Entries | None:
        """Return what is listed; None where the tag is something else, which is nobody's to overwrite."""
        tag = fallback_tag(subject)
        try:
            found = await self._upstreams[place[0]].manifest(place[1], tag, ANYTHING)
        except NotFound:
            return ()
        document = parse(found.body, found.descriptor.media_type)
        if isinstance(document, Index) and document.media_type == OCI_INDEX:
            return document.manifests
        _log.warning("list of referrers can't be kept", image=f"{place[1]}:{tag}", reason="the tag is no OCI index")
        return None


def _without(entries: Entries, digest: Digest) -> Entries:
    return tuple(entry for entry in entries if entry.digest != digest)
