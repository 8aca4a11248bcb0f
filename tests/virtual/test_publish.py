"""Publishing: the index becomes a real one, byte for byte, with all that it names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conftest import Proxy, StartProxy
from images import ARM, V1, VIRTUAL, X86, entry, push, push_attestation, push_index, push_pair
from patience import HANGING
from proxy.merge.publication import Kind, Step, Way
from proxy.oci import mediatype
from proxy.oci.content import Manifest
from proxy.oci.errors import BlobUnknown, ManifestUnknown, NoAnswer
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, Repository
from proxy.virtual.publish import NotPublishable
from scripted import Origin, once, reset, status

IMAGE = f"{VIRTUAL}:{V1}"
TAG = f"/v2/{VIRTUAL}/manifests/{V1}"
RELEASE = Repository("releases/alpine")


@pytest.fixture
async def proxy(origin: Origin, other: Origin, start: StartProxy, rule: dict[str, Any]) -> Proxy:
    """A proxy in front of two registries, the usual pair on the first."""
    push_pair(origin.registry)
    return await start(origin, other, rule=[rule])


async def publish(proxy: Proxy, to: str, *, partial: bool = False) -> tuple[Step, ...]:
    """Publish the usual image, and return what that took."""
    publication = await proxy.site.publication(IMAGE, to, partial=partial)
    await proxy.site.publisher.run(publication)
    return publication.steps


def ways(steps: tuple[Step, ...]) -> list[tuple[Kind, Way]]:
    """Return what happened to each kind of thing."""
    return [(step.kind, step.way) for step in steps]


async def published(origin: Origin, repository: Repository) -> Manifest:
    """Return what the registry itself has now, every child and blob of it looked at."""
    return await origin.registry.manifest(repository, V1, ANYTHING)


async def test_the_index_is_the_one_that_clients_get(origin: Origin, proxy: Proxy) -> None:
    """The tag at its own name: blobs are mounted from the sources, manifests written, the bytes are the same."""
    served = await proxy.get(TAG)

    steps = await publish(proxy, IMAGE)

    frozen = await published(origin, VIRTUAL)
    assert frozen.body == served.body
    assert ways(steps) == [(Kind.BLOB, Way.MOUNT)] * 4 + [(Kind.MANIFEST, Way.COPY)] * 2
    assert not [request for request in origin.requests if request.method == "PUT" and "uploads" in request.path]


async def test_a_frozen_release_stays_as_it_is(origin: Origin, proxy: Proxy) -> None:
    """An index at the name itself is served untouched, whatever is pushed to the sources later."""
    served = await proxy.get(TAG)
    await publish(proxy, IMAGE)
    push(origin.registry, ARM, "1.0", "linux/arm64", text="rebuilt")
    await proxy.site.directory.revalidate("origin0", VIRTUAL, V1)

    assert (await proxy.get(TAG)).body == served.body


async def test_to_another_registry_blobs_are_copied(origin: Origin, other: Origin, proxy: Proxy) -> None:
    """Nothing can be mounted across registries: everything goes through here, verified."""
    served = await proxy.get(TAG)

    steps = await publish(proxy, f"origin1/{RELEASE}:{V1}")

    assert (await published(other, RELEASE)).body == served.body
    assert {step.way for step in steps} == {Way.COPY}


async def test_what_is_there_is_left_alone(origin: Origin, other: Origin, proxy: Proxy) -> None:
    """A second run copies nothing, and writes the tag again."""
    await publish(proxy, f"origin1/{RELEASE}:{V1}")
    other.requests.clear()

    steps = await publish(proxy, f"origin1/{RELEASE}:{V1}")

    assert {step.way for step in steps} == {Way.THERE}
    assert [str(r) for r in other.requests if r.method not in ("HEAD", "GET")] == [f"PUT {RELEASE}/manifests/{V1}"]


async def test_a_run_that_broke_off_is_gone_on_with(origin: Origin, other: Origin, proxy: Proxy) -> None:
    """What arrived before the failure isn't sent again; the tag stands for nothing until all is there."""
    other.fail("PUT .*/uploads/3", once(reset()))
    with pytest.raises(NoAnswer):
        await publish(proxy, f"origin1/{RELEASE}:{V1}")
    with pytest.raises(ManifestUnknown):
        await published(other, RELEASE)

    steps = await publish(proxy, f"origin1/{RELEASE}:{V1}")

    assert Way.THERE in {step.way for step in steps}
    assert (await published(other, RELEASE)).body == (await proxy.get(TAG)).body


async def test_a_registry_that_doesnt_mount_gets_the_bytes(origin: Origin, proxy: Proxy) -> None:
    """A mount is a wish: 202 means that the upload goes on."""
    origin.fail(f"POST {'/v2/' + RELEASE}", status(202, Location=f"/v2/{RELEASE}/blobs/uploads/x"))
    origin.fail(f"PUT {'/v2/' + RELEASE}/blobs/uploads/x", status(201))

    publication = await proxy.site.publication(IMAGE, f"{RELEASE}:{V1}", partial=False)
    seen: list[int] = []
    with pytest.raises(Exception, match="isn't here"):  # the scripted upload keeps nothing
        await proxy.site.publisher.run(publication, lambda _, count: seen.append(count))

    assert sum(seen) == sum(step.size for step in publication.steps if step.kind is Kind.BLOB)


async def test_attestations_come_along(origin: Origin, other: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A source with provenance: its attestation is in the index, so it is published with it."""
    child = push(origin.registry, X86, "child", "linux/amd64", media_type=mediatype.OCI_MANIFEST)
    attestation = push_attestation(origin.registry, X86, child)
    push_index(origin.registry, X86, "1.0", [entry(child, "linux/amd64"), attestation])
    push(origin.registry, ARM, "1.0", "linux/arm64", media_type=mediatype.OCI_MANIFEST)
    proxy = await start(origin, other, rule=[rule])

    steps = await publish(proxy, f"origin1/{RELEASE}:{V1}")

    assert [step.kind for step in steps].count(Kind.MANIFEST) == 3
    assert (await published(other, RELEASE)).body == (await proxy.get(TAG)).body


async def test_a_single_image_is_published_too(origin: Origin, other: Origin, start: StartProxy) -> None:
    """A name that nothing is merged into can be mirrored the same way."""
    image = push(origin.registry, "team/tool", "1.0", "linux/amd64")
    proxy = await start(origin, other)
    publication = await proxy.site.publication("team/tool:1.0", f"origin1/{RELEASE}:{V1}", partial=False)
    await proxy.site.publisher.run(publication)

    assert (await published(other, RELEASE)).descriptor.digest == image.digest


async def test_what_is_incomplete_isnt_published_by_mistake(
    origin: Origin, other: Origin, start: StartProxy, rule: dict[str, Any]
) -> None:
    """A release that lacks an architecture has to be asked for."""
    push(origin.registry, X86, "1.0", "linux/amd64")
    proxy = await start(origin, other, rule=[{**rule, "require": ["linux/amd64", "linux/arm64"]}])
    with pytest.raises(NotPublishable, match="linux/arm64"):
        await publish(proxy, f"origin1/{RELEASE}:{V1}")
    await publish(proxy, f"origin1/{RELEASE}:{V1}", partial=True)

    assert (await published(other, RELEASE)).body == (await proxy.get(TAG)).body


async def test_what_is_stale_isnt_published(origin: Origin, proxy: Proxy) -> None:
    """While a source gives no answer nobody knows what the release is."""
    await proxy.get(TAG)
    origin.fail(f"{ARM}", status(503))

    with pytest.raises(NotPublishable, match="503"):
        await publish(proxy, IMAGE)


async def test_a_source_that_lost_a_blob_is_told(origin: Origin, other: Origin, proxy: Proxy) -> None:
    """What a source doesn't have can't be published; the tag isn't written."""
    publication = await proxy.site.publication(IMAGE, f"origin1/{RELEASE}:{V1}", partial=False)
    origin.fail(f"GET .*{ARM}/blobs", status(404))
    with pytest.raises(BlobUnknown):
        await proxy.site.publisher.run(publication)
    with pytest.raises(ManifestUnknown):
        await published(other, RELEASE)


async def test_layers_that_registries_dont_hold_are_left_out(origin: Origin, start: StartProxy) -> None:
    """Windows' base layers come from their vendor, and are in no registry."""
    image = push(origin.registry, "team/windows", "1.0", "windows/amd64")
    manifest = await origin.registry.manifest(Repository("team/windows"), image.digest, ANYTHING)
    foreign = b"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    body = manifest.body.replace(b"application/vnd.docker.image.rootfs.diff.tar.gzip", foreign)
    origin.registry.add_manifest(Repository("team/windows"), Manifest.of(image.media_type, body), V1)
    proxy = await start(origin)
    publication = await proxy.site.publication("team/windows:1.0", f"{RELEASE}:{V1}", partial=False)

    assert [step.kind for step in publication.steps] == [Kind.BLOB, Kind.MANIFEST]


async def test_what_clients_get_afterwards_is_told(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> None:
    """A name whose own rule merges something else isn't what was published, and whoever publishes has to know."""
    push_pair(origin.registry)
    half = {
        "match": "releases/*",
        "base": "ignore",
        "sources": [{"image": f"{X86}:{{tag}}", "platform": "linux/amd64"}],
    }
    proxy = await start(origin, rule=[rule, half])
    same = await proxy.site.publication(IMAGE, "mirror/alpine:1.0", partial=False)
    shadowed = await proxy.site.publication(IMAGE, f"{RELEASE}:{V1}", partial=False)

    assert await proxy.site.publisher.run(same) == same.manifest.descriptor.digest
    assert await proxy.site.publisher.run(shadowed) != same.manifest.descriptor.digest


async def test_planning_writes_nothing(origin: Origin, proxy: Proxy) -> None:
    """A dry run only looks."""
    await proxy.site.publication(IMAGE, f"{RELEASE}:{V1}", partial=False)

    assert {request.method for request in origin.requests} == {"GET", "HEAD"}


async def test_a_digest_has_no_tag_to_publish(proxy: Proxy) -> None:
    """What is frozen by its digest already needs a name."""
    with pytest.raises(Exception, match="a tag was expected"):
        await proxy.site.publication(f"{VIRTUAL}@{Digest.of(b'')}", IMAGE, partial=False)


async def test_progress_adds_up(proxy: Proxy) -> None:
    """Every byte of every step is told once, copied or not."""
    publication = await proxy.site.publication(IMAGE, f"origin1/{RELEASE}:{V1}", partial=False)
    seen: dict[Digest, int] = {}

    def watch(step: Step, count: int) -> None:
        seen[step.digest] = seen.get(step.digest, 0) + count

    await asyncio.wait_for(proxy.site.publisher.run(publication, watch), HANGING)

    assert seen == {step.digest: step.size for step in publication.steps}
