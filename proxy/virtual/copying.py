"""Putting what one repository has into another: mounted where both are on one upstream, else copied."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Protocol

from proxy.merge.publication import Way
from proxy.oci.byterange import Nothing, Whole
from proxy.oci.content import Manifest
from proxy.oci.endpoint import ManifestAt, UploadAt
from proxy.oci.errors import BadAnswer, BlobUnknown, NotFound
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, Tag
from proxy.oci.registry import Bringing, Writable
from proxy.oci.write import Write, joined
from proxy.virtual.places import Place

Count = Callable[[int], None]
"""Is told how many more bytes have been copied."""

_BLOB: Final = {"Content-Type": "application/octet-stream"}


class Store(Bringing, Writable, Protocol):
    """A registry that is read from and written to."""


class Copier:
    """Copies between repositories of upstreams, by digest: what arrives is what was there."""

    def __init__(self, upstreams: Mapping[str, Store]) -> None:
        self._upstreams = upstreams

    async def blob_way(self, digest: Digest, source: Place, target: Place) -> Way:
        """Say how a blob will come to *target*. A mount may still turn out to be a copy. Raises `NoAnswer`."""
        if source == target or await self._has_blob(target, digest):
            return Way.THERE
        return Way.MOUNT if source[0] == target[0] else Way.COPY

    async def manifest_way(self, digest: Digest, target: Place) -> Way:
        """Say whether a manifest has still to be written to *target*. Raises `NoAnswer`."""
        try:
            await self._upstreams[target[0]].resolve(target[1], digest, ANYTHING)
        except NotFound:
            return Way.COPY
        return Way.THERE

    async def blob(self, digest: Digest, source: Place, target: Place, count: Count = lambda _: None) -> Way:
        """See that *target* has a blob that *source* has. Raises `RegistryError`."""
        way = await self.blob_way(digest, source, target)
        if way is Way.THERE:
            return way
        query = f"mount={digest}&from={source[1]}" if way is Way.MOUNT else ""
        begun = await self._upstreams[target[0]].write(
            Write(method="POST", at=UploadAt(target[1], ""), query=query, length=0)
        )
        if begun.status == 201:
            return Way.MOUNT
        if not begun.session:
            raise BadAnswer(f"{target[0]} began an upload without saying where it goes on")
        async with self._upstreams[source[0]].blob(source[1], digest, Whole()) as found:
            await self._upstreams[target[0]].write(
                Write(
                    method="PUT",
                    at=UploadAt(target[1], begun.session),
                    query=joined(begun.query, f"digest={digest}"),
                    body=_counted(found.chunks, count),
                    length=found.size,
                    headers=_BLOB,
                )
            )
        return Way.COPY

    async def manifest(self, manifest: Manifest, target: Place, tag: Tag | None = None) -> None:
        """Write a manifest whose blobs and children are there, by its digest or as *tag*. Raises `RegistryError`."""
        await self._upstreams[target[0]].write(
            Write(
                method="PUT",
                at=ManifestAt(target[1], tag or manifest.descriptor.digest),
                body=manifest.body,
                length=len(manifest.body),
                headers={"Content-Type": manifest.descriptor.media_type},
            )
        )

    async def _has_blob(self, place: Place, digest: Digest) -> bool:
        try:
            async with self._upstreams[place[0]].blob(place[1], digest, Nothing()):
                return True
        except BlobUnknown:
            return False


async def _counted(chunks: AsyncIterator[bytes], count: Count) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk
        count(len(chunk))
