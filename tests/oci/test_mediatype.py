import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci import mediatype
from proxy.oci.mediatype import ACCEPT_ALL, ANYTHING, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Accept

SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"

# Recorded from real clients (docker 20.10, docker CLI 28, podman 4.3, skopeo 1.9, buildah 1.28, containerd 1.6),
# and read in the source of the others.
DOCKERD = [OCI_INDEX, SIGNED, "application/json", OCI_MANIFEST, DOCKER_MANIFEST, DOCKER_LIST]
DOCKER_CLI = [OCI_MANIFEST, DOCKER_MANIFEST, DOCKER_LIST, OCI_INDEX]
CONTAINERS_IMAGE = [OCI_MANIFEST, DOCKER_MANIFEST, SIGNED, SCHEMA1, DOCKER_LIST, OCI_INDEX]
CONTAINERD = [f"{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, */*"]
CONTAINERD_CHILD = [f"{DOCKER_MANIFEST}, */*"]
GGCR = [f"{SCHEMA1},{SIGNED},{DOCKER_MANIFEST},{OCI_MANIFEST},{DOCKER_LIST},{OCI_INDEX}"]
CONFORMANCE = [f"{OCI_INDEX},{OCI_MANIFEST}"]


@pytest.mark.parametrize(
    "lines",
    [DOCKERD, DOCKER_CLI, CONTAINERS_IMAGE, CONTAINERD, CONTAINERD_CHILD, GGCR, CONFORMANCE],
    ids=["dockerd", "docker-cli", "containers-image", "containerd", "containerd-child", "ggcr", "conformance"],
)
def test_real_clients_take_an_index(lines: list[str]) -> None:
    """No client of today is given a single image in place of the index."""
    assert not Accept.parse(lines).only_single_images


@pytest.mark.parametrize(
    ("lines", "only_single"),
    [
        ([], False),
        ([""], False),
        ([",", " , "], False),
        (["*/*"], False),
        (["application/*"], False),
        (["application/json"], False),
        (["text/html"], False),
        ([OCI_INDEX], False),
        ([DOCKER_LIST], False),
        ([f"{DOCKER_MANIFEST}, {OCI_INDEX}"], False),
        ([DOCKER_MANIFEST, "*/*"], False),
        ([DOCKER_MANIFEST, "application/json"], False),
        ([SIGNED, SCHEMA1], False),
        ([DOCKER_MANIFEST], True),
        ([OCI_MANIFEST], True),
        ([DOCKER_MANIFEST, OCI_MANIFEST], True),
        ([f"{DOCKER_MANIFEST},{OCI_MANIFEST}"], True),
        ([DOCKER_MANIFEST, SIGNED, SCHEMA1], True),
        ([f"{DOCKER_MANIFEST};q=0.9"], True),
        ([DOCKER_MANIFEST.upper()], True),
        ([f"{DOCKER_MANIFEST}, text/html"], True),
    ],
)
def test_only_those_who_name_images_alone_get_one(lines: list[str], only_single: bool) -> None:
    """A client gets a single image only if it names image manifests and nothing that an index could pass as."""
    assert Accept.parse(lines).only_single_images is only_single


@given(st.permutations(DOCKERD))
def test_order_of_accept_lines_does_not_matter(shuffled: list[str]) -> None:
    """Dockerd shuffles its lines on every request; it is the same client."""
    assert Accept.parse(shuffled) == Accept.parse(DOCKERD) == Accept.parse([", ".join(DOCKERD)])


def test_parameters_of_accept_are_ignored() -> None:
    """`q` and other parameters are stripped, as distribution does."""
    assert Accept.parse([f"{OCI_INDEX};q=0.1 , */*;q=0"]).types == {OCI_INDEX, "*/*"}


def test_no_accept_is_anything() -> None:
    """A request without the header takes what there is."""
    assert Accept.parse([]) == ANYTHING


@pytest.mark.parametrize(
    "content_type",
    [
        OCI_INDEX,
        f"{OCI_INDEX}; charset=utf-8",
        f"{OCI_INDEX};charset=utf-8;x=y",
        f"  {OCI_INDEX} ;",
        OCI_INDEX.upper(),
    ],
)
def test_bare_media_type_has_no_parameters(content_type: str) -> None:
    """`; charset=utf-8` breaks go-containerregistry and oras, so it never gets through."""
    assert mediatype.bare(content_type) == OCI_INDEX


def test_bare_of_nothing_is_empty() -> None:
    """No Content-Type is the empty one."""
    assert mediatype.bare("") == mediatype.bare(" ; charset=utf-8") == ""


def test_upstreams_are_asked_for_every_type() -> None:
    """All four kinds of manifest and a wildcard: a partial list gets 404 from ghcr.io, Docker Hub and Harbor."""
    assert Accept.parse([ACCEPT_ALL]).types == {*mediatype.INDEXES, *mediatype.MANIFESTS, "*/*"}
    assert not Accept.parse([ACCEPT_ALL]).types & mediatype.SCHEMA1
