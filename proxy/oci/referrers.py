"""What refers to a digest: the list that the referrers API answers with, and the tags beside an image. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from proxy.oci import mediatype
from proxy.oci.content import Descriptor, Manifest
from proxy.oci.document import platform_fields
from proxy.oci.errors import DigestInvalid
from proxy.oci.reference import Digest, Tag

# The referrers API's fallback is `sha256-…`; cosign adds what it keeps there.
_COMPANION: Final = re.compile(r"(sha(?:256|512))-([0-9a-f]+)(?:\.(?:sig|att|sbom))?", re.ASCII)
_TAG_HEX: Final = 64  # the specification cuts the encoded part of a digest to this for its tag


def fallback_tag(digest: Digest) -> Tag:
    """Return the tag under which registries without the API keep the list of what refers to *digest*."""
    return Tag(f"{digest.algorithm}-{digest.hex[:_TAG_HEX]}")


def is_companion(tag: Tag) -> bool:
    """Say whether *tag* belongs to a digest: signatures, attestations and lists of referrers are kept under such."""
    return _COMPANION.fullmatch(tag) is not None


def subject_of(tag: Tag) -> Digest | None:
    """Return the digest that a companion belongs to, or None: a tag has no room for all of a sha512."""
    found = _COMPANION.fullmatch(tag)
    try:
        return Digest.parse(f"{found[1]}:{found[2]}") if found else None
    except DigestInvalid:
        return None


def union(*lists: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    """Return all entries, each digest once and as the first list that has it says, in the order of the digests."""
    entries: dict[Digest, Descriptor] = {}
    for each in lists:
        for entry in each:
            entries.setdefault(entry.digest, entry)
    return tuple(entries[digest] for digest in sorted(entries))


def only(entries: Iterable[Descriptor], artifact_type: str) -> tuple[Descriptor, ...]:
    """Return the entries of one artifact type, or all where that is empty."""
    return tuple(entry for entry in entries if artifact_type in ("", entry.artifact_type))


def render(entries: Iterable[Descriptor]) -> Manifest:
    """Write the OCI index of *entries*, in their order: the same entries make the same bytes."""
    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_INDEX,
        "manifests": [_fields(entry) for entry in entries],
    }
    return Manifest.of(mediatype.OCI_INDEX, orjson.dumps(document))


def described(manifest: Manifest) -> tuple[Digest, Descriptor] | None:
    """Return what a manifest refers to and its entry in the list of that, or None where it has no subject.

    An image without an artifact type is what its config is; an index without one is nothing in particular.
    """
    document = orjson.loads(manifest.body)
    try:
        subject = Digest.parse(document["subject"]["digest"])
    except (KeyError, TypeError, DigestInvalid):
        return None
    config, annotations = document.get("config"), document.get("annotations")
    own_type = document.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else "")
    entry = Descriptor(
        media_type=manifest.descriptor.media_type,
        digest=manifest.descriptor.digest,
        size=manifest.descriptor.size,
        annotations=_texts(annotations) if isinstance(annotations, dict) else {},
        artifact_type=own_type if isinstance(own_type, str) else "",
    )
    return subject, entry


def _texts(annotations: Mapping[str, Any]) -> Mapping[str, str]:
    return {name: text for name, text in annotations.items() if isinstance(text, str)}


def _fields(entry: Descriptor) -> dict[str, Any]:
    fields: dict[str, Any] = {"mediaType": entry.media_type, "digest": entry.digest, "size": entry.size}
    if entry.annotations:
        fields["annotations"] = dict(sorted(entry.annotations.items()))
    if entry.platform:
        fields["platform"] = platform_fields(entry.platform)
    if entry.artifact_type:
        fields["artifactType"] = entry.artifact_type
    return fields
