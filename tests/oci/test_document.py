import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.content import Descriptor
from proxy.oci.document import MAX_DESCRIPTORS, MAX_VALUES, Artifact, Image, Index, parse, parse_platform
from proxy.oci.errors import BadAnswer
from proxy.oci.mediatype import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
)
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest

Json = dict[str, Any]

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG: Json = {"mediaType": OCI_CONFIG, "digest": A, "size": 7}
CHILD: Json = {"mediaType": OCI_MANIFEST, "digest": A, "size": 7, "platform": {"os": "linux", "architecture": "amd64"}}
IMAGE: Json = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": CONFIG,
    "layers": [{"mediaType": LAYER, "digest": B, "size": 8}],
}
INDEX: Json = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [CHILD]}
VAGUE = ["", "application/json", "text/plain; charset=utf-8", "application/octet-stream", "binary/octet-stream"]


def dumps(document: object) -> bytes:
    """Write *document* as a registry would."""
    return json.dumps(document).encode()


def without(document: Json, *keys: str) -> Json:
    """Leave *keys* out."""
    return {key: value for key, value in document.items() if key not in keys}


@pytest.mark.parametrize(
    ("manifest", "config"),
    [(OCI_MANIFEST, OCI_CONFIG), (DOCKER_MANIFEST, DOCKER_CONFIG), (OCI_MANIFEST, DOCKER_CONFIG)],
)
def test_image_names_its_config_and_layers(manifest: str, config: str) -> None:
    """An image's blobs are its config and its layers, in that order."""
    body = dumps(IMAGE | {"mediaType": manifest, "config": CONFIG | {"mediaType": config}})
    image = parse(body, manifest)

    assert image == Image(
        manifest,
        Descriptor(media_type=config, digest=Digest(A), size=7),
        (Descriptor(media_type=LAYER, digest=Digest(B), size=8),),
    )
    assert isinstance(image, Image)
    assert [blob.digest for blob in image.blobs] == [A, B]


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_index_names_its_children(media_type: str) -> None:
    """An index's entries keep platform and annotations; `urls` and `data` stay behind (S2)."""
    platform = {
        "architecture": "amd64",
        "os": "windows",
        "os.version": "10.0.1",
        "os.features": ["win32k"],
        "variant": "v2",
    }
    entry = CHILD | {"platform": platform, "annotations": {"a": "b"}, "urls": ["http://trap/"], "data": "e30="}
    index = parse(dumps(INDEX | {"mediaType": media_type, "manifests": [entry]}), media_type)

    child = Descriptor(
        media_type=OCI_MANIFEST,
        digest=Digest(A),
        size=7,
        platform=Platform("windows", "amd64", "v2", "10.0.1", ("win32k",)),
        annotations={"a": "b"},
    )
    assert index == Index(media_type, (child,))


@pytest.mark.parametrize("content_type", [OCI_INDEX, f"{OCI_INDEX}; charset=utf-8", OCI_INDEX.upper(), *VAGUE])
@pytest.mark.parametrize("document", [INDEX, without(INDEX, "mediaType")], ids=["written", "left-out"])
def test_media_type_is_the_bodys_own_or_inferred(document: Json, content_type: str) -> None:
    """A body may leave `mediaType` out and a server may say nothing of use; keys decide then."""
    assert parse(dumps(document), content_type).media_type == OCI_INDEX


@pytest.mark.parametrize("content_type", VAGUE)
def test_image_without_media_type_is_known_by_its_config(content_type: str) -> None:
    """OCI lets `mediaType` be left out of image manifests."""
    assert isinstance(parse(dumps(without(IMAGE, "mediaType")), content_type), Image)


def test_docker_list_without_media_type_takes_the_headers_word() -> None:
    """A Content-Type that says something is believed where the body is silent."""
    assert parse(dumps(without(INDEX, "mediaType")), DOCKER_LIST) == Index(
        DOCKER_LIST,
        (Descriptor(media_type=OCI_MANIFEST, digest=Digest(A), size=7, platform=Platform("linux", "amd64")),),
    )


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        (INDEX, OCI_MANIFEST),
        (INDEX, DOCKER_LIST),
        (IMAGE, OCI_INDEX),
        (IMAGE, DOCKER_MANIFEST),
        (IMAGE, "text/html"),
        (IMAGE | {"mediaType": "x"}, OCI_MANIFEST),
    ],
)
def test_body_must_not_contradict_its_content_type(document: Json, content_type: str) -> None:
    """Two readers must not see two kinds of document (S7)."""
    with pytest.raises(BadAnswer, match="its Content-Type says"):
        parse(dumps(document), content_type)


@pytest.mark.parametrize(
    ("document", "key"),
    [
        (INDEX | {"config": CONFIG}, "config"),
        (INDEX | {"layers": []}, "layers"),
        (INDEX | {"fsLayers": []}, "fsLayers"),
        (INDEX | {"history": []}, "history"),
        (INDEX | {"config": None}, "config"),
        (IMAGE | {"manifests": []}, "manifests"),
        (IMAGE | {"fsLayers": []}, "fsLayers"),
        (IMAGE | {"history": []}, "history"),
        (without(INDEX, "mediaType") | {"config": CONFIG, "layers": []}, "config"),
    ],
)
def test_document_of_two_kinds_is_refused(document: Json, key: str) -> None:
    """Keys of another kind make a document ambiguous (CVE-2021-41190)."""
    with pytest.raises(BadAnswer, match=f"ambiguous.*{key}"):
        parse(dumps(document), "")


SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, SIGNED),
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, ""),
        ({"schemaVersion": 1}, OCI_MANIFEST),
        (IMAGE | {"schemaVersion": 1}, OCI_MANIFEST),
        ({"fsLayers": []}, f"{SCHEMA1}; charset=utf-8"),
        ({"mediaType": SCHEMA1}, ""),
        ({"mediaType": SIGNED}, SIGNED),
    ],
)
def test_schema_1_is_refused(document: Json, content_type: str) -> None:
    """Schema 1 is never merged nor passed on (law 5), by whichever sign it is known."""
    with pytest.raises(BadAnswer, match="schema 1"):
        parse(dumps(document), content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!DOCTYPE html><html><title>Sign in</title>",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"2",
        b"\x1f\x8b\x08\x00",
        b"\xff\xfe",
        b'{"mediaType":"\\ud800"}',
        b"[" * 100_000,
        b'{"manifests":' * 5000 + b"1" + b"}" * 5000,
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    """Login pages, gzip and deep nesting are bad answers, with nothing raw in the sentence (S8)."""
    with pytest.raises(BadAnswer) as raised:
        parse(body, OCI_MANIFEST)

    assert raised.value.message.isascii()
    assert len(raised.value.message) < 300


@pytest.mark.parametrize(
    "document", [{}, {"schemaVersion": 2}, {"errors": [{"code": "TOOMANYREQUESTS"}]}, {"token": "x"}]
)
def test_json_that_is_no_manifest_is_refused(document: Json) -> None:
    """An error body under 200 isn't taken for a manifest."""
    with pytest.raises(BadAnswer, match="neither a manifest's Content-Type nor its keys"):
        parse(dumps(document), "application/json")


@pytest.mark.parametrize("media_type", [5, True, [OCI_INDEX], {"a": 1}])
def test_media_type_must_be_a_string(media_type: object) -> None:
    """A media type of another JSON type is refused."""
    with pytest.raises(BadAnswer, match="mediaType is not a string"):
        parse(dumps(INDEX | {"mediaType": media_type}), OCI_INDEX)


@pytest.mark.parametrize("manifests", [None, {}, "x", 5, True, {"digest": A}])
def test_manifests_must_be_a_list(manifests: object) -> None:
    """An index without a list of entries is refused, rather than read as empty."""
    with pytest.raises(BadAnswer, match="list of descriptors"):
        parse(dumps(INDEX | {"manifests": manifests}), OCI_INDEX)


def test_empty_index_is_an_index() -> None:
    """No entries is a valid index: the referrers answer when there are none."""
    assert parse(dumps(INDEX | {"manifests": []}), OCI_INDEX) == Index(OCI_INDEX, ())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": None}, "size"),
        ({"size": -1}, "size"),
        ({"size": "7"}, "size"),
        ({"size": 7.0}, "size"),
        ({"size": True}, "size"),
        ({"size": 1 << 53}, "size"),
        ({"size": 10**30}, "size"),
        ({"digest": None}, "digest"),
        ({"digest": ""}, "digest"),
        ({"digest": 5}, "digest"),
        ({"digest": [A]}, "digest"),
        ({"digest": "sha256:../../etc/passwd"}, "digest"),
        ({"digest": "sha256:" + "A" * 64}, "digest"),
        ({"digest": "sha256:" + "a" * 63}, "digest"),
        ({"digest": A + "\n"}, "digest"),
        ({"digest": "md5:" + "a" * 32}, "digest"),
        ({"mediaType": 5}, "mediaType"),
        ({"artifactType": []}, "artifactType"),
        ({"platform": "linux/amd64"}, "platform"),
        ({"platform": ["linux"]}, "platform"),
        ({"platform": {"os": 5, "architecture": "amd64"}}, "os"),
        ({"platform": {"os": "linux", "architecture": ["amd64"]}}, "architecture"),
        ({"platform": {"os": "linux", "architecture": "arm", "variant": 7}}, "variant"),
        ({"platform": {"os": "linux", "architecture": "arm", "os.features": "win32k"}}, "os.features"),
        ({"platform": {"os": "linux", "architecture": "arm", "os.features": [1]}}, "os.features"),
        ({"annotations": []}, "annotations"),
        ({"annotations": {"a": 1}}, "annotations"),
        ({"annotations": {"a": None}}, "annotations"),
    ],
)
def test_bad_descriptor_is_refused(change: Json, reason: str) -> None:
    """Sizes, digests, platforms and annotations of another shape make the whole answer unusable (S6)."""
    with pytest.raises(BadAnswer, match=reason):
        parse(dumps(INDEX | {"manifests": [CHILD | change]}), OCI_INDEX)


@pytest.mark.parametrize("value", [None, 5, "x", [], True])
def test_descriptor_must_be_an_object(value: object) -> None:
    """Entries, layers and configs are objects."""
    with pytest.raises(BadAnswer, match="not an object"):
        parse(dumps(INDEX | {"manifests": [value]}), OCI_INDEX)
    with pytest.raises(BadAnswer, match="not an object"):
        parse(dumps(IMAGE | {"config": value}), OCI_MANIFEST)


def test_image_without_config_is_refused() -> None:
    """An image manifest has a config."""
    with pytest.raises(BadAnswer, match="not an object"):
        parse(dumps(without(IMAGE, "config")), OCI_MANIFEST)


@pytest.mark.parametrize(
    "platform",
    [
        None,
        {},
        {"os": "linux"},
        {"architecture": "amd64"},
        {"os": "", "architecture": ""},
        {"os": "linux", "architecture": ""},
    ],
)
def test_half_a_platform_counts_as_none(platform: Json | None) -> None:
    """A platform that doesn't name both os and architecture says nothing."""
    index = parse(dumps(INDEX | {"manifests": [CHILD | {"platform": platform}]}), OCI_INDEX)

    assert isinstance(index, Index)
    assert index.manifests[0].platform is None


def test_too_many_descriptors_are_refused() -> None:
    """As many as the limit are read; one more is a bad answer (S14)."""
    most = parse(dumps(INDEX | {"manifests": [CHILD] * MAX_DESCRIPTORS}), OCI_INDEX)

    assert isinstance(most, Index)
    assert len(most.manifests) == MAX_DESCRIPTORS
    with pytest.raises(BadAnswer, match=f"has {MAX_DESCRIPTORS + 1} descriptors"):
        parse(dumps(INDEX | {"manifests": [CHILD] * (MAX_DESCRIPTORS + 1)}), OCI_INDEX)
    with pytest.raises(BadAnswer, match="descriptors"):
        parse(dumps(IMAGE | {"layers": [CONFIG] * 20_000}), OCI_MANIFEST)


HELM = "application/vnd.cncf.helm.config.v1+json"
SBOM = "application/spdx+json"
ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"


@pytest.mark.parametrize(
    ("document", "artifact_type", "blobs"),
    [
        (IMAGE | {"config": CONFIG | {"mediaType": HELM}}, HELM, 2),
        (IMAGE | {"artifactType": SBOM}, SBOM, 2),
        (IMAGE | {"artifactType": SBOM, "layers": None}, SBOM, 1),
        ({"mediaType": ARTIFACT, "artifactType": SBOM, "blobs": [CONFIG]}, SBOM, 1),
        ({"mediaType": ARTIFACT}, "", 0),
    ],
)
def test_anything_else_is_an_artifact(document: Json, artifact_type: str, blobs: int) -> None:
    """What isn't a runnable image is served, never merged; its blobs are known."""
    artifact = parse(dumps(document), "")

    assert isinstance(artifact, Artifact)
    assert artifact.artifact_type == artifact_type
    assert len(artifact.blobs) == blobs


@pytest.mark.parametrize("media_type", [ARTIFACT, "application/problem+json", "application/x"])
def test_only_known_types_go_without_saying(media_type: str) -> None:
    """JSON of another type that calls itself nothing may be anybody's: a gateway's error is no artifact."""
    with pytest.raises(BadAnswer, match="doesn't say that it is a manifest"):
        parse(dumps({"title": "log in"}), media_type)


@pytest.mark.parametrize(
    ("config", "platform"),
    [
        ({"os": "linux", "architecture": "amd64", "rootfs": {}}, Platform("linux", "amd64")),
        ({"os": "linux", "architecture": "arm", "variant": "v6"}, Platform("linux", "arm", "v6")),
        (
            {"os": "windows", "architecture": "amd64", "os.version": "10.0.1", "os.features": ["b", "a"]},
            Platform("windows", "amd64", os_version="10.0.1", os_features=("b", "a")),
        ),
        ({"os": "Linux", "architecture": "x86_64"}, Platform("Linux", "x86_64")),
        ({}, None),
        ({"os": "linux"}, None),
        ({"os": "linux", "architecture": ""}, None),
    ],
)
def test_platform_of_a_config_is_as_written(config: Json, platform: Platform | None) -> None:
    """A config says what it says, in its own words; `docker import` may say nothing."""
    assert parse_platform(dumps(config)) == platform


@pytest.mark.parametrize(
    "config", [b"", b"<html>", b"[]", b'{"os":1,"architecture":"x"}', b'{"os":"l","architecture":{}}']
)
def test_what_is_no_config_is_refused(config: bytes) -> None:
    """A config of another shape is a bad answer."""
    with pytest.raises(BadAnswer):
        parse_platform(config)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 60) | st.sampled_from([A, OCI_INDEX, OCI_MANIFEST, HELM, "", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*INDEX, *IMAGE, *CHILD, "os", "architecture", "annotations"]), inner, max_size=6
        )
    ),
    max_leaves=12,
)


@given(_json, st.sampled_from([OCI_INDEX, OCI_MANIFEST, "", "text/html"]))
def test_any_json_is_a_document_or_a_bad_answer(document: object, content_type: str) -> None:
    """No JSON whatever raises anything but BadAnswer."""
    try:
        found = parse(dumps(document), content_type)
    except BadAnswer:
        return

    assert isinstance(found, Image | Index | Artifact)


@pytest.mark.parametrize(
    "changes",
    [
        {"mediaType": "DEEP"},
        {"artifactType": "DEEP"},
        {"config": CONFIG | {"digest": "DEEP"}},
        {"config": CONFIG | {"mediaType": "DEEP"}},
        {"layers": "DEEP"},
    ],
)
def test_lists_as_deep_as_json_may_be(changes: Json) -> None:
    """A thousand lists within each other where a word was expected are a bad answer, and no error of ours."""
    body = dumps(IMAGE | changes).replace(b'"DEEP"', b"[" * 1010 + b"]" * 1010)

    with pytest.raises(BadAnswer):
        parse(body, OCI_MANIFEST)


def test_more_values_than_any_manifest_has_are_not_read() -> None:
    """Four megabytes of empty objects would be a hundred when they were read."""
    body = b'{"schemaVersion":2,"manifests":[' + b"{}," * (MAX_VALUES // 2) + b"{}]}"

    with pytest.raises(BadAnswer, match=f"the manifest has more than {MAX_VALUES} values"):
        parse(body, OCI_INDEX)
