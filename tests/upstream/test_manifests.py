"""Manifests over HTTP: what is asked, what is believed."""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest

from images import V1, VIRTUAL, X86, push, push_index
from proxy.oci.content import Descriptor, Manifest, Resolved
from proxy.oci.errors import (
    BadAnswer,
    Unreachable,
)
from proxy.oci.mediatype import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from proxy.oci.reference import Digest
from scripted import Fault, Origin, endless, html, once, status, truncated
from upstream.peers import ALICE, BODY, CONFIG, OTHER, Connect, bad


def manifest(**fields: object) -> bytes:
    """Write a manifest of *fields*."""
    return json.dumps({"schemaVersion": 2, **fields}).encode()


async def test_every_kind_of_manifest_is_accepted(origin: Origin, connect: Connect) -> None:
    """Upstreams are asked for everything: ghcr.io, Docker Hub and Harbor answer 404 to a partial list."""
    push(origin.registry, X86)
    upstream = await connect(origin)
    await upstream.resolve(X86, V1)
    await upstream.manifest(X86, V1)

    for request in origin.requests:
        accepted = {kind.strip() for kind in request.headers["Accept"].split(",")}
        assert accepted >= {OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, "*/*"}
        assert request.headers["Accept-Encoding"] == "identity"
        assert "Cookie" not in request.headers


async def test_resolving_costs_one_head(origin: Origin, connect: Connect) -> None:
    """A HEAD that says digest, length and type is enough."""
    pushed = push(origin.registry, X86)
    upstream = await connect(origin)

    found = await upstream.resolve(X86, V1)

    assert found.descriptor == pushed
    assert origin.asked == ["HEAD kimoqi/alpine-x86/manifests/1.0"]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(status(200, BODY, Content_Type=DOCKER_MANIFEST), id="no digest"),
        pytest.param(status(200, BODY, Content_Type=DOCKER_MANIFEST, Docker_Content_Digest="md5:1"), id="bad digest"),
        pytest.param(status(200, Content_Type=DOCKER_MANIFEST, Docker_Content_Digest=OTHER), id="no length"),
        pytest.param(status(200, BODY, Docker_Content_Digest=OTHER), id="no type"),
        pytest.param(status(200, BODY, Content_Type="text/html", Docker_Content_Digest=OTHER), id="other type"),
        pytest.param(status(405, Allow="GET"), id="405"),
    ],
)
async def test_a_head_that_says_too_little_is_followed_by_a_get(origin: Origin, connect: Connect, fault: Fault) -> None:
    """Where HEAD leaves something open, or isn't allowed, the manifest itself is fetched and measured."""
    pushed = push(origin.registry, X86)
    origin.fail("HEAD", fault)
    upstream = await connect(origin)

    found = await upstream.resolve(X86, V1)

    assert found.descriptor == pushed
    assert origin.asked == [f"{method} kimoqi/alpine-x86/manifests/1.0" for method in ("GET", "HEAD")]


async def test_a_head_for_a_digest_must_answer_that_digest(origin: Origin, connect: Connect) -> None:
    """Who asks for one digest and is told of another has no answer."""
    origin.fail("HEAD", bad(BODY, Docker_Content_Digest=Digest.of(BODY)))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match=f"hub answered {Digest.of(BODY)} for {OTHER}"):
        await upstream.resolve(X86, OTHER)


async def test_a_manifest_is_resolved_and_fetched_alike(origin: Origin, connect: Connect) -> None:
    """HEAD and GET say the same of a manifest, by tag and by digest."""
    pushed = push(origin.registry, X86, media_type=OCI_MANIFEST)
    upstream = await connect(origin)

    for reference in (V1, pushed.digest):
        resolved: Resolved = await upstream.resolve(X86, reference)
        fetched: Manifest = await upstream.manifest(X86, reference)

        assert resolved.descriptor == fetched.descriptor == pushed
        assert pushed.digest.matches(fetched.body)


@pytest.mark.parametrize(
    ("media_type", "written"),
    [
        ("application/json", DOCKER_MANIFEST),
        ("text/plain; charset=utf-8", DOCKER_MANIFEST),
        (f"{DOCKER_MANIFEST}; charset=utf-8", DOCKER_MANIFEST),
        (DOCKER_MANIFEST, None),
    ],
)
async def test_a_vague_content_type_is_made_precise(
    origin: Origin, connect: Connect, media_type: str, written: str | None
) -> None:
    """The media type comes out bare, from the body where the header says nothing."""
    origin.fail("/manifests/", bad(manifest(mediaType=written, config=CONFIG, layers=[]), media_type))
    upstream = await connect(origin)

    assert (await upstream.manifest(X86, V1)).descriptor.media_type == DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(html(), "not JSON, it starts with '<!doctype html>", id="login page"),
        pytest.param(bad(b""), "not JSON", id="nothing"),
        pytest.param(bad(b"[]"), "not a JSON object", id="no object"),
        pytest.param(bad(BODY[:-5]), "not JSON", id="half a manifest"),
        pytest.param(bad(BODY, Docker_Content_Digest=OTHER), f"for {OTHER} that hash to", id="other digest"),
        pytest.param(bad(BODY, Docker_Content_Digest="sha256:x"), "unusable Docker-Content-Digest", id="bad digest"),
        pytest.param(bad(gzip.compress(BODY), Content_Encoding="gzip"), "Content-Encoding 'gzip'", id="gzip"),
        pytest.param(bad(BODY, code=206, Content_Range="bytes 0-9/10"), "answered 206", id="206"),
        pytest.param(bad(BODY, OCI_INDEX), "says mediaType .* its Content-Type says", id="two types"),
        pytest.param(bad(BODY, "application/xml"), "its Content-Type says", id="other type"),
        pytest.param(bad(manifest(config=CONFIG, manifests=[])), "ambiguous", id="image and index"),
        pytest.param(bad(manifest(layers=[], manifests=[]), OCI_INDEX), "ambiguous", id="index and image"),
        pytest.param(bad(manifest(), "application/json"), "neither", id="neither"),
        pytest.param(bad(b'{"schemaVersion": 1, "fsLayers": []}'), "schema 1", id="schema 1"),
        pytest.param(bad(BODY, "application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1", id="signed"),
        pytest.param(bad(manifest(manifests=[{}] * 1025), OCI_INDEX), "1025 descriptors", id="descriptors"),
        pytest.param(bad(b"[" * 100_000), "not JSON", id="deep"),
        pytest.param(bad(b" " * (5 << 20)), "a manifest of 5242880 bytes, at most 4194304", id="5 MiB"),
        pytest.param(endless(Content_Type=DOCKER_MANIFEST), "a manifest of more than 4194304 bytes", id="endless"),
    ],
)
async def test_what_is_no_manifest_is_a_bad_answer(origin: Origin, connect: Connect, fault: Fault, words: str) -> None:
    """Nothing that can't be used is believed; the sentence says why; the next good answer heals (S7, S8, S14)."""
    pushed = push(origin.registry, X86)
    origin.fail("GET /v2/.*/manifests/", once(fault))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match=f"^hub.*{words}"):
        await upstream.manifest(X86, V1)
    assert (await upstream.manifest(X86, V1)).descriptor == pushed


async def test_a_manifest_must_hash_to_the_digest_that_was_asked_for(origin: Origin, connect: Connect) -> None:
    """The digest in the question counts, whatever the headers of the answer say."""
    origin.fail("/manifests/", bad(BODY, Docker_Content_Digest=Digest.of(BODY)))
    upstream = await connect(origin)

    with pytest.raises(BadAnswer, match=f"hub sent {len(BODY)} bytes for {OTHER} that hash to {Digest.of(BODY)}"):
        await upstream.manifest(X86, OTHER)


async def test_sha512_is_verified_as_well(origin: Origin, connect: Connect) -> None:
    """A digest is verified with its own algorithm."""
    right = Digest(f"sha512:{hashlib.sha512(BODY).hexdigest()}")
    origin.fail("/manifests/", bad(BODY))
    upstream = await connect(origin)

    assert (await upstream.manifest(X86, right)).descriptor.digest == right
    with pytest.raises(BadAnswer, match="that hash to"):
        await upstream.manifest(X86, Digest(f"sha512:{'0' * 128}"))


async def test_a_truncated_manifest_is_no_answer(origin: Origin, connect: Connect) -> None:
    """A manifest that ends before its announced length was not received."""
    origin.fail("/manifests/", truncated(BODY, len(BODY) + 1, Content_Type=DOCKER_MANIFEST))
    upstream = await connect(origin)

    with pytest.raises(Unreachable, match="broke off"):
        await upstream.manifest(X86, V1)


async def test_layers_elsewhere_are_not_fetched(origin: Origin, other: Origin, connect: Connect) -> None:
    """`urls` of a layer are never followed (CVE-2020-15157)."""
    layer = {**CONFIG, "urls": [f"{other.url}/layer"]}
    origin.fail("/manifests/", bad(manifest(config=CONFIG, layers=[layer])))
    upstream = await connect(origin, credential=ALICE)

    await upstream.manifest(X86, V1)

    assert other.requests == []


async def test_a_manifest_behind_a_redirect_is_verified(origin: Origin, other: Origin, connect: Connect) -> None:
    """Wherever a manifest comes from in the end, it must be what was asked for."""
    pushed = push(other.registry, X86)
    origin.fail("/manifests/", status(307, Location=f"{other.url}/v2/{X86}/manifests/1.0"))
    upstream = await connect(origin)

    assert (await upstream.manifest(X86, pushed.digest)).descriptor == pushed
    with pytest.raises(BadAnswer, match="that hash to"):
        await upstream.manifest(X86, OTHER)


async def test_indexes_pass_untouched(origin: Origin, connect: Connect) -> None:
    """An index is fetched like any manifest; what it points to isn't asked for."""
    pushed: Descriptor = push_index(origin.registry, VIRTUAL, "1.0", [], DOCKER_LIST)
    upstream = await connect(origin)

    found = await upstream.manifest(VIRTUAL, V1)

    assert found.descriptor == pushed
    assert len(origin.requests) == 1
