"""S6: a digest is checked before it is part of a path, whoever wrote it (CVE-2024-3727)."""

from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path
from typing import Any

import orjson

from images import ARM, push, push_pair
from proxy.oci import mediatype
from proxy.oci.reference import Digest, Tag
from scripted import Origin, status
from security.conftest import StartProcess
from security.upstreams import ARM_TAG, BAD_ANSWER, TAG, no_error_of_ours, pair

_BAD = [
    "sha256:../../etc/passwd",
    "sha256:" + "../" * 20 + "a" * 4,
    "sha256:%2e%2e%2f",
    "sha256:" + "A" * 64,
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 65,
    "sha256:" + "a" * 128,
    "sha512:" + "a" * 64,
    "sha512:" + "a" * 127,
    "md5:" + "a" * 32,
    "sha256:" + "a" * 63 + "\0",
    "sha256:" + "a" * 64 + "\n",
    "SHA256:" + "a" * 64,
    "sha256+b64u:" + "a" * 43,
    "a" * 64,
    "",
]


def _quoted(digest: str) -> str:
    return "".join(each if each.isalnum() or each in ":%./+" else f"%{ord(each):02x}" for each in digest)


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if folder / "cache" not in path.parents}


async def test_in_the_path(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """What isn't a digest is a 4xx, before anybody is asked and any file is looked for."""
    process = await launch(pair(origin, upstream='blobs = "cache"'))
    before = _files(tmp_path)
    for kind in ("manifests", "blobs", "referrers"):
        for digest in _BAD:
            if kind == "manifests" and ":" not in digest:
                continue  # it may be a tag
            answer = await process.get(f"/v2/kimoqi/alpine/{kind}/{_quoted(digest)}")
            assert answer.status in (400, 404), (kind, digest, answer)
    assert origin.requests == []
    assert _files(tmp_path) == before
    await no_error_of_ours(process)


def _manifest(digest: str, where: str) -> tuple[str, bytes]:
    bad = {"mediaType": mediatype.OCI_MANIFEST, "digest": digest, "size": 7}
    good = {"mediaType": mediatype.OCI_CONFIG, "digest": "sha256:" + "a" * 64, "size": 7}
    if where == "child":
        document: dict[str, Any] = {"manifests": [bad | {"platform": {"os": "linux", "architecture": "arm64"}}]}
    elif where == "config":
        document = {"config": good | {"digest": digest}, "layers": []}
    else:
        document = {"config": good, "layers": [bad | {"mediaType": "application/vnd.oci.image.layer.v1.tar"}]}
    media_type = mediatype.OCI_INDEX if where == "child" else mediatype.OCI_MANIFEST
    return media_type, orjson.dumps({"schemaVersion": 2, "mediaType": media_type, **document})


async def test_in_a_descriptor_of_an_upstream(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """A manifest with such a descriptor is a bad answer: not merged, not kept, and nothing is asked for by it."""
    push_pair(origin.registry)
    process = await launch(pair(origin, upstream='blobs = "cache"'))
    before = _files(tmp_path)
    for where, digest in product(("child", "config", "layer"), _BAD):
        media_type, body = _manifest(digest, where)
        origin.heal()
        origin.fail(f"(GET|HEAD) {ARM_TAG}", status(200, body, Content_Type=media_type))
        for path in (TAG, ARM_TAG):
            answer = await process.get(path)
            assert answer.status in BAD_ANSWER, (digest, path, answer)
    assert all(request.path.startswith("/v2/kimoqi/alpine") for request in origin.requests)
    asked = {request.path.rpartition("/")[2] for request in origin.requests}
    assert all(each == "1.0" or Digest.parse(each) for each in asked)
    assert _files(tmp_path) == before
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and "passwd" in path.name]
    await no_error_of_ours(process)
    origin.heal()
    assert (await process.get(TAG)).status == 200


async def test_in_a_header_of_an_upstream(launch: StartProcess, origin: Origin) -> None:
    """What isn't a digest isn't one because `Docker-Content-Digest` calls it so."""
    image = push(origin.registry, ARM, platform="linux/arm64")
    body = (await origin.registry.manifest(ARM, Tag("1.0"), mediatype.ANYTHING)).body
    process = await launch(pair(origin))
    for digest in (each for each in _BAD if each.isprintable()):
        origin.heal()
        origin.fail(ARM_TAG, status(200, body, Content_Type=image.media_type, Docker_Content_Digest=digest))
        answer = await process.get(ARM_TAG)
        assert answer.status in BAD_ANSWER, (digest, answer)
        assert "Docker-Content-Digest" not in answer.headers
    await no_error_of_ours(process)


async def test_both_algorithms_are_verified(launch: StartProcess, origin: Origin) -> None:
    """A sha512 digest is one, and its bytes are checked by it as those of a sha256 are."""
    push(origin.registry, ARM, platform="linux/arm64")
    manifest = await origin.registry.manifest(ARM, Tag("1.0"), mediatype.ANYTHING)
    process = await launch(f'[[upstream]]\nname = "registry"\nurl = "{origin.url}"\nretries = 0\nbreaker = 0\n')
    right = Digest("sha512:" + hashlib.sha512(manifest.body).hexdigest())
    wrong = Digest("sha512:" + "b" * 128)
    for digest, expected in ((right, 200), (wrong, 502)):
        path = f"/v2/{ARM}/manifests/{digest}"
        origin.fail(path, status(200, manifest.body, Content_Type=manifest.descriptor.media_type))
        answer = await process.get(path)
        assert answer.status == expected, answer
