"""What refers to a digest, and the tags beside images, through the whole service."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from conftest import Proxy, StartProxy
from images import ARM, VIRTUAL, X86, entry, push, push_artifact, push_index, push_pair, push_referrer
from proxy.oci.content import Descriptor
from proxy.oci.mediatype import OCI_INDEX
from proxy.oci.reference import Digest, Repository, Tag
from proxy.oci.referrers import render
from scripted import Fault, Origin, hang, html, reset, status

TAG = "/v2/kimoqi/alpine/manifests/1.0"
SPDX, SIGNATURE = "application/spdx+json", "application/vnd.dev.sigstore.bundle.v0.3+json"
UNKNOWN = Digest("sha256:" + "0" * 64)


async def referrers(proxy: Proxy, digest: str, query: str = "") -> list[dict[str, Any]]:
    """Return the entries of a list of referrers, which is always an index."""
    answer = await proxy.get(f"/v2/kimoqi/alpine/referrers/{digest}{query}")
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == OCI_INDEX
    document = orjson.loads(answer.body)
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    found: list[dict[str, Any]] = document["manifests"]
    return found


async def index(proxy: Proxy) -> str:
    """Return the digest of the merged index."""
    digest: str = (await proxy.get(TAG)).headers["Docker-Content-Digest"]
    return digest


def fields(*entries: Descriptor) -> list[dict[str, Any]]:
    """Return entries as a list shows them, in the order of their digests."""
    found: list[dict[str, Any]] = orjson.loads(render(sorted(entries, key=lambda each: each.digest)).body)["manifests"]
    return found


async def test_there_is_always_an_index(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Any digest has a list of referrers, if an empty one, in the bare media type."""
    _, arm = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])

    for digest in (arm.digest, await index(proxy), UNKNOWN, "sha512:" + "0" * 128):
        assert await referrers(proxy, digest) == []


@pytest.mark.parametrize("digest", ["sha256:x", "md5:" + "0" * 32, "sha256:" + "A" * 64, "sha256:"])
async def test_a_bad_digest_is_refused(origin: Origin, start: StartProxy, rule: dict[str, Any], digest: str) -> None:
    """What can't be a digest is a 400, and nobody is asked."""
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(f"/v2/kimoqi/alpine/referrers/{digest}")

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    assert origin.requests == []


async def test_head_is_get_without_the_body(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """The same headers, the length among them."""
    proxy = await start(origin, rule=[rule])
    path = f"/v2/kimoqi/alpine/referrers/{UNKNOWN}"
    got, head = await proxy.get(path), await proxy.head(path)

    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(got.body))


async def test_a_child_s_referrers_come_from_its_owner_and_the_name(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """What was pushed beside the child, and through us to the virtual name, is one list; no other source is asked."""
    _, arm = push_pair(origin.registry)
    beside = push_referrer(origin.registry, ARM, arm.digest)
    pushed = push_referrer(origin.registry, VIRTUAL, arm.digest, SIGNATURE)
    push_referrer(origin.registry, X86, arm.digest, "application/x")
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    origin.requests.clear()

    found = await referrers(proxy, arm.digest)

    assert found == fields(beside, pushed)
    assert not [request for request in origin.requests if "alpine-x86" in request.path]


async def test_the_merged_index_has_what_was_pushed_to_the_name(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Nobody else can know the digest of an index that is our own."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    digest = await index(proxy)
    pushed = push_referrer(origin.registry, VIRTUAL, digest, SIGNATURE)
    push_referrer(origin.registry, X86, digest)
    origin.requests.clear()

    assert await referrers(proxy, digest) == fields(pushed)
    assert {request.path.split("/")[3] for request in origin.requests} == {"alpine"}


async def test_what_was_learned_hides_no_referrers(origin: Origin, start: StartProxy) -> None:
    """An image that another tag's words led to is no less signed than where nothing was learned."""
    push_pair(origin.registry, "1.0")
    child = push(origin.registry, f"{VIRTUAL}-arm64", "2.0", "linux/arm64")
    expected = push_referrer(origin.registry, f"{VIRTUAL}-arm64", child.digest, SIGNATURE)
    signature = push_artifact(origin.registry, f"{VIRTUAL}-arm64", f"{child.digest.replace(':', '-')}.sig")
    proxy = await start(origin)
    await index(proxy)

    assert await referrers(proxy, child.digest) == fields(expected)
    answer = await proxy.get(f"/v2/{VIRTUAL}/manifests/{child.digest.replace(':', '-')}.sig")
    assert answer.headers["Docker-Content-Digest"] == signature.digest


async def test_an_unknown_digest_is_looked_for_everywhere(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Somebody who has a digest from elsewhere gets what any source of the name says."""
    _, arm = push_pair(origin.registry)
    beside = push_referrer(origin.registry, ARM, arm.digest)
    push_referrer(origin.registry, "private/vault", arm.digest, SIGNATURE)
    proxy = await start(origin, rule=[rule])

    assert await referrers(proxy, arm.digest) == fields(beside)


async def test_the_fallback_tag_counts_beside_the_api(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """What was pushed before the registry had the API is listed, too, and once."""
    _, arm = push_pair(origin.registry)
    new = push_referrer(origin.registry, ARM, arm.digest)
    old = push_artifact(origin.registry, ARM, "old")
    listed = [entry(old, None), entry(new, None)]
    push_index(origin.registry, ARM, f"sha256-{arm.digest.hex}", listed)
    proxy = await start(origin, rule=[rule])

    assert await referrers(proxy, arm.digest) == fields(new, old)


@pytest.mark.parametrize("fault", [status(404), status(405), status(400), html()])
async def test_an_upstream_without_the_api(
    origin: Origin, start: StartProxy, rule: dict[str, Any], fault: Fault
) -> None:
    """Its fallback tags are all there is; a page that is no OCI index isn't the API's."""
    _, arm = push_pair(origin.registry)
    origin.fail("/referrers/", fault)
    attached = push_artifact(origin.registry, ARM, "attached")
    push_index(origin.registry, ARM, f"sha256-{arm.digest.hex}", [entry(attached, None)])
    proxy = await start(origin, rule=[rule])

    assert await referrers(proxy, arm.digest) == fields(attached)


@pytest.mark.parametrize("plus", ["%2B", "+"])
async def test_one_artifact_type(origin: Origin, start: StartProxy, rule: dict[str, Any], plus: str) -> None:
    """The filter is applied here, whatever the upstream can, and said to have been.

    A plus that isn't encoded is one: nothing signed with `+json` may look unsigned to who writes a URL by hand.
    """
    _, arm = push_pair(origin.registry)
    sbom = push_referrer(origin.registry, ARM, arm.digest)
    push_referrer(origin.registry, ARM, arm.digest, SIGNATURE)
    proxy = await start(origin, rule=[rule])

    answer = await proxy.get(f"/v2/kimoqi/alpine/referrers/{arm.digest}?artifactType=application/spdx{plus}json")

    assert orjson.loads(answer.body)["manifests"] == fields(sbom)
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"


async def test_what_is_listed_can_be_pulled(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """Each entry's manifest and blobs are found under the virtual name, wherever they are."""
    _, arm = push_pair(origin.registry)
    push_referrer(origin.registry, ARM, arm.digest)
    push_referrer(origin.registry, VIRTUAL, arm.digest, SIGNATURE)
    proxy = await start(origin, rule=[{**rule, "base": "ignore"}])
    await proxy.get(TAG)

    for each in await referrers(proxy, arm.digest):
        manifest = await proxy.get(f"/v2/kimoqi/alpine/manifests/{each['digest']}")
        assert (manifest.status, len(manifest.body)) == (200, each["size"])
        for blob in orjson.loads(manifest.body)["layers"]:
            assert (await proxy.get(f"/v2/kimoqi/alpine/blobs/{blob['digest']}")).status == 200


async def test_an_entry_is_a_descriptor_and_no_permission(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """A source that lists a manifest of somebody else's repository doesn't open that: it isn't in any place."""
    _, arm = push_pair(origin.registry)
    secret = push(origin.registry, "private/vault")
    push_index(origin.registry, ARM, f"sha256-{arm.digest.hex}", [entry(secret, None)])
    proxy = await start(origin, rule=[rule])
    assert (await proxy.get(f"/v2/private/vault/manifests/{secret.digest}")).status == 200

    assert len(await referrers(proxy, arm.digest)) == 1
    assert (await proxy.get(f"/v2/kimoqi/alpine/manifests/{secret.digest}")).status == 404


@pytest.mark.parametrize(("fault", "expected"), [(status(500), 503), (reset(), 503), (hang(), 503), (status(403), 403)])
@pytest.mark.parametrize("where", ["alpine-arm/referrers", "alpine-arm/manifests/sha256-"])
async def test_a_place_that_doesn_t_say_makes_no_shorter_list(
    origin: Origin, start: StartProxy, rule: dict[str, Any], where: str, fault: Fault, expected: int
) -> None:
    """A list without a signature would look like an unsigned image; also where the owner refuses."""
    _, arm = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule], request_budget="500ms")
    await proxy.get(TAG)
    origin.fail(where, fault)

    assert (await proxy.get(f"/v2/kimoqi/alpine/referrers/{arm.digest}")).status == expected


@pytest.mark.parametrize("known", [True, False])
async def test_a_refused_conjecture_says_nothing(origin: Origin, start: StartProxy, *, known: bool) -> None:
    """The virtual name usually doesn't exist, and most guesses don't: registries refuse such names."""
    _, arm = push_pair(origin.registry)
    beside = push_referrer(origin.registry, ARM, arm.digest)
    origin.fail("/alpine(-amd64|-x86|-arm64)?/(referrers|manifests/sha256-)", status(403))
    proxy = await start(origin)
    if known:
        await proxy.get(TAG)

    assert await referrers(proxy, arm.digest) == fields(beside)


# Companions: signatures, attestations and SBOMs under tags


@pytest.mark.parametrize("suffix", ["", ".sig", ".att", ".sbom"])
@pytest.mark.parametrize("known", [True, False])
async def test_a_child_s_companions_are_beside_it(
    origin: Origin, start: StartProxy, rule: dict[str, Any], suffix: str, *, known: bool
) -> None:
    """Found in the source that owns the child, whether that is known already or not, and pulled with what it names."""
    _, arm = push_pair(origin.registry)
    tag = f"sha256-{arm.digest.hex}{suffix}"
    signature = push_referrer(origin.registry, ARM, arm.digest, tag=tag)
    proxy = await start(origin, rule=[{**rule, "require": ["linux/amd64"], "base": "merge"}])
    if known:
        await proxy.get(TAG)

    answer = await proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")

    assert answer.headers["Docker-Content-Digest"] == signature.digest
    for layer in orjson.loads(answer.body)["layers"]:
        assert (await proxy.get(f"/v2/kimoqi/alpine/blobs/{layer['digest']}")).status == 200
    assert (await proxy.get(f"/v2/kimoqi/alpine/manifests/{signature.digest}")).body == answer.body


async def test_a_known_child_s_companion_costs_two_questions(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """The name itself and the owner; the second time nobody is asked, and then it is confirmed."""
    _, arm = push_pair(origin.registry)
    tag = f"sha256-{arm.digest.hex}.sig"
    push_referrer(origin.registry, ARM, arm.digest, tag=tag)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    origin.requests.clear()

    answers = [await proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}") for _ in range(2)]

    assert origin.asked == [f"GET kimoqi/alpine-arm/manifests/{tag}", f"GET kimoqi/alpine/manifests/{tag}"]
    assert [answer.headers["X-Manifuse-Cache"] for answer in answers] == ["miss", "hit"]


async def test_what_was_pushed_to_the_name_comes_first(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A push through us adds to what was read, and lands at the name itself."""
    _, arm = push_pair(origin.registry)
    tag = f"sha256-{arm.digest.hex}"
    push_index(origin.registry, ARM, tag, [])
    newer = push_index(origin.registry, VIRTUAL, tag, [entry(arm, None)])
    proxy = await start(origin, rule=[{**rule, "base": "merge"}])

    answer = await proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")

    assert answer.headers["Docker-Content-Digest"] == newer.digest


async def test_the_merged_index_s_signature_is_at_the_name(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Signing the digest that clients resolve works as with any image."""
    push_pair(origin.registry)
    proxy = await start(origin, rule=[{**rule, "base": "ignore"}])
    digest = await index(proxy)
    tag = f"{digest.replace(':', '-')}.sig"
    missing = await proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")
    signature = push_referrer(origin.registry, VIRTUAL, digest, tag=tag)
    await proxy.site.directory.revalidate("origin0", VIRTUAL, Tag(tag))

    answer = await proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")

    assert missing.status == 404
    assert answer.headers["Docker-Content-Digest"] == signature.digest


async def test_a_signature_pushed_beside_the_source_shows_at_once(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """An event about a source's companion ends what is remembered of it under the virtual name."""
    _, arm = push_pair(origin.registry)
    tag = f"sha256-{arm.digest.hex}.sig"
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    missing = await proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")
    push_referrer(origin.registry, ARM, arm.digest, tag=tag)

    named = await proxy.site.directory.revalidate("origin0", ARM, Tag(tag))

    assert f"origin0/kimoqi/alpine:{tag}" in named
    assert missing.status == 404
    assert (await proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")).status == 200


@pytest.mark.parametrize("tag", [f"sha256-{'0' * 64}.sig", f"sha512-{'0' * 64}", "sha256-ab.att"])
@pytest.mark.parametrize("refusing", ["nothing", "/alpine/manifests", "/alpine(-amd64|-x86_64)?/manifests"])
async def test_a_companion_that_is_nowhere_is_unknown(
    origin: Origin, start: StartProxy, tag: str, refusing: str
) -> None:
    """404, which clients take for "not signed"; also where names that may not exist are refused."""
    push_pair(origin.registry)
    proxy = await start(origin)
    origin.fail(refusing, status(403))

    answer = await proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")

    assert (answer.status, orjson.loads(answer.body)["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(("fault", "expected"), [(status(500), 503), (status(403), 403)])
async def test_a_companion_isn_t_unknown_where_its_place_didn_t_say(
    origin: Origin, start: StartProxy, rule: dict[str, Any], fault: Fault, expected: int
) -> None:
    """No answer, or a refusal by the source that owns the child, is never taken for "not signed"."""
    _, arm = push_pair(origin.registry)
    proxy = await start(origin, rule=[rule])
    await proxy.get(TAG)
    origin.fail("alpine-arm/manifests/sha256-", fault)

    answer = await proxy.get(f"/v2/kimoqi/alpine/manifests/sha256-{arm.digest.hex}.sig")

    assert answer.status == expected


async def test_a_companion_of_a_name_that_passes_through(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Where nothing is merged the name is all there is, and its refusal counts."""
    pushed = push(origin.registry, "other/tool")
    tag = f"sha256-{pushed.digest.hex}.sig"
    push_artifact(origin.registry, "other/tool", tag)
    proxy = await start(origin, rule=[rule])
    found = await proxy.get(f"/v2/other/tool/manifests/{tag}")
    origin.fail("other/tool", status(403))

    refused = await proxy.get("/v2/other/tool/manifests/sha256-ab.sig")

    assert (found.status, refused.status) == (200, 403)


async def test_another_repository_s_companion_is_unknown(
    origin: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """Only places of the virtual name are looked in (law 8)."""
    vault = Repository("private/vault")
    secret = push(origin.registry, vault)
    push_artifact(origin.registry, vault, f"sha256-{secret.digest.hex}.sig")
    proxy = await start(origin, rule=[rule])

    assert (await proxy.get(f"/v2/kimoqi/alpine/manifests/sha256-{secret.digest.hex}.sig")).status == 404
    assert not [request for request in origin.requests if "vault" in request.path]
