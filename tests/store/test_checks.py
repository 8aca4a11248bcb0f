"""Which kept blobs are to be looked at, and in what order."""

from __future__ import annotations

import asyncio

import pytest

from conftest import Clock, until
from proxy.oci.reference import Digest
from proxy.store import checks
from proxy.store.checks import Checks, Seen

ONE, TWO, THREE = (Digest.of(bytes([n])) for n in range(3))


def test_a_file_is_due_until_it_was_seen_and_a_day_later() -> None:
    """One that was put in its place is due at once."""
    clock = Clock()
    seen = Seen(clock)
    first = seen.is_due(ONE, 7)
    seen.note(ONE, 7, 100)

    assert (first, seen.is_due(ONE, 7), seen.is_due(ONE, 8), seen.is_due(TWO, 7)) == (True, False, True, True)
    clock.advance(86_400)
    assert seen.is_due(ONE, 7)


def test_a_file_is_wrong_where_its_size_is_or_it_was_seen_to_be() -> None:
    """What takes the place of a damaged one isn't, whatever its size."""
    seen = Seen(Clock())
    unknown = seen.is_wrong(ONE, 7, 99)
    seen.note(ONE, 7, 100)
    seen.note(TWO, 7, None)

    assert (unknown, seen.is_wrong(ONE, 7, 100), seen.is_wrong(ONE, 8, 100), seen.is_wrong(ONE, 8, 99)) == (
        False,
        False,
        False,
        True,
    )
    assert (seen.is_wrong(TWO, 7, 100), seen.is_wrong(TWO, 8, 100)) == (True, False)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten, and due again."""
    monkeypatch.setattr(checks, "_MOST", 2)
    seen = Seen(Clock())
    for digest in (ONE, TWO, THREE):
        seen.note(digest, 7, 100)

    assert [seen.is_due(digest, 7) for digest in (ONE, TWO, THREE)] == [True, False, False]


async def test_the_line_is_bounded_and_has_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds no place in it is looked at after another use."""
    monkeypatch.setattr(checks, "_WAITING", 2)
    looked: list[Digest] = []

    async def look(digest: Digest) -> None:
        looked.append(digest)
        await asyncio.sleep(0)

    line = Checks(look)
    for digest in (ONE, ONE, TWO, THREE):
        line.add(digest)
    await until(lambda: line.is_idle)

    assert looked == [ONE, TWO]
    await line.close()
