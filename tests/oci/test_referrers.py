"""Lists of referrers, and the tags beside images."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.content import Descriptor, Manifest
from proxy.oci.document import Index, parse
from proxy.oci.mediatype import OCI_INDEX, OCI_MANIFEST
from proxy.oci.reference import Digest, Tag
from proxy.oci.referrers import described, fallback_tag, is_companion, only, render, subject_of, union
from strategies import digests, entries

A, B = Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)
LONG = Digest("sha512:" + "c" * 128)
SBOM = Descriptor(media_type=OCI_MANIFEST, digest=A, size=7, artifact_type="application/spdx+json")
SIGNATURE = Descriptor(media_type=OCI_MANIFEST, digest=B, size=8, annotations={"z": "1", "a": "2"})


def manifest(**fields: object) -> Manifest:
    """Write a manifest of *fields*."""
    return Manifest.of(OCI_MANIFEST, orjson.dumps({"schemaVersion": 2, **fields}))


@given(st.lists(entries, max_size=4))
def test_what_is_written_reads_the_same(found: list[Descriptor]) -> None:
    """A list is an OCI index that holds every field of its entries."""
    assert parse(render(found).body, OCI_INDEX) == Index(OCI_INDEX, tuple(found))


@given(st.lists(entries, max_size=4), st.lists(entries, max_size=4))
def test_a_union_has_every_digest_once(first: list[Descriptor], second: list[Descriptor]) -> None:
    """Entries come sorted by digest, whoever listed them, and the first word counts."""
    both = union(first, second)

    assert [entry.digest for entry in both] == sorted({entry.digest for entry in (*first, *second)})
    assert all(entry in (*first, *second) for entry in both)
    assert union(both, second) == both


def test_a_list_is_written_in_go_s_order() -> None:
    """The bytes are those of Go's descriptor, so that they don't change with whoever writes them."""
    assert render([SIGNATURE, SBOM]).body == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['
        b'{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":8,'
        b'"annotations":{"a":"2","z":"1"}},'
        b'{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":7,'
        b'"artifactType":"application/spdx+json"}]}' % (B.encode(), A.encode())
    )


def test_nothing_is_an_empty_index() -> None:
    """The answer when nothing refers to a digest is a valid index, always the same."""
    assert render(()).body == b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % OCI_INDEX.encode()


@pytest.mark.parametrize(
    ("wanted", "expected"), [("", (SBOM, SIGNATURE)), ("application/spdx+json", (SBOM,)), ("application/x", ())]
)
def test_one_artifact_type(wanted: str, expected: tuple[Descriptor, ...]) -> None:
    """A filter compares the whole type; none takes all."""
    assert only((SBOM, SIGNATURE), wanted) == expected


@given(digests)
def test_a_fallback_tag_is_a_companion(digest: Digest) -> None:
    """The tag of any digest follows the grammar, is known for what it is and, for sha256, tells the digest."""
    tag = fallback_tag(digest)

    assert Tag.parse(tag) == tag
    assert is_companion(tag)
    assert subject_of(tag) == (digest if digest.algorithm == "sha256" else None)


@pytest.mark.parametrize(
    ("tag", "companion", "subject"),
    [
        (f"sha256-{A.hex}", True, A),
        (f"sha256-{A.hex}.sig", True, A),
        (f"sha256-{A.hex}.att", True, A),
        (f"sha256-{A.hex}.sbom", True, A),
        (f"sha512-{LONG.hex[:64]}", True, None),
        ("sha256-ab.sig", True, None),
        (f"sha256-{A.hex}.tar", False, None),
        (f"sha256-{A.hex}.sig.sig", False, None),
        ("sha256-", False, None),
        ("sha256-xyz", False, None),
        ("1.0", False, None),
    ],
)
def test_a_companion_tells_its_subject(tag: str, subject: Digest | None, *, companion: bool) -> None:
    """Signatures, attestations and SBOMs are beside their image, under its digest."""
    assert is_companion(Tag(tag)) is companion
    assert subject_of(Tag(tag)) == subject


@pytest.mark.parametrize(
    ("fields", "artifact_type"),
    [
        ({"artifactType": "application/spdx+json", "config": {"mediaType": "application/x"}}, "application/spdx+json"),
        ({"config": {"mediaType": "application/x"}}, "application/x"),
        ({"manifests": []}, ""),
    ],
)
def test_a_manifest_refers_to_its_subject(fields: dict[str, object], artifact_type: str) -> None:
    """Its entry has its artifact type, else its config's, and its annotations."""
    refers = manifest(subject={"digest": A}, annotations={"a": "b"}, **fields)

    assert described(refers) == (
        A,
        Descriptor(
            media_type=OCI_MANIFEST,
            digest=refers.descriptor.digest,
            size=refers.descriptor.size,
            annotations={"a": "b"},
            artifact_type=artifact_type,
        ),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"config": "x", "annotations": ["x"]},
        {"config": {"mediaType": 5}, "annotations": {"a": 5}},
        {"artifactType": ["x"], "annotations": "x"},
    ],
)
def test_what_a_manifest_says_wrong_counts_as_unsaid(fields: dict[str, object]) -> None:
    """Registries take documents of any kind; a list of referrers is always a valid one."""
    refers = manifest(subject={"digest": A}, **fields)
    found = described(refers)

    assert found is not None
    assert parse(render([found[1]]).body, OCI_INDEX) == Index(OCI_INDEX, (found[1],))
    assert (found[1].artifact_type, found[1].annotations) == ("", {})


@pytest.mark.parametrize("subject", [{}, {"subject": None}, {"subject": {}}, {"subject": {"digest": "x"}}])
def test_a_manifest_without_a_subject_refers_to_nothing(subject: dict[str, object]) -> None:
    """Most images refer to nothing."""
    assert described(manifest(**subject)) is None
