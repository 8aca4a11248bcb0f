"""S2: what a manifest says of other places is never fetched (CVE-2020-15157)."""

from __future__ import annotations

from typing import Any

import orjson

from images import V1, X86, push_pair
from proxy.oci import mediatype
from proxy.oci.content import Descriptor, Manifest
from proxy.oci.reference import Digest, Tag
from scripted import Origin
from security.conftest import StartProcess
from security.traps import ALICE, trap, upstream
from upstream.peers import basic_door

_MERGING = """
[[rule]]
match = "kimoqi/alpine"
sources = [{ image = "{repository}-x86:{tag}" }, { image = "{repository}-arm:{tag}" }]
"""
_MODES = ("stream", "cache", "redirect")
_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def push_document(origin: Origin, document: dict[str, Any], tag: Tag) -> Digest:
    """Push a manifest of a test's own."""
    body = orjson.dumps(document)
    descriptor = Descriptor(media_type=document["mediaType"], digest=Digest.of(body), size=len(body))
    return origin.registry.add_manifest(X86, Manifest(descriptor, body), tag)


def push_foreign(origin: Origin, url: str) -> tuple[Digest, Digest]:
    """Push an image whose layer, config and subject are said to be at *url*. Returns layer and manifest."""
    registry = origin.registry
    config = b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}'
    layer = Digest.of(b"somewhere else")
    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": registry.add_blob(X86, config),
            "size": len(config),
            "urls": [f"{url}/config"],
        },
        "layers": [{"mediaType": _FOREIGN, "digest": layer, "size": 14, "urls": [f"{url}/layer", url]}],
    }
    return layer, push_document(origin, document, V1)


async def test_what_is_said_of_other_places_is_never_fetched(launch: StartProcess, origin: Origin) -> None:
    """Alone, merged, in an index, by tag, by digest, as a blob: the bytes are the author's, nothing else is asked."""
    x86, _ = push_pair(origin.registry)
    async with trap() as caught:
        elsewhere = f"http://127.0.0.1:{caught.port}"
        child = {"mediaType": x86.media_type, "digest": x86.digest, "size": x86.size, "urls": [f"{elsewhere}/child"]}
        index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [child]}
        push_document(origin, index, Tag("index"))
        layer, digest = push_foreign(origin, elsewhere)
        basic_door(origin, ALICE)
        upstreams = [upstream(origin.url, f'blobs = "{each}"\n', name=each, alice=True) for each in _MODES]
        process = await launch("".join(upstreams) + _MERGING)
        for mode in _MODES:
            base = f"/{mode}/v2/kimoqi"
            merged = orjson.loads((await process.get(f"{base}/alpine/manifests/1.0")).body)
            assert digest in [each["digest"] for each in merged["manifests"]]
            assert all("urls" not in each for each in merged["manifests"])
            assert (await process.get(f"{base}/alpine-x86/manifests/index")).status == 200
            for name in ("alpine", "alpine-x86"):
                manifest = await process.get(f"{base}/{name}/manifests/{digest}")
                assert f"{elsewhere}/layer".encode() in manifest.body
                for method in ("GET", "HEAD"):
                    blob = await process.get(f"{base}/{name}/blobs/{layer}", method)
                    assert blob.status == 404, (mode, name, method, blob)
        assert caught.caught == []
