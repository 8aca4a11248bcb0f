"""What every store must do. A test module has a class of its own for each, and a fixture that opens the store."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from conftest import until
from proxy.merge.entry import Entry, Part
from proxy.merge.rule import Learned
from proxy.oci.content import Descriptor
from proxy.oci.mediatype import DOCKER_LIST, DOCKER_MANIFEST
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest, Repository, Tag
from proxy.store.base import Content, Location, Metadata, Virtual

URLS = {"hub": "https://registry-1.docker.io", "site": "http://127.0.0.1:5000"}
HERE = Virtual("hub", Repository("kimoqi/alpine"))
ELSEWHERE = (Virtual("site", Repository("kimoqi/alpine")), Virtual("hub", Repository("kimoqi/alpine-x86")))
V1, V2 = Tag("1.0"), Tag("2.0")
DATA = b'{"schemaVersion":2}'
DIGEST = Digest.of(DATA)
SHA512 = Digest("sha512:" + Digest(f"sha512:{'0' * 128}").hasher().hexdigest())  # of no bytes


def an_entry(text: str = "one") -> Entry:
    """Return an entry with everything that one may have; another *text* makes another one."""
    child = Descriptor(
        media_type=DOCKER_MANIFEST,
        digest=Digest.of(text.encode()),
        size=7,
        platform=Platform("linux", "arm", "v7", "10.0", ("win32k",)),
        annotations={"a": "b"},
        artifact_type="application/x",
    )
    index = Descriptor(media_type=DOCKER_LIST, digest=Digest.of(b"index of " + text.encode()), size=1 << 40)
    return Entry(
        descriptor=index,
        merged=True,
        default_child=child,
        parts=(Part("hub", Repository("kimoqi/alpine-x86"), V1, child.digest, (child,)),),
        warnings=("linux/arm64 is missing",),
        fingerprint="f00",
        checked_at=1_700_000_000.25,
        changed_at=1_600_000_000.0,
    )


def a_location(upstream: str = "hub") -> Location:
    """Return a location."""
    return Location(upstream, Repository("kimoqi/alpine-x86"), DOCKER_MANIFEST)


def what_was_learned(convention: str = "repository-suffix") -> Learned:
    """Return what was learned."""
    return Learned(convention, ("x86", "arm"), 1_700_000_000.5)


class ContentConformance:
    """Content by digest."""

    async def test_what_was_never_put_is_absent(self, content: Content) -> None:
        """A digest that nobody put is None, not an error."""
        assert await content.get(DIGEST) is None

    @pytest.mark.parametrize(
        ("digest", "data"), [(DIGEST, DATA), (Digest.of(b"\0" * 5000), b"\0" * 5000), (SHA512, b"")]
    )
    async def test_what_was_put_comes_back(self, content: Content, digest: Digest, data: bytes) -> None:
        """Bytes come back as they were put, none at all and sha512 included."""
        await content.put(digest, data)

        assert await content.get(digest) == data

    async def test_putting_twice_is_putting_once(self, content: Content) -> None:
        """The same content may come from several sources."""
        await content.put(DIGEST, DATA)
        await content.put(DIGEST, DATA)

        assert await content.get(DIGEST) == DATA

    async def test_what_was_remembered_comes_back(self, content: Content) -> None:
        """What could be had again comes back as well, at once or a moment later."""
        await content.remember(DIGEST, DATA)

        async def is_there() -> bool:
            return await content.get(DIGEST) is not None

        await until(is_there)
        assert await content.get(DIGEST) == DATA

    async def test_one_digest_says_nothing_of_another(self, content: Content) -> None:
        """Each digest has its own bytes."""
        await content.put(DIGEST, DATA)

        assert await content.get(Digest.of(b"other")) is None

    async def test_many_at_once_are_no_problem(self, content: Content) -> None:
        """Puts and gets at the same time, of the same and of other digests, give whole contents."""
        bodies = [bytes([n]) * 3000 for n in range(10)]
        await asyncio.gather(*(content.put(Digest.of(body), body) for body in bodies * 3))

        found = await asyncio.gather(*(content.get(Digest.of(body)) for body in bodies))

        assert found == bodies


class MetadataConformance:
    """Entries, locations, and what was learned."""

    async def test_a_new_store_knows_nothing(self, metadata: Metadata) -> None:
        """What was never kept is None, not an error."""
        assert await metadata.entry(HERE, V1) is None
        assert await metadata.location(HERE, DIGEST) is None
        assert await metadata.learned(HERE) is None

    async def test_an_entry_comes_back(self, metadata: Metadata) -> None:
        """An entry comes back equal, to its last annotation and fraction of a second."""
        await metadata.keep_entry(HERE, V1, an_entry())

        assert await metadata.entry(HERE, V1) == an_entry()

    async def test_the_last_entry_counts(self, metadata: Metadata) -> None:
        """A tag stands for what was kept last."""
        await metadata.keep_entry(HERE, V1, an_entry("one"))
        await metadata.keep_entry(HERE, V1, an_entry("two"))

        assert await metadata.entry(HERE, V1) == an_entry("two")

    async def test_an_entry_belongs_to_its_tag_repository_and_upstream(self, metadata: Metadata) -> None:
        """Another tag, repository or upstream is another entry."""
        await metadata.keep_entry(HERE, V1, an_entry())

        assert await metadata.entry(HERE, V2) is None
        assert [await metadata.entry(virtual, V1) for virtual in ELSEWHERE] == [None, None]

    async def test_a_dropped_entry_is_gone(self, metadata: Metadata) -> None:
        """A dropped entry is forgotten; other tags and the locations stay."""
        await metadata.keep_entry(HERE, V1, an_entry())
        await metadata.keep_entry(HERE, V2, an_entry())
        await metadata.keep_location(HERE, DIGEST, a_location())
        await metadata.drop_entry(HERE, V1)

        assert await metadata.entry(HERE, V1) is None
        assert await metadata.entry(HERE, V2) == an_entry()
        assert await metadata.location(HERE, DIGEST) == a_location()

    async def test_dropping_nothing_is_no_error(self, metadata: Metadata) -> None:
        """An entry that isn't there can be dropped."""
        await metadata.drop_entry(HERE, V1)

        assert await metadata.entry(HERE, V1) is None

    async def test_a_location_comes_back(self, metadata: Metadata) -> None:
        """The last location of a digest comes back; an empty upstream means an index of our own, and whose it is."""
        await metadata.keep_location(HERE, DIGEST, a_location())
        await metadata.keep_location(HERE, DIGEST, replace(a_location(""), personal=True))

        assert await metadata.location(HERE, DIGEST) == replace(a_location(""), personal=True)

    async def test_a_dropped_location_is_forgotten(self, metadata: Metadata) -> None:
        """A location that was dropped is gone, also one that was never there; others stay."""
        other = Digest.of(b"other")
        await metadata.keep_location(HERE, DIGEST, a_location())
        await metadata.keep_location(HERE, other, a_location())
        await metadata.drop_location(HERE, DIGEST)
        await metadata.drop_location(HERE, Digest.of(b"never there"))

        assert await metadata.location(HERE, DIGEST) is None
        assert await metadata.location(HERE, other) == a_location()

    async def test_a_location_belongs_to_its_virtual_repository(self, metadata: Metadata) -> None:
        """What a digest is in one virtual repository is no permission in another (law 8)."""
        await metadata.keep_location(HERE, DIGEST, a_location())

        assert [await metadata.location(virtual, DIGEST) for virtual in ELSEWHERE] == [None, None]
        assert await metadata.location(HERE, Digest.of(b"other")) is None

    async def test_what_was_learned_comes_back(self, metadata: Metadata) -> None:
        """The last thing learned of a virtual repository comes back, and is no other's."""
        await metadata.keep_learned(HERE, what_was_learned("namespace"))
        await metadata.keep_learned(HERE, what_was_learned())

        assert await metadata.learned(HERE) == what_was_learned()
        assert [await metadata.learned(virtual) for virtual in ELSEWHERE] == [None, None]

    async def test_the_three_kinds_do_not_collide(self, metadata: Metadata) -> None:
        """An entry, a location and what was learned of one repository live side by side."""
        await metadata.keep_entry(HERE, V1, an_entry())
        await metadata.keep_location(HERE, DIGEST, a_location())
        await metadata.keep_learned(HERE, what_was_learned())

        assert await metadata.entry(HERE, V1) == an_entry()
        assert await metadata.location(HERE, DIGEST) == a_location()
        assert await metadata.learned(HERE) == what_was_learned()

    async def test_who_reads_meanwhile_gets_an_old_or_a_new_entry(self, metadata: Metadata) -> None:
        """Reading while others write gives one of the entries, whole."""
        entries = [an_entry(str(n)) for n in range(20)]
        await metadata.keep_entry(HERE, V1, entries[0])
        writing = asyncio.gather(*(metadata.keep_entry(HERE, V1, entry) for entry in entries))

        found = await asyncio.gather(*(metadata.entry(HERE, V1) for _ in range(20)))

        await writing
        assert all(entry in entries for entry in found)
