"""Blobs that break off on their way: resumed where it can be done, never ended cleanly where it can't."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.byterange import ByteRange, ContentRange
from proxy.oci.errors import BadAnswer, BlobUnknown, NoAnswer, Overloaded, RegistryError, TimedOut, Unreachable
from proxy.oci.reference import Digest
from proxy.upstream.transfer import MAX_RESUMPTIONS, cut, hashed, measured, resumed

DATA = bytes(range(256)) * 4
Step = int | RegistryError


class Upstream:
    """Sends as many bytes as each step says, then breaks; an error step refuses to open."""

    def __init__(self, *steps: Step, error: NoAnswer | None = None) -> None:
        self.steps = list(steps)
        self.error = error or Unreachable("broke off")
        self.asked: list[str] = []

    async def first(self) -> AsyncIterator[bytes]:
        """Send what the first step allows."""
        async for chunk in self._send(0):
            yield chunk

    def reopen(self) -> Callable[[ByteRange], AbstractAsyncContextManager[AsyncIterator[bytes]]]:
        """Return how the rest is opened."""

        @asynccontextmanager
        async def rest(part: ByteRange) -> AsyncIterator[AsyncIterator[bytes]]:
            self.asked.append(str(part))
            if self.steps and isinstance(self.steps[0], RegistryError):
                step = self.steps.pop(0)
                assert isinstance(step, RegistryError)
                raise step
            yield self._send(part.first)

        return rest

    async def _send(self, start: int) -> AsyncIterator[bytes]:
        allowed = self.steps.pop(0) if self.steps else len(DATA)
        assert isinstance(allowed, int)
        for position in range(start, min(start + allowed, len(DATA)), 100):
            yield DATA[position : min(position + 100, start + allowed)]
        if start + allowed < len(DATA):
            raise self.error


async def collect(upstream: Upstream, length: int | None = len(DATA)) -> bytes:
    """Return all bytes that arrive."""
    chunks = resumed(upstream.first(), 0, length, upstream.reopen(), "hub")
    return b"".join([chunk async for chunk in chunks])


async def test_a_whole_transfer_is_left_alone() -> None:
    """What arrives in one piece costs one request."""
    upstream = Upstream()

    assert await collect(upstream) == DATA
    assert upstream.asked == []


@pytest.mark.parametrize("error", [Unreachable("gone"), TimedOut("silent")])
async def test_a_break_is_mended_from_where_it_was(error: NoAnswer) -> None:
    """After a break exactly the missing bytes are asked for, as often as it takes."""
    upstream = Upstream(250, 100, 3, error=error)

    assert await collect(upstream) == DATA
    assert upstream.asked == ["bytes=250-1023", "bytes=350-1023", "bytes=353-1023"]


async def test_failures_without_a_byte_are_counted() -> None:
    """Three times in a row without a single byte is enough, and the last reason is told."""
    upstream = Upstream(250, *[Overloaded("hub answered 503")] * 9)

    with pytest.raises(Overloaded):
        await collect(upstream)
    assert len(upstream.asked) == MAX_RESUMPTIONS


@pytest.mark.parametrize("refusal", [BadAnswer("it ignores ranges"), BlobUnknown("gone")])
async def test_what_can_t_be_resumed_tells_why_it_broke(refusal: RegistryError) -> None:
    """An upstream that won't give the rest isn't asked again; the first cause is what counts."""
    upstream = Upstream(250, refusal)

    with pytest.raises(Unreachable, match="broke off"):
        await collect(upstream)
    assert len(upstream.asked) == 1


async def test_without_a_length_nothing_is_resumed() -> None:
    """Where the end is unknown a break is raised as it is."""
    upstream = Upstream(250)

    with pytest.raises(Unreachable):
        await collect(upstream, length=None)
    assert upstream.asked == []


@given(steps=st.lists(st.integers(1, 500), max_size=8))
async def test_however_it_breaks_the_bytes_are_right(steps: list[int]) -> None:
    """Any series of breaks with some progress between them ends in the same bytes."""
    assert await collect(Upstream(*steps)) == DATA


async def chunked(data: bytes, size: int = 7) -> AsyncIterator[bytes]:
    """Send *data* in small pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def test_the_last_chunk_waits_for_the_hash() -> None:
    """Of a wrong blob everything arrives but its last chunk."""
    chunks = hashed(chunked(b"x" * 20), Digest.of(b"y"), "hub")
    arrived = [await anext(chunks), await anext(chunks)]

    assert b"".join(arrived) == b"x" * 14
    with pytest.raises(BadAnswer, match="doesn't hash"):
        await anext(chunks)


@pytest.mark.parametrize(("data", "error"), [(b"short", Unreachable), (b"much too long", BadAnswer)])
async def test_a_part_has_its_length(data: bytes, error: type[NoAnswer]) -> None:
    """A part that is shorter or longer than announced is an error."""
    with pytest.raises(error):
        _ = [chunk async for chunk in measured(chunked(data), 8, "hub")]


@given(data=st.binary(min_size=1, max_size=64), size=st.integers(1, 9), bounds=st.data())
async def test_a_cut_is_a_slice(data: bytes, size: int, bounds: st.DataObject) -> None:
    """Cutting a stream gives what slicing its bytes gives."""
    first = bounds.draw(st.integers(0, len(data) - 1))
    last = bounds.draw(st.integers(first, len(data) - 1))

    pieces = [piece async for piece in cut(chunked(data, size), ContentRange(first, last, len(data)))]

    assert b"".join(pieces) == data[first : last + 1]
