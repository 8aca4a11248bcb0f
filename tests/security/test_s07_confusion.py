"""S7: a document is of one kind, and says the same of itself as its headers do (CVE-2021-41190)."""

from __future__ import annotations

from typing import Any

import orjson

from images import ARM, X86, entry, push, push_pair
from proxy.oci import mediatype
from proxy.oci.content import Descriptor
from scripted import Origin, status
from security.conftest import StartProcess
from security.upstreams import ARM_TAG, BAD_ANSWER, TAG, children, no_error_of_ours, pair

_INDEX, _IMAGE = mediatype.OCI_INDEX, mediatype.OCI_MANIFEST


def _documents(image: Descriptor) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return documents that two readers would take for different things, with the type their answer claims."""
    config = {"mediaType": mediatype.OCI_CONFIG, "digest": image.digest, "size": 2}
    single = {"schemaVersion": 2, "config": config, "layers": []}
    several = {"schemaVersion": 2, "manifests": [entry(image, "linux/arm64")]}
    both = {**single, **several}
    return {
        "both, as an index": (_INDEX, both | {"mediaType": _INDEX}),
        "both, as an image": (_IMAGE, both | {"mediaType": _IMAGE}),
        "both, by the header alone": (_INDEX, both),
        "both, by nothing": ("application/json", both),
        "an image called an index": (_INDEX, single | {"mediaType": _IMAGE}),
        "an index called an image": (_IMAGE, several | {"mediaType": _INDEX}),
        "an index in an image's clothes": (_IMAGE, several),
        "an image in an index's clothes": (_INDEX, single),
        "schema 1 within": (_IMAGE, single | {"fsLayers": [], "history": [], "mediaType": _IMAGE}),
        "schema 1 in front": (_IMAGE, single | {"schemaVersion": 1, "mediaType": _IMAGE}),
        "two mediaTypes": ("application/vnd.docker.distribution.manifest.v2+json", single | {"mediaType": _IMAGE}),
        "a mediaType that is a list": (_IMAGE, single | {"mediaType": [_IMAGE]}),
        "no manifest at all": ("text/html", single),
    }


async def test_what_is_ambiguous_is_no_answer(launch: StartProcess, origin: Origin) -> None:
    """By its own tag and as a part of an index: an error, never a part of it; and the next good answer counts."""
    _, arm = push_pair(origin.registry)
    process = await launch(pair(origin))
    for name, (content_type, document) in _documents(arm).items():
        origin.heal()
        origin.fail(ARM_TAG, status(200, orjson.dumps(document), Content_Type=content_type))
        for path in (TAG, ARM_TAG, TAG):
            answer = await process.get(path)
            assert answer.status in BAD_ANSWER, (name, path, answer)
    origin.heal()
    answer = await process.get(TAG)
    assert children(answer.body)["linux/arm64"] == arm.digest
    await no_error_of_ours(process)


async def test_our_own_index_says_what_it_is(launch: StartProcess, origin: Origin) -> None:
    """`mediaType` and `Content-Type` are the same, and so are the headers of GET and HEAD, cold and hot."""
    types = {"1.0": mediatype.DOCKER_MANIFEST, "2.0": mediatype.OCI_MANIFEST}
    for tag, media_type in types.items():
        for repository, platform in ((X86, "linux/amd64"), (ARM, "linux/arm64")):
            push(origin.registry, repository, tag, platform, media_type=media_type)
    process = await launch(pair(origin))
    for tag in [*types] * 3:
        path = f"/v2/kimoqi/alpine/manifests/{tag}"
        get, head = await process.get(path), await process.get(path, "HEAD")
        document = orjson.loads(get.body)
        assert document["mediaType"] == get.headers["Content-Type"]
        assert not {"layers", "config", "fsLayers", "history"} & set(document)
        same = ("Content-Type", "Content-Length", "Docker-Content-Digest", "ETag", "Vary")
        assert [get.headers[field] for field in same] == [head.headers[field] for field in same]
        assert (head.body, len(get.body)) == (b"", int(head.headers["Content-Length"]))
