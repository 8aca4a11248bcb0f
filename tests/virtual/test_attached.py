"""What is pushed to belong to something else: signatures, and lists of referrers for registries without them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from conftest import Clock, StartProxy
from images import push, push_pair
from proxy.memory import MemoryRegistry
from proxy.oci import mediatype
from proxy.oci.content import Descriptor
from proxy.oci.errors import ManifestUnknown
from proxy.oci.reference import Digest, Repository
from proxy.oci.write import Write, Written
from scripted import Origin, running, status
from virtual.pushing import OPEN, VIRTUAL_TAG, Pusher, manifest


async def test_the_merged_index_can_be_signed(origin: Origin, pusher: Pusher) -> None:
    """A signature for its digest, pushed to the virtual name, is found there at once: as a tag, and as a referrer."""
    push_pair(origin.registry)
    digest = (await pusher.proxy.get(VIRTUAL_TAG)).headers["Docker-Content-Digest"]
    tag, referrers = f"{digest.replace(':', '-')}.sig", f"/v2/kimoqi/alpine/referrers/{digest}"
    unsigned = (await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")).status
    signature = orjson.loads(manifest(await pusher.blob("kimoqi/alpine", b"{}"), 2, Digest.of(b"{}"), b"{}"))
    signature["subject"] = {"mediaType": mediatype.OCI_INDEX, "digest": digest, "size": 1}
    body = orjson.dumps(signature)

    pushed = await pusher.put("kimoqi/alpine", tag, body)

    assert (unsigned, pushed.status) == (404, 201)
    assert (await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{tag}")).body == body
    found = orjson.loads((await pusher.proxy.get(referrers)).body)["manifests"]
    assert [entry["digest"] for entry in found] == [Digest.of(body)]
    assert (await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/{Digest.of(body)}")).body == body
    assert (await pusher.proxy.get(VIRTUAL_TAG)).headers["Docker-Content-Digest"] == digest


class Old(MemoryRegistry):
    """A registry without a referrers API, as distribution 2 and 3 are."""

    async def referrers(self, repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
        """Know nothing of it."""
        raise ManifestUnknown("there is no such endpoint")

    async def write(self, write: Write) -> Written:
        """Take it, and don't say what it refers to."""
        return replace(await super().write(write), headers={})


def referrer(subject: str, config: Digest, text: str) -> bytes:
    """Return the manifest of an artifact that refers to *subject*."""
    return orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "artifactType": "application/vnd.example",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
            "layers": [],
            "subject": {"mediaType": mediatype.OCI_INDEX, "digest": subject, "size": 1},
            "annotations": {"says": text},
        }
    )


@pytest.fixture
async def old(start: StartProxy, rule: dict[str, Any]) -> AsyncIterator[tuple[Origin, Pusher]]:
    """A registry without a referrers API, and a client that pushes to it."""
    async with running(Origin(Old())) as origin:
        push_pair(origin.registry)
        yield origin, Pusher(await start(origin, rule=[rule], upstream=OPEN))


async def listed(pusher: Pusher, digest: str) -> list[str]:
    """Return the digests of what refers to *digest*."""
    answer = await pusher.proxy.get(f"/v2/kimoqi/alpine/referrers/{digest}")
    return [entry["digest"] for entry in orjson.loads(answer.body)["manifests"]]


async def test_whoever_answers_for_referrers_keeps_them(old: tuple[Origin, Pusher]) -> None:
    """A client that sees our referrers API writes no fallback tag: it is written here, for every one of them."""
    _, pusher = old
    index = (await pusher.proxy.get(VIRTUAL_TAG)).headers["Docker-Content-Digest"]
    config = await pusher.blob("kimoqi/alpine", b"{}")
    bodies = [referrer(index, config, str(number)) for number in range(5)]
    pushed = await asyncio.gather(*(pusher.put("kimoqi/alpine", Digest.of(body), body) for body in bodies))

    assert {answer.headers["OCI-Subject"] for answer in pushed} == {index}
    assert await listed(pusher, index) == sorted(Digest.of(body) for body in bodies)


async def test_a_deleted_referrer_is_not_listed(old: tuple[Origin, Pusher]) -> None:
    """What is gone refers to nothing."""
    _, pusher = old
    config = await pusher.blob("kimoqi/alpine", b"{}")
    first, second = (referrer(Digest.of(b"subject"), config, text) for text in ("first", "second"))
    for body in (first, second):
        await pusher.put("kimoqi/alpine", Digest.of(body), body)
    before = await listed(pusher, Digest.of(b"subject"))
    deleted = await pusher.send("DELETE", f"/v2/kimoqi/alpine/manifests/{Digest.of(first)}")

    assert (len(before), deleted.status) == (2, 202)
    assert await listed(pusher, Digest.of(b"subject")) == [Digest.of(second)]


async def test_a_tag_that_is_no_list_is_left_alone(old: tuple[Origin, Pusher]) -> None:
    """Somebody's image under a name that looks like a list of referrers isn't overwritten, and nothing is claimed."""
    origin, pusher = old
    subject = Digest.of(b"subject")
    image = push(origin.registry, "kimoqi/alpine", f"sha256-{subject.hex}", "linux/amd64")
    body = referrer(subject, await pusher.blob("kimoqi/alpine", b"{}"), "x")
    pushed = await pusher.put("kimoqi/alpine", Digest.of(body), body)
    tag = await pusher.proxy.get(f"/v2/kimoqi/alpine/manifests/sha256-{subject.hex}")

    assert tag.headers["Docker-Content-Digest"] == image.digest
    assert "OCI-Subject" not in pushed.headers


async def test_a_registry_that_keeps_referrers_is_left_alone(origin: Origin, pusher: Pusher) -> None:
    """Where the upstream says `OCI-Subject` nothing is written besides."""
    body = referrer(Digest.of(b"subject"), await pusher.blob("kimoqi/alpine", b"{}"), "x")
    origin.requests.clear()
    pushed = await pusher.put("kimoqi/alpine", Digest.of(body), body)

    assert pushed.headers["OCI-Subject"] == Digest.of(b"subject")
    assert origin.asked == [f"PUT kimoqi/alpine/manifests/{Digest.of(body)}"]


async def test_a_push_counts_though_its_listing_failed(old: tuple[Origin, Pusher], clock: Clock) -> None:
    """The manifest is in the registry: nobody gets what was before, whatever became of the list of referrers."""
    origin, pusher = old
    config = await pusher.blob("kimoqi/alpine", b"{}")
    first, second = (referrer(Digest.of(b"subject"), config, text) for text in ("first", "second"))
    await pusher.put("kimoqi/alpine", "notes", first)
    clock.advance(1)  # what is kept now is newer than that push
    before = await pusher.proxy.get("/v2/kimoqi/alpine/manifests/notes")
    origin.fail("PUT .*/manifests/sha256-", status(503))
    pushed = await pusher.put("kimoqi/alpine", "notes", second)
    after = await pusher.proxy.get("/v2/kimoqi/alpine/manifests/notes")

    assert (before.body, pushed.status, after.body) == (first, 503, second)
