import re
from collections.abc import Iterator

import pytest

import proxy.oci.endpoint
from proxy.oci.errors import (
    BadAnswer,
    BlobUnknown,
    Crowded,
    Denial,
    Denied,
    DigestInvalid,
    Invalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    NoAnswer,
    NoCatalog,
    NotFound,
    Overloaded,
    PaginationInvalid,
    RangeInvalid,
    Refused,
    RegistryError,
    Rejected,
    TagInvalid,
    TimedOut,
    TooLarge,
    Unauthorized,
    Unreachable,
    Unsupported,
    UploadUnknown,
)

# The distribution specification's codes and those of distribution's registry/api/errcode that we use.
CODES = {
    "BLOB_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "PAGINATION_NUMBER_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "RANGE_INVALID",
    "SIZE_INVALID",
    "TAG_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNAVAILABLE",
    "UNKNOWN",
    "UNSUPPORTED",
}


def _all(root: type[RegistryError]) -> Iterator[type[RegistryError]]:
    yield root
    for child in root.__subclasses__():
        yield from _all(child)


EVERY = sorted(set(_all(RegistryError)), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_has_a_row_of_the_table(kind: type[RegistryError]) -> None:
    """Code and status are known to clients, and the message is kept as it was given."""
    error = Rejected("why", status=400, code="BLOB_UNKNOWN") if kind is Rejected else kind("why")

    assert error.code in CODES
    assert re.fullmatch(r"[A-Z_]+", error.code)
    assert 400 <= error.status < 600
    assert error.message == str(error) == "why"
    assert kind.__doc__


@pytest.mark.parametrize("kind", EVERY)
def test_no_answer_is_never_a_denial(kind: type[RegistryError]) -> None:
    """An answer may be remembered and no answer may not: no class is both, and a refusal is neither."""
    assert not (issubclass(kind, Denial) and issubclass(kind, NoAnswer))
    assert not (issubclass(kind, Refused) and issubclass(kind, Denial | NoAnswer))


@pytest.mark.parametrize("kind", EVERY)
def test_status_follows_the_branch(kind: type[RegistryError]) -> None:
    """A denial is a 4xx, no answer a 502 or 503: no client concludes from those that something doesn't exist."""
    if issubclass(kind, NoAnswer):
        assert kind.status in {502, 503}
    if issubclass(kind, Denial) and kind not in (Denial, Rejected):  # the one has no row, the other any
        assert kind.status in {400, 401, 403, 404, 405, 413, 416}
    if issubclass(kind, NotFound):
        assert kind.status == 404


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        (NameInvalid, "NAME_INVALID", 400),
        (TagInvalid, "TAG_INVALID", 400),
        (DigestInvalid, "DIGEST_INVALID", 400),
        (PaginationInvalid, "PAGINATION_NUMBER_INVALID", 400),
        (NameUnknown, "NAME_UNKNOWN", 404),
        (NoCatalog, "UNSUPPORTED", 404),
        (ManifestUnknown, "MANIFEST_UNKNOWN", 404),
        (BlobUnknown, "BLOB_UNKNOWN", 404),
        (UploadUnknown, "BLOB_UPLOAD_UNKNOWN", 404),
        (TooLarge, "SIZE_INVALID", 413),
        (Unsupported, "UNSUPPORTED", 405),
        (RangeInvalid, "RANGE_INVALID", 416),
        (Unauthorized, "UNAUTHORIZED", 401),
        (Denied, "DENIED", 403),
        (Refused, "DENIED", 403),
        (Unreachable, "UNAVAILABLE", 503),
        (Crowded, "UNAVAILABLE", 503),
        (TimedOut, "UNAVAILABLE", 503),
        (Overloaded, "UNAVAILABLE", 503),
        (BadAnswer, "UNKNOWN", 502),
    ],
)
def test_codes_are_those_of_the_specification(kind: type[RegistryError], code: str, status: int) -> None:
    """The pairs are those that clients have met for years."""
    assert (kind.code, kind.status) == (code, status)


def test_tree_has_the_branches_that_callers_catch() -> None:
    """Callers catch branches, so a new class must fall into one."""
    assert {Denied, Invalid, NotFound, RangeInvalid, Rejected, Unauthorized, Unsupported} == set(
        Denial.__subclasses__()
    )
    assert {Unreachable, TimedOut, Overloaded, Crowded, BadAnswer} <= set(NoAnswer.__subclasses__())
    assert issubclass(proxy.oci.endpoint.NoSuchEndpoint, NotFound)


def test_retry_after_is_kept_as_it_came() -> None:
    """Seconds or an HTTP date: the client may get the upstream's own words."""
    assert (
        Overloaded("busy", retry_after="Wed, 21 Oct 2015 07:28:00 GMT").retry_after == "Wed, 21 Oct 2015 07:28:00 GMT"
    )
    assert Overloaded("busy").retry_after is None


def test_range_error_keeps_the_size() -> None:
    """`Content-Range: bytes */size` needs it."""
    assert RangeInvalid("behind the end", size=10).size == 10
    assert RangeInvalid("behind the end").size is None
