"""Writes as values: what a query names."""

import pytest

from proxy.oci.endpoint import UploadAt
from proxy.oci.reference import Digest, Repository
from proxy.oci.write import Write, digest_of, joined, parameter

HELLO = Digest.of(b"hello")


@pytest.mark.parametrize("query", [f"digest={HELLO}", f"_state=a%3Db&digest={HELLO.replace(':', '%3A')}"])
def test_a_write_names_its_digest(query: str) -> None:
    """Clients write the colon as it is, or percent-encoded."""
    assert Write(method="PUT", at=UploadAt(Repository("a/b"), "1"), query=query).digest == HELLO


@pytest.mark.parametrize("query", ["", "digest=", "digest=sha256:abc", "mount=x&from=y", "digest"])
def test_what_is_no_digest_is_none(query: str) -> None:
    """The registry says what is wrong with it."""
    assert digest_of(query, "digest") is None


def test_parameters_are_decoded() -> None:
    """A repository's slash may come encoded."""
    assert parameter("mount=x&from=team%2Fapp", "from") == "team/app"
    assert parameter("mount=x", "from") == ""


def test_queries_are_joined() -> None:
    """Empty ones leave nothing behind."""
    assert joined("", "a=1", "", "b=2") == "a=1&b=2"
    assert joined("", "") == ""
