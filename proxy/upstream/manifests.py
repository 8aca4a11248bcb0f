"""Manifests over HTTP. Every one is measured, hashed and read before it leaves this module."""

from __future__ import annotations

import aiohttp

from proxy.oci import mediatype
from proxy.oci.content import MAX_MANIFEST, Descriptor, Manifest, Resolved
from proxy.oci.document import Document, parse
from proxy.oci.endpoint import ManifestAt
from proxy.oci.errors import BadAnswer, DigestInvalid, ManifestUnknown
from proxy.oci.reference import Digest, Reference, Repository
from proxy.upstream.asker import Asker, Question


class _TooLittle(BadAnswer):
    """An answer to HEAD doesn't say all that is asked for."""


class Manifests:
    """The manifests of one registry."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def resolve(self, repository: Repository, reference: Reference) -> Resolved:
        """Ask with HEAD, which Docker Hub doesn't count; with GET where the answer to HEAD says too little."""
        try:
            return Resolved(await self._head(repository, reference))
        except _TooLittle:
            return Resolved((await self.manifest(repository, reference)).descriptor)

    async def _head(self, repository: Repository, reference: Reference) -> Descriptor:
        """Ask with HEAD. Raises `_TooLittle`."""
        question = self._question("HEAD", repository, reference)
        async with self._asker.ask(question, {"Accept": mediatype.ACCEPT_ALL}) as response:
            if response.status not in (200, 405):
                raise self._asker.failure(response, question)
            descriptor = _described(response) if response.status == 200 else None
            if descriptor is None:
                raise _TooLittle(f"{self._asker.name} didn't say what {reference} is")
            if isinstance(reference, Digest) and descriptor.digest != reference:
                raise BadAnswer(f"{self._asker.name} answered {descriptor.digest} for {reference}")
            return descriptor

    async def manifest(self, repository: Repository, reference: Reference) -> Manifest:
        """Fetch a manifest, verified against its digest, the answer's own headers and its own words."""
        question = self._question("GET", repository, reference)
        async with self._asker.ask(question, {"Accept": mediatype.ACCEPT_ALL}) as response:
            if response.status != 200:
                raise self._asker.failure(response, question)
            self._asker.check_coding(response)
            body = await self._asker.transport.read(response, MAX_MANIFEST, "manifest")
            digest = self._verified(body, reference, response.headers.get("Docker-Content-Digest"))
            document = self.read(body, response.headers.get("Content-Type", ""))
        return Manifest(Descriptor(media_type=document.media_type, digest=digest, size=len(body)), body)

    def _question(self, method: str, repository: Repository, reference: Reference) -> Question:
        path = ManifestAt(self._asker.remote(repository), reference).path
        return Question(method, repository, path, ManifestUnknown, f"manifest {reference}")

    def _verified(self, body: bytes, reference: Reference, announced: str | None) -> Digest:
        """Return the digest that *body* really has. Raises `BadAnswer` where anybody claimed another."""
        claimed = reference if isinstance(reference, Digest) else None
        if claimed is None and announced is not None:
            try:
                claimed = Digest.parse(announced)
            except DigestInvalid:
                raise BadAnswer(f"{self._asker.name} sent an unusable Docker-Content-Digest") from None
        if claimed is None:
            return Digest.of(body)
        if not claimed.matches(body):
            raise BadAnswer(f"{self._asker.name} sent {len(body)} bytes for {claimed} that hash to {Digest.of(body)}")
        return claimed

    def read(self, body: bytes, content_type: str) -> Document:
        """Read a manifest for what it is; errors get the upstream's name. Raises `BadAnswer`."""
        try:
            return parse(body, content_type)
        except BadAnswer as error:
            raise BadAnswer(f"{self._asker.name}: {error.message}") from None


def _described(response: aiohttp.ClientResponse) -> Descriptor | None:
    """Read what HEAD says of a manifest; None where it doesn't say all."""
    try:
        digest = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except DigestInvalid:
        return None
    media_type = mediatype.bare(response.headers.get("Content-Type", ""))
    if not response.content_length or media_type not in mediatype.INDEXES | mediatype.MANIFESTS:
        return None
    return Descriptor(media_type=media_type, digest=digest, size=response.content_length)
