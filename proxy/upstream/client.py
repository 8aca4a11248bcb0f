"""A registry over HTTP: the five reads and the write, each in a room of its own."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager

from proxy.oci.byterange import Part
from proxy.oci.content import Blob, Descriptor, Manifest, Redirect, RepositoryPage, Resolved, TagPage
from proxy.oci.mediatype import ANYTHING, Accept
from proxy.oci.reference import Digest, Reference, Repository
from proxy.oci.write import Target, Write, Written
from proxy.upstream.asker import Asker, Witness
from proxy.upstream.auth import Authorizer
from proxy.upstream.blobs import Blobs
from proxy.upstream.credentials import Credentials
from proxy.upstream.lists import Lists
from proxy.upstream.manifests import Manifests
from proxy.upstream.transport import Transport
from proxy.upstream.uploads import Sessions
from proxy.upstream.writes import Writes


class Upstream:
    """A registry over HTTP."""

    def __init__(
        self,
        transport: Transport,
        authorizer: Authorizer,
        missing: Collection[int] = (404,),
        secret: bytes = b"",
        witness: Witness = lambda repository, status, age: None,
    ) -> None:
        """Take what is needed.

        Args:
            missing: Statuses that mean "does not exist" here: Docker Hub says 401 of a missing repository.
            secret: Signs what clients bring back of an upload.
            witness: Is told how questions about repositories were answered.
        """
        self._secret = secret
        self._asker = Asker(transport, authorizer, missing, witness)
        self._manifests = Manifests(self._asker)
        self._blobs = Blobs(self._asker)
        self._lists = Lists(self._asker, self._manifests)
        self._writes = Writes(self._asker, Sessions(transport.url, secret))

    @property
    def name(self) -> str:
        """The upstream's name in the configuration."""
        return self._asker.name

    def acting_as(
        self,
        credentials: Credentials,
        longest: float = math.inf,
        witness: Witness = lambda repository, status, age: None,
    ) -> Upstream:
        """Return the same registry as somebody else sees it: cheap, with the connections and manners of this one.

        Rate limits are their own: a registry has one for each user.

        Args:
            longest: Seconds that a token of theirs counts, however long it lasts: a revoked permission must show.
            witness: Is told how their questions about repositories were answered.
        """
        asker = self._asker
        transport = asker.transport.apart()
        authorizer = Authorizer(asker.authorizer.door, credentials, longest, transport.tokens)
        return Upstream(transport, authorizer, asker.missing, self._secret, witness)

    async def greet(self) -> None:
        """Find out whether the credential is accepted now: `GET /v2/`, with a new token where tokens are used.

        A registry that asks nobody who they are accepts any. Raises `Refused` or `NoAnswer`.
        """
        await self._asker.greet()

    def retire(self) -> None:
        """Let metrics say no more of it: only requests in flight are left, and another may have its name."""
        self._asker.transport.retire()

    def stretch(self) -> float:
        """How many times longer answers should last now that the rate limit runs out: 1 to 10."""
        return self._asker.transport.registry.rate_limit.stretch()

    async def resolve(self, repository: Repository, reference: Reference, accept: Accept = ANYTHING) -> Resolved:
        """Ask with HEAD what a reference stands for, whatever is accepted."""
        return await self._manifests.resolve(repository, reference)

    async def manifest(self, repository: Repository, reference: Reference, accept: Accept = ANYTHING) -> Manifest:
        """Fetch a manifest, whatever is accepted."""
        return await self._manifests.manifest(repository, reference)

    def blob(self, repository: Repository, digest: Digest, part: Part) -> AbstractAsyncContextManager[Blob]:
        """Open a blob. A whole one is hashed on its way; a transfer that breaks is resumed where that can be done."""
        return self._blobs.open(repository, digest, part)

    async def locate(self, repository: Repository, digest: Digest, part: Part) -> Redirect:
        """Return where this registry would send a client for a blob: elsewhere, or to its own URL."""
        return await self._blobs.locate(repository, digest, part)

    async def tags(self, repository: Repository, limit: int | None, last: str) -> TagPage:
        """List tags."""
        return await self._lists.tags(repository, limit, last)

    async def catalog(self, limit: int | None, last: str) -> RepositoryPage:
        """List repositories. Raises `NoCatalog` where there is no such list."""
        return await self._lists.catalog(limit, last)

    async def referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Ask the referrers API and the fallback tag both."""
        return await self._lists.referrers(repository, digest)

    def check_write(self, at: Target) -> None:
        """The upstream itself says what it takes."""

    async def write(self, write: Write) -> Written:
        """Pass a step of a push on, streamed; what the upstream rejects is told with its own status and code."""
        return await self._writes.write(write)
