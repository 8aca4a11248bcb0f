"""Metadata as JSON and back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.merge.entry import Entry, Part
from proxy.merge.rule import Learned
from proxy.store import codec
from proxy.store.base import Location
from store.conformance import a_location, an_entry, what_was_learned
from strategies import children, digests, images, repositories, tags

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
SECONDS = st.floats(allow_nan=False, allow_infinity=False)
PARTS = st.builds(Part, TEXTS, repositories, tags, digests, children())
ENTRIES = images().flatmap(
    lambda found: st.builds(
        Entry,
        descriptor=st.just(found[0]),
        merged=st.booleans(),
        default_child=st.sampled_from([None, found[-1]]),
        parts=st.lists(PARTS, max_size=3).map(tuple),
        warnings=st.lists(TEXTS, max_size=2).map(tuple),
        fingerprint=TEXTS,
        checked_at=SECONDS,
        changed_at=SECONDS,
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | SECONDS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def decoded(data: bytes) -> list[Entry | Location | Learned | None]:
    """Read *data* as each of the three kinds."""
    return [codec.decode(codec.entry, data), codec.decode(codec.location, data), codec.decode(codec.learned, data)]


def paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values within a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, inner in items for found in paths(inner, (*path, key)))]


def replaced(document: Any, path: tuple[Any, ...], value: object) -> Any:
    """Return *document* with *value* at *path*."""
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


@settings(max_examples=40)  # entries are large
@given(ENTRIES)
def test_entries_come_back(entry: Entry) -> None:
    """An entry, written and read, equals itself."""
    assert codec.decode(codec.entry, codec.encode(entry)) == entry


@given(st.builds(Location, TEXTS, repositories, TEXTS, TEXTS.map(str.encode)))
def test_locations_come_back(location: Location) -> None:
    """A location, written and read, equals itself."""
    assert codec.decode(codec.location, codec.encode(location)) == location


@given(st.builds(Learned, TEXTS, st.lists(TEXTS, max_size=3).map(tuple), SECONDS))
def test_what_was_learned_comes_back(learned: Learned) -> None:
    """What was learned, written and read, equals itself."""
    assert codec.decode(codec.learned, codec.encode(learned)) == learned


@given(st.binary() | JSON.map(orjson.dumps))
def test_garbage_is_nothing(data: bytes) -> None:
    """Bytes that nobody wrote here count as not kept."""
    assert decoded(data) == [None, None, None]


@given(st.data())
def test_a_record_with_one_wrong_value_reads_or_does_not_but_never_raises(data: st.DataObject) -> None:
    """Whatever stands in the place of one value: a record of the right type, or None."""
    document = orjson.loads(codec.encode(an_entry()))
    path = data.draw(st.sampled_from(paths(document)))
    value = data.draw(JSON)

    found = codec.decode(codec.entry, orjson.dumps(replaced(document, path, value)))

    assert found is None or isinstance(found, Entry)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("descriptor", "digest"), "sha256:../../etc/passwd"),
        (("descriptor", "size"), "many"),
        (("descriptor", "platform"), {"os": "linux"}),
        (("descriptor", "platform"), "linux/amd64"),
        (("default_child",), {}),
        (("default_child", "platform", "os"), 5),
        (("default_child", "platform", "variant"), None),
        (("default_child", "platform", "os_features"), [["win32k"]]),
        (("descriptor", "annotations"), {"a": 1}),
        (("default_child", "platform", "cpu"), "fast"),
        (("parts",), None),
        (("parts", 0, "repository"), "../secret"),
        (("parts", 0, "tag"), "a/b"),
        (("parts", 0, "digest"), "md5:1"),
        (("parts", 0, "children"), "abc"),
        (("warnings",), 5),
        (("checked_at",), None),
        (("changed_at",), "yesterday"),
    ],
)
def test_what_can_not_be_is_not_read(path: tuple[Any, ...], value: object) -> None:
    """Names follow their grammar and values have their type, or the record counts as not kept."""
    document = orjson.loads(codec.encode(an_entry()))
    *parents, last = path
    inner = document
    for key in parents:
        inner = inner[key]
    inner[last] = value

    assert codec.decode(codec.entry, orjson.dumps(document)) is None


def test_lists_as_deep_as_json_may_be_are_not_read() -> None:
    """A thousand lists within each other can't be written as a word, and aren't read."""
    location = codec.encode(a_location()).replace(
        b'"upstream":"', b'"upstream":' + b"[" * 1010 + b"]" * 1010 + b',"x":"'
    )

    assert codec.decode(codec.location, location) is None


@pytest.mark.parametrize("key", sorted(orjson.loads(codec.encode(an_entry()))))
def test_what_is_incomplete_is_not_read(key: str) -> None:
    """A record of an older version, without one of the keys, counts as not kept."""
    document = orjson.loads(codec.encode(an_entry()))
    del document[key]

    assert codec.decode(codec.entry, orjson.dumps(document)) is None


@pytest.mark.parametrize("record", [an_entry(), a_location(), what_was_learned()])
def test_half_a_record_is_nothing(record: Entry | Location | Learned) -> None:
    """A record that was cut anywhere counts as not kept."""
    whole = codec.encode(record)

    assert all(decoded(whole[:end]) == [None, None, None] for end in range(len(whole)))


def test_one_kind_is_not_another() -> None:
    """What was written as one kind isn't read as another."""
    kinds = [
        [bool(found) for found in decoded(codec.encode(r))] for r in (an_entry(), a_location(), what_was_learned())
    ]

    assert kinds == [[True, False, False], [False, True, False], [False, False, True]]
