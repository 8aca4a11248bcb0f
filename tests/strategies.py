"""Hypothesis strategies for the words of the specifications."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from proxy.oci import mediatype
from proxy.oci.content import ATTESTATION, REFERENCE_TYPE, SUBJECT_DIGEST, Descriptor
from proxy.oci.platform import UNKNOWN, Platform, normalize
from proxy.oci.reference import Digest, Repository, Tag

_components = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,2})[a-z0-9]{1,4}){0,2}", fullmatch=True)
_sizes = st.integers(0, 1 << 40)
# orjson refuses lone surrogates, so no document that was read holds any.
_texts = st.text(st.characters(codec="utf-8") | st.sampled_from('<>&\u2028\u2029"\\\x7f'), max_size=12)

repositories: SearchStrategy[Repository] = st.lists(_components, min_size=1, max_size=3).map("/".join).map(Repository)
tags: SearchStrategy[Tag] = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,9}", fullmatch=True).map(Tag)
digests: SearchStrategy[Digest] = (
    st.binary(min_size=32, max_size=32).map(lambda data: f"sha256:{data.hex()}")
    | st.binary(min_size=64, max_size=64).map(lambda data: f"sha512:{data.hex()}")
).map(Digest)

# As written by people and programs: any case, any alias, sometimes nonsense.
platforms: SearchStrategy[Platform] = st.builds(
    Platform,
    os=st.sampled_from(["linux", "Linux", "windows", "macos", "darwin", " linux "]) | _texts,
    architecture=st.sampled_from(
        ["amd64", "x86_64", "X86-64", "arm64", "aarch64", "arm", "armhf", "armel", "i386", "386", "s390x"]
    )
    | _texts,
    variant=st.sampled_from(["", "v1", "v2", "8", "v8", "v8.0", "9", "V7", "5", "6", "armv7"]) | _texts,
    os_version=st.sampled_from(["", "10.0.17763.6189", "10.0.20348.2655"]) | _texts,
    os_features=st.lists(st.sampled_from(["win32k", "x"]), max_size=3).map(tuple),
)

_known = platforms.map(normalize).filter(lambda platform: bool(platform.os and platform.architecture))
labels: SearchStrategy[dict[str, str]] = st.dictionaries(_texts, _texts, max_size=3).filter(
    lambda found: SUBJECT_DIGEST not in found
)

# As lists of referrers hold them.
entries: SearchStrategy[Descriptor] = st.builds(
    Descriptor,
    media_type=st.sampled_from(sorted(mediatype.MANIFESTS | mediatype.INDEXES)),
    digest=digests,
    size=_sizes,
    platform=st.none() | _known,
    annotations=labels,
    artifact_type=_texts,
)


@st.composite
def images(draw: st.DrawFn, *, media_types: tuple[str, ...] = tuple(mediatype.MANIFESTS)) -> tuple[Descriptor, ...]:
    """Draw images with one platform each, as an index may hold."""
    found = draw(st.lists(_known.filter(lambda p: not p.is_unknown), min_size=1, max_size=5, unique_by=lambda p: p.key))
    addresses = draw(st.lists(digests, min_size=len(found), max_size=len(found), unique=True))
    return tuple(
        Descriptor(
            media_type=draw(st.sampled_from(media_types)),
            digest=digest,
            size=draw(_sizes),
            platform=platform,
            annotations=draw(labels),
        )
        for digest, platform in zip(addresses, found, strict=True)
    )


@st.composite
def children(draw: st.DrawFn) -> tuple[Descriptor, ...]:
    """Draw images and attestations of some of them."""
    found = draw(images(media_types=(mediatype.OCI_MANIFEST,)))
    subjects = draw(st.lists(st.sampled_from(found), max_size=4))
    addresses = draw(st.lists(digests, min_size=len(subjects), max_size=len(subjects), unique=True))
    attestations = tuple(
        Descriptor(
            media_type=mediatype.OCI_MANIFEST,
            digest=digest,
            size=draw(_sizes),
            platform=Platform(UNKNOWN, UNKNOWN),
            annotations={SUBJECT_DIGEST: subject.digest, REFERENCE_TYPE: ATTESTATION},
        )
        for digest, subject in zip(addresses, subjects, strict=True)
    )
    return (*found, *attestations)
