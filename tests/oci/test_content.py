import pytest

from proxy.oci.content import (
    ATTESTATION,
    DIRECT,
    REFERENCE_TYPE,
    SUBJECT_DIGEST,
    CacheResult,
    Descriptor,
    Manifest,
)
from proxy.oci.mediatype import OCI_MANIFEST
from proxy.oci.reference import Digest

A = Digest("sha256:" + "a" * 64)


def entry(annotations: dict[str, str]) -> Descriptor:
    """Return an index entry with *annotations*."""
    return Descriptor(media_type=OCI_MANIFEST, digest=Digest("sha256:" + "d" * 64), size=566, annotations=annotations)


def test_attestation_speaks_of_its_subject() -> None:
    """Both of buildx's annotations make an attestation entry."""
    assert entry({SUBJECT_DIGEST: A, REFERENCE_TYPE: ATTESTATION}).attests == A


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {SUBJECT_DIGEST: A},
        {REFERENCE_TYPE: ATTESTATION},
        {SUBJECT_DIGEST: A, REFERENCE_TYPE: "something-else"},
        {SUBJECT_DIGEST: "", REFERENCE_TYPE: ATTESTATION},
        {SUBJECT_DIGEST: "sha256:../../etc/passwd", REFERENCE_TYPE: ATTESTATION},
        {SUBJECT_DIGEST: "latest", REFERENCE_TYPE: ATTESTATION},
    ],
)
def test_anything_else_attests_nothing(annotations: dict[str, str]) -> None:
    """One annotation alone, another type or a subject that is no digest makes no attestation, and no crash."""
    assert entry(annotations).attests is None


def test_manifest_is_measured_and_hashed_here() -> None:
    """Size and digest are those of the bytes, not anybody's word (law 9)."""
    manifest = Manifest.of(OCI_MANIFEST, b"{}")

    assert manifest.descriptor.size == 2
    assert manifest.descriptor.digest.matches(b"{}")
    assert manifest.delivery is DIRECT


def test_manifest_is_shown_without_its_bytes() -> None:
    """A log line never holds four megabytes of manifest."""
    assert "secret" not in repr(Manifest.of(OCI_MANIFEST, b"secret"))


def test_cache_results_are_the_words_of_the_header() -> None:
    """`X-Manifuse-Cache` says one of four words."""
    assert {str(result) for result in CacheResult} == {"hit", "miss", "stale", "revalidated"}
