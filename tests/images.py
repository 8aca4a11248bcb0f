"""Images for tests: small, of any platform and type, put into a memory registry as a push would."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any

import orjson

from proxy.memory import MemoryRegistry, add_image
from proxy.oci import mediatype
from proxy.oci.content import Descriptor, Manifest
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest, Repository, Tag
from proxy.oci.referrers import described

X86 = Repository("kimoqi/alpine-x86")
ARM = Repository("kimoqi/alpine-arm")
VIRTUAL = Repository("kimoqi/alpine")
V1 = Tag("1.0")
AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


def layer(text: str = "hello") -> tuple[bytes, Digest]:
    """Return a gzipped tar with one file that says *text*, and the digest of the tar inside."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("hello")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(plain.getvalue(), mtime=0), Digest.of(plain.getvalue())


def push(
    registry: MemoryRegistry,
    repository: str,
    tag: str = "1.0",
    platform: str = "linux/amd64",
    *,
    media_type: str = mediatype.DOCKER_MANIFEST,
    text: str = "",
) -> Descriptor:
    """Push an image whose config says *platform*; *text* makes another image of the same platform."""
    packed, diff_id = layer(text or f"{repository}:{tag} {platform}")
    return add_image(
        registry,
        Repository.parse(repository),
        Tag.parse(tag),
        Platform.parse(platform),
        layer=packed,
        diff_id=diff_id,
        media_type=media_type,
    )


def push_pair(registry: MemoryRegistry, tag: str = "1.0") -> tuple[Descriptor, Descriptor]:
    """Push the two images that most tests merge."""
    return push(registry, X86, tag, "linux/amd64"), push(registry, ARM, tag, "linux/arm64")


def entry(descriptor: Descriptor, platform: str | None, **annotations: str) -> dict[str, Any]:
    """Return an index's entry for *descriptor*."""
    fields: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if annotations:
        fields["annotations"] = annotations
    if platform:
        os, architecture, *variant = platform.split("/")
        fields["platform"] = {"os": os, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
    return fields


def push_index(
    registry: MemoryRegistry,
    repository: str,
    tag: str | None,
    entries: list[dict[str, Any]],
    media_type: str = mediatype.OCI_INDEX,
) -> Descriptor:
    """Push an index of *entries*."""
    body = orjson.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries})
    manifest = Manifest.of(media_type, body)
    registry.add_manifest(Repository.parse(repository), manifest, Tag.parse(tag) if tag else None)
    return manifest.descriptor


def push_attestation(registry: MemoryRegistry, repository: str, subject: Descriptor) -> dict[str, Any]:
    """Push what buildx pushes for provenance, and return its entry for the index beside *subject*."""
    config = registry.add_blob(Repository.parse(repository), b"{}")
    statement = registry.add_blob(Repository.parse(repository), orjson.dumps({"subject": subject.digest}))
    body = orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": {"mediaType": mediatype.OCI_CONFIG, "digest": config, "size": 2},
            "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": statement, "size": 88}],
        }
    )
    manifest = Manifest.of(mediatype.OCI_MANIFEST, body)
    registry.add_manifest(Repository.parse(repository), manifest)
    annotations = {
        "vnd.docker.reference.digest": subject.digest,
        "vnd.docker.reference.type": "attestation-manifest",
    }
    return entry(manifest.descriptor, "unknown/unknown", **annotations)


def push_artifact(registry: MemoryRegistry, repository: str, tag: str = "1.0") -> Descriptor:
    """Push something like a Helm chart."""
    config = registry.add_blob(Repository.parse(repository), b'{"name":"chart"}')
    return _push_of(registry, repository, tag, "application/vnd.cncf.helm.config.v1+json", config, 16)


def push_with_config(registry: MemoryRegistry, repository: str, config: bytes, *, missing: bool = False) -> Descriptor:
    """Push an image as 1.0 with these bytes for its config, or without the config that it names."""
    digest = Digest.of(config) if missing else registry.add_blob(Repository.parse(repository), config)
    return _push_of(registry, repository, "1.0", mediatype.OCI_CONFIG, digest, len(config))


def _push_of(
    registry: MemoryRegistry, repository: str, tag: str, config_type: str, config: Digest, size: int
) -> Descriptor:
    body = orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": {"mediaType": config_type, "digest": config, "size": size},
            "layers": [],
        }
    )
    manifest = Manifest.of(mediatype.OCI_MANIFEST, body)
    registry.add_manifest(Repository.parse(repository), manifest, Tag.parse(tag))
    return manifest.descriptor


def push_referrer(
    registry: MemoryRegistry, repository: str, subject: str, kind: str = "application/spdx+json", tag: str | None = None
) -> Descriptor:
    """Push what `oras attach` or `cosign` makes for *subject*, and return its entry in a list of referrers."""
    data = orjson.dumps({"about": subject, "kind": kind})
    layer = {"mediaType": kind, "digest": registry.add_blob(Repository.parse(repository), data), "size": len(data)}
    config = {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": registry.add_blob(Repository.parse(repository), b"{}"),
        "size": 2,
    }
    body = orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "artifactType": kind,
            "config": config,
            "layers": [layer],
            "subject": {"mediaType": mediatype.OCI_MANIFEST, "digest": subject, "size": 1},
            "annotations": {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
        }
    )
    manifest = Manifest.of(mediatype.OCI_MANIFEST, body)
    registry.add_manifest(Repository.parse(repository), manifest, Tag.parse(tag) if tag else None)
    found = described(manifest)
    assert found
    return found[1]
