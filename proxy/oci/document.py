"""What a manifest's bytes say: an image, an index, or some other artifact. Nothing is trusted unread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.oci import mediatype
from proxy.oci.content import Descriptor
from proxy.oci.errors import BadAnswer, DigestInvalid
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest

MAX_DESCRIPTORS: Final = 1024  # entries of one index, or layers of one image; real ones have a few dozen
MAX_VALUES: Final = 1 << 17  # of one document; a list of empty objects takes thirty times its bytes when it is read
_MAX_SIZE: Final = 1 << 53

# Keys that make one kind of document readable as another (CVE-2021-41190); containers/image refuses the same.
_NOT_IN_INDEX: Final = ("config", "layers", "fsLayers", "history")
_NOT_IN_MANIFEST: Final = ("manifests", "fsLayers", "history")
# Content types that say nothing: the body's own `mediaType` decides.
_VAGUE: Final = frozenset({"", "application/json", "application/octet-stream", "text/plain", "binary/octet-stream"})

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest of one runnable image."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All blobs it names."""
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """A Docker manifest list or OCI index."""

    media_type: str
    manifests: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """Anything else with a manifest: a Helm chart, a signature, a model. Served, never merged."""

    media_type: str
    artifact_type: str
    blobs: tuple[Descriptor, ...]


Document = Image | Index | Artifact


def parse(body: bytes, content_type: str) -> Document:
    """Read a manifest.

    Args:
        body: Its bytes, already measured.
        content_type: The answer's `Content-Type`, with or without parameters.

    Raises:
        BadAnswer: It is not JSON, not of schema 2, of two kinds at once, or its `mediaType` and its
            `Content-Type` contradict each other; the sentence says which.
    """
    document = _object(body, "manifest")
    kinds = (mediatype.bare(content_type), document.get("mediaType"))
    if document.get("schemaVersion") == 1 or any(kind in mediatype.SCHEMA1 for kind in kinds if isinstance(kind, str)):
        raise BadAnswer("the manifest is of schema 1, which no current client accepts")
    media_type = _media_type(document, mediatype.bare(content_type))
    if media_type in mediatype.INDEXES | mediatype.MANIFESTS and document.get("schemaVersion") != 2:
        raise BadAnswer("the manifest's schemaVersion is not 2")
    if media_type in mediatype.INDEXES:
        return _index(document, media_type)
    if media_type in mediatype.MANIFESTS:
        return _manifest(document, media_type)
    if not media_type.startswith("application/"):
        raise BadAnswer(f"the answer's Content-Type is {media_type[:80]!r}, which no manifest has")
    if not document.get("mediaType"):  # a gateway's own JSON has a type, too
        raise BadAnswer(f"the answer's Content-Type is {media_type[:80]!r}, its body doesn't say that it is a manifest")
    return Artifact(media_type, _text(document, "artifactType"), _descriptors(document.get("blobs") or ()))


def parse_platform(config: bytes) -> Platform | None:
    """Read the platform out of an image's config blob, as written there.

    Returns None where it names no operating system or architecture, as configs of `docker import` may.
    Raises `BadAnswer` when it isn't a config at all.
    """
    return _platform(_object(config, "image config"))


def parse_labels(config: bytes) -> Mapping[str, str]:
    """Read the labels out of an image's config blob; what isn't a string counts as not there."""
    inner = _object(config, "image config").get("config")
    labels = inner.get("Labels") if isinstance(inner, dict) else None
    return {k: v for k, v in labels.items() if isinstance(v, str)} if isinstance(labels, dict) else {}


def platform_fields(platform: Platform) -> dict[str, Any]:
    """Return the platform object of a descriptor, as it is read here, in Go's struct order."""
    fields: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        fields["os.version"] = platform.os_version
    if platform.os_features:
        fields["os.features"] = list(platform.os_features)
    if platform.variant:
        fields["variant"] = platform.variant
    return fields


def _object(body: bytes, what: str) -> Json:
    if body.count(b",") + body.count(b"{") + body.count(b"[") > MAX_VALUES:  # those in strings count, too
        raise BadAnswer(f"the {what} has more than {MAX_VALUES} values")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        start = body[:40].decode("utf-8", "replace")
        raise BadAnswer(f"the {what} is not JSON, it starts with {start!a}") from None
    if not isinstance(document, dict):
        raise BadAnswer(f"the {what} is not a JSON object")
    return document


def _media_type(document: Json, content_type: str) -> str:
    """Decide the media type: the body's own word, which the header must not contradict."""
    written = document.get("mediaType")
    if written is not None and not isinstance(written, str):
        raise BadAnswer("the manifest's mediaType is not a string")
    if written:
        if content_type not in _VAGUE and content_type != mediatype.bare(written):
            raise BadAnswer(
                f"the manifest says mediaType {written[:80]!r}, its Content-Type says {content_type[:80]!r}"
            )
        return mediatype.bare(written)
    return _infer(document) if content_type in _VAGUE else content_type


def _infer(document: Json) -> str:
    """OCI documents may leave `mediaType` out; their keys tell."""
    if "manifests" in document:
        return mediatype.OCI_INDEX
    if "config" in document:
        return mediatype.OCI_MANIFEST
    raise BadAnswer("the answer has neither a manifest's Content-Type nor its keys")


def _index(document: Json, media_type: str) -> Index:
    _refuse(document, _NOT_IN_INDEX, "an index")
    return Index(media_type, _descriptors(document.get("manifests")))


def _manifest(document: Json, media_type: str) -> Image | Artifact:
    _refuse(document, _NOT_IN_MANIFEST, "an image manifest")
    config = _descriptor(document.get("config"))
    layers = _descriptors(document.get("layers") or ())
    artifact_type = _text(document, "artifactType")
    if config.media_type not in mediatype.IMAGE_CONFIGS or artifact_type:
        return Artifact(media_type, artifact_type or config.media_type, (config, *layers))
    return Image(media_type, config, layers)


def _refuse(document: Json, keys: Iterable[str], what: str) -> None:
    for key in keys:
        if key in document:
            raise BadAnswer(f"the answer is ambiguous: {what} has no key {key!r}")


def _descriptors(values: object) -> tuple[Descriptor, ...]:
    if not isinstance(values, list | tuple):
        raise BadAnswer("a list of descriptors was expected in the manifest")
    if len(values) > MAX_DESCRIPTORS:
        raise BadAnswer(f"the manifest has {len(values)} descriptors, at most {MAX_DESCRIPTORS} are accepted")
    return tuple(_descriptor(value) for value in values)


def _descriptor(value: object) -> Descriptor:
    if not isinstance(value, dict):
        raise BadAnswer("a descriptor of the manifest is not an object")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _MAX_SIZE:
        raise BadAnswer("a descriptor of the manifest has no valid size")
    try:
        digest = Digest.parse(_text(value, "digest"))
    except DigestInvalid as error:
        raise BadAnswer(f"a descriptor of the manifest has a bad digest: {error.message}") from None
    return Descriptor(
        media_type=_text(value, "mediaType"),
        digest=digest,
        size=size,
        platform=_platform(value.get("platform")),
        annotations=_annotations(value.get("annotations")),
        artifact_type=_text(value, "artifactType"),
    )


def _platform(value: object) -> Platform | None:
    """Read a platform object; one that doesn't name both os and architecture counts as none."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadAnswer("a platform of the manifest is not an object")
    os, architecture = _text(value, "os"), _text(value, "architecture")
    if not os or not architecture:
        return None
    features = value.get("os.features") or ()
    if not isinstance(features, list | tuple) or not all(isinstance(feature, str) for feature in features):
        raise BadAnswer("a platform's os.features is not a list of strings")
    return Platform(
        os=os,
        architecture=architecture,
        variant=_text(value, "variant"),
        os_version=_text(value, "os.version"),
        os_features=tuple(features),
    )


def _annotations(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise BadAnswer("a descriptor's annotations are not a map of strings")
    return value


def _text(value: Json, key: str) -> str:
    text = value.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise BadAnswer(f"{key} is not a string")
    return text
