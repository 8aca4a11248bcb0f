from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.merge.index import PlatformConflict, list_type, order, render
from proxy.oci import mediatype
from proxy.oci.content import ATTESTATION, REFERENCE_TYPE, SUBJECT_DIGEST, Descriptor
from proxy.oci.document import Index, parse
from proxy.oci.mediatype import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from proxy.oci.platform import UNKNOWN, Platform
from proxy.oci.reference import Digest
from strategies import children, images

# The expected bytes were written by Go: golden/golden.go.
GOLDEN = Path(__file__).parent / "golden"

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64", "v8")


def child(media_type: str, hex_digit: str, size: int, platform: Platform) -> Descriptor:
    """Return the child with the digest `sha256:aaa…`."""
    return Descriptor(media_type=media_type, digest=Digest("sha256:" + hex_digit * 64), size=size, platform=platform)


def attestation(hex_digit: str, size: int, subject: Descriptor) -> Descriptor:
    """Return buildx's attestation entry of *subject*."""
    return replace(
        child(OCI_MANIFEST, hex_digit, size, Platform(UNKNOWN, UNKNOWN)),
        annotations={REFERENCE_TYPE: ATTESTATION, SUBJECT_DIGEST: subject.digest},
    )


def windows(version: str) -> Platform:
    """Return the platform of a Windows image."""
    return Platform("windows", "amd64", os_version=version, os_features=("win32k",))


DOCKER_A, DOCKER_B = child(DOCKER_MANIFEST, "a", 528, AMD64), child(DOCKER_MANIFEST, "b", 529, ARM64)
OCI_A, OCI_B = child(OCI_MANIFEST, "a", 1024, AMD64), child(OCI_MANIFEST, "b", 1025, ARM64)
ANNOTATED = replace(
    OCI_B,
    artifact_type="application/vnd.example+json",
    annotations={
        "org.example.z": "last, though added first",
        "org.example.a": '<a href="x">Tom & Jerry</a>\u2028\u2029\n\t\\ \u00fc \U0001f433 \x7f',
        "org.example.<key>": "",
    },
)

CASES: dict[str, list[Descriptor]] = {
    "docker": [DOCKER_B, DOCKER_A],
    "oci": [OCI_B, OCI_A],
    "mixed": [OCI_B, DOCKER_A],
    "attestations": [attestation("c", 567, OCI_B), OCI_B, attestation("d", 566, OCI_A), OCI_A],
    "arm": [
        child(DOCKER_MANIFEST, "a", 528, Platform("linux", "arm", "v6")),
        child(DOCKER_MANIFEST, "b", 529, Platform("linux", "arm", "v7")),
        child(DOCKER_MANIFEST, "c", 527, AMD64),
    ],
    "windows": [
        child(DOCKER_MANIFEST, "b", 1002, windows("10.0.17763.6189")),
        child(DOCKER_MANIFEST, "a", 1001, windows("10.0.20348.2655")),
        child(DOCKER_MANIFEST, "c", 1000, AMD64),
    ],
    "annotations": [ANNOTATED, OCI_A],
}


@pytest.mark.parametrize("name", CASES)
def test_index_has_the_bytes_that_go_would_write(name: str) -> None:
    """Every byte is as `docker buildx imagetools create` writes it: key order, indent, escapes, no newline."""
    assert render(CASES[name]).body == (GOLDEN / f"{name}.json").read_bytes()


def test_every_golden_file_is_tested() -> None:
    """No expected index lies around without a case."""
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CASES)


def test_known_vector_has_its_size_and_digest() -> None:
    """Two OCI children make the 672 bytes that were computed before this code was written."""
    manifest = render(CASES["oci"])

    assert manifest.descriptor.size == len(manifest.body) == 672
    assert manifest.descriptor.digest == "sha256:303c58f1e0a4fecb826a802614a65dbd22702664104b89d7c1199eadc7f2ace6"
    assert sha256(manifest.body).hexdigest() == manifest.descriptor.digest.hex
    assert manifest.descriptor.media_type == OCI_INDEX


@pytest.mark.parametrize(
    ("members", "media_type"),
    [
        ([DOCKER_A, DOCKER_B], DOCKER_LIST),
        ([OCI_A, OCI_B], OCI_INDEX),
        ([DOCKER_A, OCI_B], OCI_INDEX),
        ([OCI_A, DOCKER_B], OCI_INDEX),
        ([DOCKER_A], DOCKER_LIST),
        ([DOCKER_A, attestation("c", 566, DOCKER_A)], OCI_INDEX),
    ],
)
def test_type_follows_the_children(members: list[Descriptor], media_type: str) -> None:
    """A Docker list is made of Docker manifests alone; anything else is an OCI index (law 7)."""
    manifest = render(members)

    assert list_type(members) == media_type
    assert manifest.descriptor.media_type == media_type
    assert parse(manifest.body, media_type).media_type == media_type


def test_docker_list_has_no_annotations() -> None:
    """A Docker list's entries have neither annotations nor an artifact type."""
    annotated = replace(ANNOTATED, media_type=DOCKER_MANIFEST, size=529)

    assert render([DOCKER_A, annotated]) == render(CASES["docker"])


@given(children(), st.randoms())
def test_order_of_children_does_not_matter(members: tuple[Descriptor, ...], random: Random) -> None:
    """The same children give the same bytes and digest, in whatever order they came (law 2)."""
    shuffled = random.sample(members, len(members))

    assert render(shuffled) == render(members)


@given(children())
def test_rendered_index_is_read_back_as_its_children(members: tuple[Descriptor, ...]) -> None:
    """What we write is what our own reader, and any other, finds in it."""
    manifest = render(members)

    assert parse(manifest.body, manifest.descriptor.media_type) == Index(OCI_INDEX, order(members))
    assert manifest.descriptor.digest.matches(manifest.body)


@given(images())
def test_no_index_holds_anything_but_its_children(members: tuple[Descriptor, ...]) -> None:
    """Digest, size, type and platform of every child are kept, for any mixture of types."""
    index = parse(render(members).body, "")

    assert isinstance(index, Index)
    assert [replace(each, annotations={}) for each in index.manifests] == [
        replace(each, annotations={}) for each in order(members)
    ]


@given(images(media_types=(mediatype.OCI_MANIFEST,)))
def test_rendering_again_changes_nothing(members: tuple[Descriptor, ...]) -> None:
    """A proxy in front of a proxy makes the same index of the same children."""
    first = parse(render(members).body, "")

    assert isinstance(first, Index)
    assert render(first.manifests) == render(members)


def test_attestations_follow_their_subjects_order() -> None:
    """Attestations stand behind all images: those of amd64 first, several of one image by their digests."""
    members = [
        attestation("e", 1, OCI_B),
        attestation("d", 1, OCI_A),
        attestation("c", 1, OCI_A),
        OCI_B,
        OCI_A,
    ]

    assert [each.digest.hex[0] for each in order(members)] == ["a", "b", "c", "d", "e"]


def test_one_platform_twice_is_a_conflict() -> None:
    """Rendering never chooses between rivals."""
    rival = child(OCI_MANIFEST, "c", 7, ARM64)

    with pytest.raises(PlatformConflict, match="linux/arm64/v8"):
        render([OCI_A, OCI_B, rival])


def test_variants_and_versions_are_no_conflict() -> None:
    """Entries that differ in variant or OS version are for different machines."""
    assert len(order([*CASES["arm"], *CASES["windows"][:2]])) == 5


def test_child_without_platform_is_refused() -> None:
    """Podman would take it for any machine."""
    with pytest.raises(ValueError, match="has no platform"):
        render([replace(OCI_A, platform=None)])


def test_attestation_of_nothing_is_refused() -> None:
    """A dangling attestation never gets into an index."""
    with pytest.raises(ValueError, match="speaks of an image that is not here"):
        render([OCI_A, attestation("c", 566, OCI_B)])
