"""Blobs kept on their way: one transfer, any number of followers, and what becomes of them when something fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import until
from proxy.oci.byterange import ByteRange, Nothing, Part, SuffixRange, Whole, select
from proxy.oci.errors import BadAnswer, BlobUnknown, NoAnswer, RangeInvalid, Refused, RegistryError, Unreachable
from store.spooled import DATA, Registry, World, holder


async def test_a_blob_is_fetched_once(world: World) -> None:
    """What was fetched for one client is kept for the next, under its digest."""
    registry = Registry()

    answers = []
    for _ in range(3):
        answers.append(await world.read(registry))
        await world.settle()

    assert answers == [DATA] * 3
    assert registry.opened == [Whole()]
    assert world.files() == [registry.digest.hex]
    assert [world.count("blob_cache", result=result) for result in ("miss", "hit")] == [1, 2]
    assert world.metrics.blob_cache_bytes._value.get() == len(DATA)


async def test_what_is_kept_comes_from_the_file(world: World) -> None:
    """A hit has the place in the file, for the kernel to send."""
    registry = Registry()
    await world.read(registry)
    await world.settle()

    async with world.spool.open(holder(registry), ByteRange(1000, 1999)) as blob:
        assert blob.file is not None
        assert os.pread(blob.file.descriptor, blob.file.length, blob.file.offset) == DATA[1000:2000]
        assert str(blob.part) == "bytes 1000-1999/3000000"


async def test_many_follow_one_transfer(world: World) -> None:
    """All that come while it is fetched get their bytes from one transfer."""
    registry = Registry()

    answers = await asyncio.gather(*(world.read(registry) for _ in range(50)))

    assert answers == [DATA] * 50
    assert registry.opened == [Whole()]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.just(Whole()),
                st.builds(SuffixRange, st.integers(1, 4_000_000)),
                st.builds(ByteRange, st.integers(0, 2_999_999)),
                st.tuples(st.integers(0, 2_999_999), st.integers(0, 3_000_000)).map(
                    lambda pair: ByteRange(pair[0], pair[0] + pair[1])
                ),
            ),
            st.integers(0, 3),
            st.none() | st.integers(0, 2_000_000),
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([7_000, 100_000, 1_500_000]),
    st.booleans(),
)
def test_any_mix_of_paces_ranges_and_departures(
    tmp_path_factory: pytest.TempPathFactory, clients: list[tuple[Part, int, int | None]], chunk: int, announced: bool
) -> None:
    """Everybody gets exactly the bytes that were asked for, whoever is slow or leaves, from one transfer."""

    async def client(world: World, registry: Registry, part: Part, pauses: int, leaves_at: int | None) -> None:
        wanted = select(part, len(DATA))
        expected = DATA[wanted.first : wanted.last + 1] if wanted else DATA
        got = bytearray()
        async with world.spool.open(holder(registry), part) as blob:
            async for piece in blob.chunks:
                got += piece
                for _ in range(pauses):
                    await asyncio.sleep(0.001)
                if leaves_at is not None and len(got) > leaves_at:
                    break
        assert bytes(got) == expected[: len(got)]
        assert len(got) == len(expected) or leaves_at is not None

    async def run() -> None:
        registry = Registry(chunk=chunk, announced=announced)
        world = World(tmp_path_factory.mktemp("mix") / "cache")
        await asyncio.gather(*(client(world, registry, *each) for each in clients))
        await world.settle()
        assert registry.opened == [Whole()]
        assert world.files() == [registry.digest.hex]
        assert (world.root / "blobs" / "sha256" / registry.digest.hex).read_bytes() == DATA

    asyncio.run(run())


async def test_bytes_are_passed_on_as_they_come(world: World) -> None:
    """A client doesn't wait for a block to be full, or for the end."""
    registry = Registry()
    registry.allowed = 1

    async with world.spool.open(holder(registry), Whole()) as blob:
        first = await anext(blob.chunks)
        registry.allowed = 1 << 40
        rest = [chunk async for chunk in blob.chunks]

    assert first == DATA[:100_000]
    assert b"".join([first, *rest]) == DATA


async def test_a_range_far_behind_is_opened_at_once(world: World) -> None:
    """The headers of a range are known long before its bytes are there."""
    registry = Registry()
    registry.allowed = 1

    async with world.spool.open(holder(registry), SuffixRange(10)) as blob:
        assert str(blob.part) == "bytes 2999990-2999999/3000000"
        registry.allowed = 1 << 40
        assert b"".join([chunk async for chunk in blob.chunks]) == DATA[-10:]


async def test_without_a_size_a_range_is_opened_when_its_bytes_are_there(world: World) -> None:
    """Where the upstream doesn't say how long it is, the end has to be seen first, or the range's."""
    registry = Registry(announced=False)
    registry.allowed = 200_001

    async with world.spool.open(holder(registry), ByteRange(1000, 250_000)) as blob:
        assert str(blob.part) == "bytes 1000-250000/*"
        assert b"".join([chunk async for chunk in blob.chunks]) == DATA[1000:250_001]
    waiting = asyncio.create_task(world.read(registry, SuffixRange(5)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    registry.allowed = 1 << 40

    assert await waiting == DATA[-5:]


async def test_who_leaves_stops_nothing(world: World) -> None:
    """When all clients have left, the transfer still ends, and what it brought is kept."""
    registry = Registry()
    registry.allowed = 1
    async with world.spool.open(holder(registry), Whole()) as blob:
        await anext(blob.chunks)
    registry.allowed = 1 << 40
    await world.settle()

    assert await world.read(registry) == DATA
    assert registry.opened == [Whole()]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_broken_transfer_breaks_everybody_off(world: World, announced: bool) -> None:
    """When it fails, nobody's bytes end cleanly, nothing is kept, and the next one asks anew."""
    registry = Registry(announced=announced)
    registry.breaks_at, registry.allowed = 2_000_000, 1
    reading = [asyncio.create_task(world.read(registry)) for _ in range(5)]
    await until(lambda: world.waiting == 5)
    registry.allowed = 1 << 40

    answers = await asyncio.gather(*reading, return_exceptions=True)
    await world.settle()

    assert [type(answer) for answer in answers] == [Unreachable] * 5
    assert world.files() == []
    registry.breaks_at = 1 << 40
    assert await world.read(registry) == DATA
    assert registry.transfers == 2


async def test_a_transfer_of_another_size_is_broken(world: World) -> None:
    """A registry that sends less than it announced has sent another blob."""

    class Liar(Registry):
        async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
            yield data[:-1]

    with pytest.raises(BadAnswer):
        await world.read(Liar())

    await world.settle()
    assert world.files() == []


@pytest.mark.parametrize("refusal", [BlobUnknown("no"), Refused("no"), Unreachable("no")])
async def test_what_is_not_there_is_told_to_all(world: World, refusal: RegistryError) -> None:
    """What is said before the first byte is the answer to everybody who waits, and nothing is left of it."""
    registry = Registry()
    registry.refusal, registry.allowed = refusal, 0
    reading = [asyncio.create_task(world.read(registry)) for _ in range(5)]
    await until(lambda: world.waiting == 5)
    registry.allowed = 1

    answers = await asyncio.gather(*reading, return_exceptions=True)

    assert answers == [refusal] * 5
    assert registry.opened == [Whole()]


async def test_another_source_is_asked_where_the_first_refuses(world: World) -> None:
    """A client of another source doesn't suffer for the one whose transfer it found under way."""
    refusing, granting = Registry(), Registry()
    refusing.refusal, refusing.allowed = Refused("no"), 0
    refused = asyncio.create_task(world.read(refusing))
    await until(lambda: refusing.transfers == 1)
    granted = asyncio.create_task(world.read(granting))
    await until(lambda: world.waiting == 2)
    refusing.allowed = 1

    assert await granted == DATA
    with pytest.raises(Refused):
        await refused
    assert (refusing.transfers, granting.transfers) == (1, 1)


async def test_head_asks_for_no_transfer(world: World) -> None:
    """HEAD of what isn't kept is passed on; of what is kept, or on its way, nobody is asked."""
    registry = Registry()

    async def size() -> int | None:
        async with world.spool.open(holder(registry), Nothing()) as blob:
            return blob.size

    assert await size() == len(DATA)
    assert registry.opened == [Nothing()]
    registry.allowed = 1
    async with world.spool.open(holder(registry), Whole()) as blob:
        await anext(blob.chunks)
        assert await size() == len(DATA)
    registry.allowed = 1 << 40
    await world.settle()
    assert await size() == len(DATA)
    assert registry.opened == [Nothing(), Whole()]


@pytest.mark.parametrize("part", [ByteRange(len(DATA)), SuffixRange(0), ByteRange(5, 4)])
async def test_a_range_without_bytes_is_refused(world: World, part: Part) -> None:
    """Whether it is kept already or not; and of a new one only when all of it was seen and right."""
    registry = Registry()
    for _ in range(2):
        with pytest.raises(RangeInvalid) as raised:
            await world.read(registry, part)
        assert raised.value.size == len(DATA)
        await world.settle()
    broken = Registry(DATA[1:])
    broken.breaks_at = 1_000_000

    with pytest.raises(NoAnswer):
        await world.read(broken, part)


async def test_an_empty_blob(world: World) -> None:
    """A blob of no bytes is kept, too."""
    registry = Registry(b"")

    for part in (Whole(), Whole(), SuffixRange(5)):
        assert await world.read(registry, part) == b""
        await world.settle()

    assert registry.opened == [Whole()]


async def test_two_processes_fetch_the_same_blob(world: World) -> None:
    """Each follows a transfer of its own, both are right, and one file is kept."""
    registry = Registry()
    registry.allowed = 1
    other = world.another()
    reading = [asyncio.create_task(world.read(registry, spool=spool)) for spool in (world.spool, other) * 5]
    await until(lambda: registry.transfers == 2)
    registry.allowed = 1 << 40

    answers = await asyncio.gather(*reading)
    await until(lambda: not other._tasks)
    await world.settle()

    assert answers == [DATA] * 10
    assert registry.transfers == 2
    assert world.files() == [registry.digest.hex]


async def test_stopping_in_the_middle(world: World) -> None:
    """A spool that is closed gives up what is under way: its clients are broken off, its files are gone."""
    registry = Registry()
    registry.allowed = 1_500_000
    reading = asyncio.create_task(world.read(registry))
    await until(lambda: len(world.files("tmp")) == 1)

    await world.spool.close()

    with pytest.raises(Unreachable):
        await reading
    assert world.files() == world.files("tmp") == []
