"""Rules, plans and answers of the virtual name `kimoqi/alpine:1.0`, in as few words as a test can bear."""

from __future__ import annotations

from proxy.merge.entry import Entry, Part
from proxy.merge.index import render
from proxy.merge.outcome import Absent, Failed, Found, ManyImages, OtherArtifact, SingleImage
from proxy.merge.plan import Guessed, Plan, Source, Written, plan_tag
from proxy.merge.rule import Rule, SourceTemplate
from proxy.merge.template import Template
from proxy.oci.content import ATTESTATION, REFERENCE_TYPE, SUBJECT_DIGEST, Descriptor
from proxy.oci.errors import RegistryError
from proxy.oci.mediatype import OCI_INDEX, OCI_MANIFEST
from proxy.oci.platform import UNKNOWN, Platform
from proxy.oci.reference import Digest, Repository, Tag

APP, TAG = Repository("kimoqi/alpine"), Tag("1.0")
BASE = Source("hub", APP, TAG)


def platform(text: str) -> Platform:
    """Read `windows/amd64@10.0.1`: a platform, and an OS version behind the @."""
    name, _, version = text.partition("@")
    read = Platform.parse(name)
    return Platform(read.os, read.architecture, read.variant, version)


def template(image: str, says: str = "", upstream: str = "") -> SourceTemplate:
    """Return an explicit source of a rule, with the platform it *says*."""
    return SourceTemplate(Template.parse(image), platform(says) if says else None, upstream)


# The example of the README: two sources with their platforms written down.
RULE = Rule(
    name="rule 1",
    match="kimoqi/*",
    sources=(
        template("{repository}-x86:{tag}", "linux/amd64"),
        template("{repository}-arm:{tag}", "linux/arm64"),
    ),
)
GUESSING = Rule(name="guess", match="**", conventions=("repository-suffix", "tag-suffix"))


def plan_for(rule: Rule) -> Plan:
    """Plan `kimoqi/alpine:1.0` on the upstream `hub`, with nothing learned."""
    return plan_tag(rule, "hub", APP, TAG, None, 0.0)


def source(name: str, hint: Written | Guessed | None = None) -> Source:
    """Return the source `kimoqi/alpine-NAME:1.0`."""
    return Source("hub", Repository(f"{APP}-{name}"), TAG, hint)


def written(name: str, says: str) -> Source:
    """Return a source whose platform stands in the configuration."""
    return source(name, Written(platform(says)))


def guessed(token: str, *means: str) -> Source:
    """Return a source that was guessed from the word *token*."""
    return source(token, Guessed("repository-suffix", token, tuple(platform(each) for each in means)))


def image(seed: str, says: str = "", media_type: str = OCI_MANIFEST) -> Descriptor:
    """Return a child whose digest follows from *seed*, with the platform it *says*."""
    return Descriptor(
        media_type=media_type, digest=Digest.of(seed.encode()), size=1024, platform=platform(says) if says else None
    )


def attestation(subject: Descriptor) -> Descriptor:
    """Return buildx's provenance entry for *subject*."""
    return Descriptor(
        media_type=OCI_MANIFEST,
        digest=Digest.of(b"provenance of " + subject.digest.encode()),
        size=566,
        platform=Platform(UNKNOWN, UNKNOWN),
        annotations={SUBJECT_DIGEST: subject.digest, REFERENCE_TYPE: ATTESTATION},
    )


def single(of: Source, says: str = "") -> Found:
    """Return what asking brings where *of* is one image whose config *says* a platform."""
    return Found(of, image(str(of)), SingleImage(platform(says) if says else None), 0.25)


def many(of: Source, *children: Descriptor) -> Found:
    """Return what asking brings where *of* is an index."""
    return Found(of, image(str(of), media_type=OCI_INDEX), ManyImages(children), 0.25)


def artifact(of: Source) -> Found:
    """Return what asking brings where *of* is a Helm chart."""
    return Found(of, image(str(of)), OtherArtifact("application/vnd.cncf.helm.config.v1+json"), 0.25)


def absent(of: Source) -> Absent:
    """Return an authoritative no."""
    return Absent(of, 0.25)


def failed(of: Source, error: RegistryError) -> Failed:
    """Return no answer, or a refusal."""
    return Failed(of, error, 0.25)


def entry(*parts: Found) -> Entry:
    """Return a last good generation that was made of *parts*."""
    made = render([image("old", "linux/amd64")])
    return Entry(
        descriptor=made.descriptor,
        merged=True,
        default_child=None,
        parts=tuple(Part(*part.source.place, digest=part.descriptor.digest, children=()) for part in parts),
        warnings=(),
        fingerprint="0" * 16,
        checked_at=1000.0,
        changed_at=1000.0,
    )
