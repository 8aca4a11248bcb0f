import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.byterange import (
    ByteRange,
    ContentRange,
    Nothing,
    Part,
    SuffixRange,
    Whole,
    parse_content_range,
    parse_range,
    select,
)
from proxy.oci.errors import BadAnswer, NoAnswer, RangeInvalid

_ranges = st.builds(SuffixRange, st.integers(0, 10**17)) | st.tuples(
    st.integers(0, 10**17), st.none() | st.integers(0, 10**6)
).map(lambda pair: ByteRange(pair[0], None if pair[1] is None else pair[0] + pair[1]))


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-", ByteRange(0)),
        ("bytes=0-0", ByteRange(0, 0)),
        ("bytes=5-9", ByteRange(5, 9)),
        ("BYTES=5-9", ByteRange(5, 9)),
        (" bytes= 5 - 9 ", ByteRange(5, 9)),
        ("bytes=-5", SuffixRange(5)),
        ("bytes=-0", SuffixRange(0)),
        ("bytes=007-", ByteRange(7)),
        ("bytes=9-5", ByteRange(9, 5)),
    ],
)
def test_one_range_is_read(header: str, part: ByteRange | SuffixRange) -> None:
    """First and last byte are both included; without a first one it is a suffix."""
    assert parse_range(header) == part


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5",
        "bytes=--5",
        "bytes=-5-",
        "bytes=0x1-2",
        "bytes=1.5-2",
        "bytes=\u0661-\u0662",
        "items=0-5",
        "bytes=0-1,3-4",
        "bytes=0-,-1",
        "bytes=" + "9" * 5000 + "-",
        "bytes=0-" + "9" * 19,
        "bytes=0-1\x00",
    ],
)
def test_anything_else_means_the_whole_blob(header: str | None) -> None:
    """What isn't one valid range is ignored, several ranges too: a full 200 is always a right answer."""
    assert parse_range(header) == Whole()


@given(_ranges)
def test_written_range_is_read_back(part: ByteRange | SuffixRange) -> None:
    """The header that we send upstream says what we were asked."""
    assert parse_range(str(part)) == part


@pytest.mark.parametrize(
    ("part", "size", "first", "last"),
    [
        (ByteRange(0), 10, 0, 9),
        (ByteRange(0, 0), 10, 0, 0),
        (ByteRange(9), 10, 9, 9),
        (ByteRange(5, 10), 10, 5, 9),  # regclient asks for one byte too many
        (ByteRange(5, 10**17), 10, 5, 9),
        (SuffixRange(3), 10, 7, 9),
        (SuffixRange(10), 10, 0, 9),
        (SuffixRange(11), 10, 0, 9),
    ],
)
def test_range_is_clamped_to_the_blob(part: ByteRange | SuffixRange, size: int, first: int, last: int) -> None:
    """A range that reaches behind the end stops at the end."""
    assert part.within(size) == ContentRange(first, last, size)


@pytest.mark.parametrize(
    ("part", "size"),
    [
        (ByteRange(10), 10),
        (ByteRange(11, 12), 10),
        (ByteRange(9, 5), 10),
        (ByteRange(0), 0),
        (SuffixRange(0), 10),
        (SuffixRange(5), 0),
    ],
)
def test_range_without_a_byte_is_invalid(part: ByteRange | SuffixRange, size: int) -> None:
    """Only a range that has no byte of the blob is a 416, which tells the blob's size."""
    with pytest.raises(RangeInvalid) as raised:
        part.within(size)

    assert raised.value.status == 416
    assert raised.value.size == size


@pytest.mark.parametrize(
    ("part", "is_empty"),
    [
        (ByteRange(0), False),
        (ByteRange(5, 5), False),
        (ByteRange(5, 4), True),
        (SuffixRange(1), False),
        (SuffixRange(0), True),
    ],
)
def test_a_range_may_be_empty_whatever_the_blob(part: ByteRange | SuffixRange, is_empty: bool) -> None:
    """One that ends before it begins, and the last zero bytes, are in no blob."""
    assert part.is_empty is is_empty


@pytest.mark.parametrize(
    ("part", "size", "selected"),
    [
        (Whole(), 10, None),
        (Nothing(), 10, None),
        (ByteRange(5), 10, ContentRange(5, 9, 10)),
        (SuffixRange(5), 10, ContentRange(5, 9, 10)),
        (SuffixRange(5), 0, None),
    ],
)
def test_what_a_request_selects(part: Part, size: int, selected: ContentRange | None) -> None:
    """The last bytes of an empty blob are the whole of it; no 206 could say so."""
    assert select(part, size) == selected


@given(_ranges, st.integers(1, 10**17))
def test_range_within_a_blob_has_bytes_of_it(part: ByteRange | SuffixRange, size: int) -> None:
    """What `within` returns is never empty and never reaches outside."""
    try:
        found = part.within(size)
    except RangeInvalid:
        return

    assert 0 <= found.first <= found.last < size
    assert 1 <= found.length <= size


@pytest.mark.parametrize(
    ("header", "found", "length"),
    [
        ("bytes 0-9/10", ContentRange(0, 9, 10), 10),
        ("bytes 5-9/10", ContentRange(5, 9, 10), 5),
        ("bytes 5-5/*", ContentRange(5, 5, None), 1),
        (" BYTES 5-9/10 ", ContentRange(5, 9, 10), 5),
    ],
)
def test_content_range_is_read(header: str, found: ContentRange, length: int) -> None:
    """A star stands for a size that isn't known."""
    parsed = parse_content_range(header)

    assert parsed == found
    assert parsed.length == length


@pytest.mark.parametrize("found", [ContentRange(0, 9, 10), ContentRange(7, 7, None)])
def test_written_content_range_is_read_back(found: ContentRange) -> None:
    """Our own 206 says what we would understand."""
    assert parse_content_range(str(found)) == found


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes */10",
        "bytes 0-9",
        "bytes 9-5/10",
        "bytes 0-10/10",
        "bytes 0-9/0",
        "bytes=0-9/10",
        "items 0-9/10",
        "bytes -9/10",
        "bytes 0-9/10, 11-12/20",
        "bytes 0-" + "9" * 5000 + "/*",
        "bytes \u0660-\u0669/*",
    ],
)
def test_bad_content_range_is_a_bad_answer(header: str) -> None:
    """A 206 that doesn't say which bytes it holds can't be used; nothing is learned about the blob."""
    with pytest.raises(BadAnswer) as raised:
        parse_content_range(header)

    assert isinstance(raised.value, NoAnswer)
    assert len(raised.value.message) < 200
