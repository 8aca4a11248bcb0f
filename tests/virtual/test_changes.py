"""Changes travel between processes as messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.reference import Digest, Repository, Tag
from proxy.store.base import Virtual
from proxy.virtual.changes import Change, Deleted, Listed, Pushed, Suspected, decode, encode

HERE = Virtual("hub", Repository("team/app"))


@pytest.mark.parametrize(
    "change",
    [Pushed(HERE, Tag("1.0")), Suspected(HERE, Tag("1.0")), Listed(HERE), Deleted(HERE, Digest.of(b""))],
)
def test_a_message_says_what_changed(change: Change) -> None:
    """What one process writes another reads, in one line."""
    message = encode(change)

    assert decode(message) == change
    assert b"\n" not in message


@given(st.binary(max_size=80))
def test_anything_else_is_refused(message: bytes) -> None:
    """A message that is none never changes anything."""
    with pytest.raises(ValueError, match=r".*"):
        decode(message)


@pytest.mark.parametrize(
    "message", [b"{}", b"[]", b'{"kind":"Pushed","upstream":"hub","repository":"team/app","tag":"-"}', b'{"kind":"X"}']
)
def test_a_change_of_nothing_is_refused(message: bytes) -> None:
    """Names are read as strictly as everywhere."""
    with pytest.raises(ValueError, match="change"):
        decode(message)
