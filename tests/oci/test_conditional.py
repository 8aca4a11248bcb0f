import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.byterange import ByteRange, Part, Whole
from proxy.oci.conditional import etag, is_known, wanted
from proxy.oci.reference import Digest

DIGEST = Digest.of(b"")
OTHER = Digest.of(b"other")


@pytest.mark.parametrize(
    "headers",
    [
        [f'"{DIGEST}"'],
        [f'W/"{DIGEST}"'],
        [DIGEST],
        [f'"{OTHER}", "{DIGEST}"'],
        [f'"{OTHER}",W/"{DIGEST}"'],
        [f"{OTHER},{DIGEST}"],
        [f'"{OTHER}"', f'"{DIGEST}"'],
        [f'"a, b", "{DIGEST}"'],
        [f'  "{DIGEST}"  '],
        ["*"],
        [" * "],
    ],
)
def test_what_the_client_has_needs_no_bytes(headers: list[str]) -> None:
    """Quoted, weak or bare, alone or in a list, in one header or several; and `*` for anything."""
    assert is_known(headers, DIGEST)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        [f'"{OTHER}"'],
        [f'"{DIGEST}x"'],
        [f'"x{DIGEST}"'],
        [f'"a {DIGEST} b"'],
        [f'"{OTHER}", "*"'],
        [DIGEST.hex],
        ['"' * 100],
    ],
)
def test_what_the_client_lacks_is_sent(headers: list[str]) -> None:
    """Another tag, a part of one, or what is none."""
    assert not is_known(headers, DIGEST)


@given(st.lists(st.text(max_size=50), max_size=5))
def test_any_header_can_be_read(headers: list[str]) -> None:
    """Nothing that a client sends is an error, and the right tag counts beside any other that ends."""
    is_known(headers, DIGEST)

    assert is_known([f'"{DIGEST}"', *headers], DIGEST)


@pytest.mark.parametrize(
    ("if_range", "part"),
    [
        (None, ByteRange(5)),
        (etag(DIGEST), ByteRange(5)),
        (f" {etag(DIGEST)} ", ByteRange(5)),
        (f"W/{etag(DIGEST)}", Whole()),
        (DIGEST, Whole()),
        (etag(OTHER), Whole()),
        ("Wed, 21 Oct 2015 07:28:00 GMT", Whole()),
        ("", Whole()),
    ],
)
def test_a_range_counts_for_its_own_bytes(if_range: str | None, part: Part) -> None:
    """Only the strong tag of these bytes lets the range count; a date never does."""
    assert wanted("bytes=5-", if_range, DIGEST) == part


def test_without_a_range_there_is_nothing_to_count() -> None:
    """`If-Range` alone asks for all."""
    assert wanted(None, etag(DIGEST), DIGEST) == Whole()
