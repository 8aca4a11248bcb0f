"""The bytes of an index: a pure function of its children (law 2).

Layout of `docker buildx imagetools create`: Go's struct order, two spaces, no newline at the end, and Go's
escapes for `<`, `>` and `&`. The same children give the same digest on every replica and on every day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from proxy.oci import mediatype
from proxy.oci.content import Descriptor, Manifest
from proxy.oci.document import platform_fields
from proxy.oci.platform import Platform, rank

# encoding/json escapes these inside strings, the only place where JSON has them.
_GO_ESCAPES = (
    (b"<", rb"\u003c"),
    (b">", rb"\u003e"),
    (b"&", rb"\u0026"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)


class PlatformConflict(ValueError):
    """Two children claim the same platform; who wins must be decided before."""


def render(children: Sequence[Descriptor]) -> Manifest:
    """Write the index of *children*, in any order.

    Each child is an image with a normalized platform of its own, or an attestation of one of them. Images come
    in the order of law 5, attestations behind them in the order of their subjects. The type is a Docker
    manifest list if every child is a Docker manifest, else an OCI index (law 7).

    Raises:
        PlatformConflict: Two images claim one platform.
        ValueError: An image has no platform, or an attestation no subject here.
    """
    ordered = order(children)
    media_type = list_type(ordered)
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [_descriptor(child, oci=media_type == mediatype.OCI_INDEX) for child in ordered],
    }
    body = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    for plain, escaped in _GO_ESCAPES:
        body = body.replace(plain, escaped)
    return Manifest.of(media_type, body)


def order(children: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Return *children* in the order of the index. Raises as `render` does."""
    images = sorted((child for child in children if child.attests is None), key=_image_rank)
    keys = [_platform(image).key for image in images]
    for key in keys:
        if keys.count(key) > 1:
            raise PlatformConflict(f"two children claim {Platform(*key)}")
    position = {image.digest: index for index, image in enumerate(images)}
    attestations = [child for child in children if child.attests is not None]
    for attestation in attestations:
        if attestation.attests not in position:
            raise ValueError(f"the attestation {attestation.digest} speaks of an image that is not here")
    attestations.sort(key=lambda child: (position[child.attests or child.digest], child.digest))
    return (*images, *attestations)


def list_type(children: Sequence[Descriptor]) -> str:
    """Return the media type of an index of *children*; never chosen by `Accept`, so that HEAD and GET agree."""
    # An attestation's annotations say what it is, and a Docker list has none.
    docker = all(child.media_type == mediatype.DOCKER_MANIFEST and child.attests is None for child in children)
    return mediatype.DOCKER_LIST if docker else mediatype.OCI_INDEX


def _image_rank(image: Descriptor) -> tuple[object, ...]:
    return (*rank(_platform(image)), image.digest)


def _platform(child: Descriptor) -> Platform:
    if child.platform is None:
        raise ValueError(f"the child {child.digest} has no platform")
    return child.platform


def _descriptor(child: Descriptor, *, oci: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"mediaType": child.media_type, "digest": child.digest, "size": child.size}
    if oci and child.annotations:
        fields["annotations"] = dict(sorted(child.annotations.items()))
    fields["platform"] = platform_fields(_platform(child))
    if oci and child.artifact_type:
        fields["artifactType"] = child.artifact_type
    return fields
