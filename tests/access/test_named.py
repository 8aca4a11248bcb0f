"""What a manifest names isn't thereby in its repository: registries take some that name what they don't hold (S9)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bcrypt
import orjson
import pytest

from conftest import Clock, Proxy, StartProxy
from images import entry, push, push_index
from private import Private, basic
from proxy.oci import mediatype
from proxy.oci.content import Manifest
from proxy.oci.reference import Repository, Tag
from scripted import Origin
from signing import ISSUER, REALM, SERVICE, Service, access, rsa_key

SECRET = "/v2/secret/app"
THEIRS = "/v2/other/app"
ALICE, BOB = basic("alice"), basic("bob")


@pytest.fixture
async def proxy(origin: Origin, start: StartProxy) -> Proxy:
    """A proxy in front of a registry where alice may read everything, and bob `other/`. Alice has pulled a secret."""
    push(origin.registry, "secret/app")
    push(origin.registry, "other/app-arm", platform="linux/arm64")
    Private({"alice": ("",), "bob": ("other/",)}).guard(origin)
    sources = [{"image": "{repository}-x86:{tag}"}, {"image": "{repository}-arm:{tag}"}]
    rule = {"match": "other/app", "sources": sources}
    upstream = {"credentials": "client", "blobs": "cache"}
    proxy = await start(origin, rule=[rule], upstream=upstream, access={"mode": "upstream"})
    manifest = await secret(proxy)
    for blob in (manifest["config"], *manifest["layers"]):
        assert (await proxy.get(f"{SECRET}/blobs/{blob['digest']}", Authorization=ALICE)).status == 200
    return proxy


async def secret(proxy: Proxy, alice: str = ALICE) -> Mapping[str, Any]:
    """Pull the secret's manifest as alice."""
    found = await proxy.get(f"{SECRET}/manifests/1.0", Authorization=alice)
    assert found.status == 200
    manifest: dict[str, Any] = orjson.loads(found.body)
    return manifest


async def test_an_index_that_names_a_secret_manifest(proxy: Proxy, origin: Origin) -> None:
    """It would be merged from what is kept, and be a location of it."""
    held = push(origin.registry, "secret/app")
    push_index(origin.registry, "other/app-x86", "1.0", [entry(held, "linux/amd64")])
    merged = await proxy.get(f"{THEIRS}/manifests/1.0", Authorization=BOB)
    assert merged.status == 503, "a source is broken"
    assert (await proxy.get(f"{THEIRS}/manifests/{held.digest}", Authorization=BOB)).status == 404


async def test_a_manifest_that_names_secret_blobs(proxy: Proxy, origin: Origin) -> None:
    """By its digest and by its tag, before and after others have asked; of the kept config and the kept layer."""
    held = await secret(proxy)
    body = orjson.dumps({**held, "annotations": {"of": "bob"}})
    named = Manifest.of(mediatype.DOCKER_MANIFEST, body)
    origin.registry.add_manifest(Repository("other/mine"), named, Tag("1.0"))
    assert (await proxy.get("/v2/other/mine/manifests/1.0", Authorization=BOB)).status == 200
    assert (await proxy.get(f"/v2/other/mine/manifests/{named.descriptor.digest}", Authorization=BOB)).status == 200
    for blob in (held["config"], *held["layers"]):
        for method in ("HEAD", "GET"):
            answer = await proxy.get(f"/v2/other/mine/blobs/{blob['digest']}", method, Authorization=BOB)
            assert answer.status == 404


async def test_rights_by_name(origin: Origin, start: StartProxy, tmp_path: Path) -> None:
    """Where all are asked for with the same credentials, and may see different repositories, it is the same."""
    file = tmp_path / "htpasswd"
    lines = [f"{name}:{bcrypt.hashpw(f'{name}1'.encode(), bcrypt.gensalt(4)).decode()}\n" for name in ("alice", "bob")]
    file.write_text("".join(lines))
    allow = [
        {"users": ["alice"], "repositories": ["secret/**"]},
        {"users": ["bob"], "repositories": ["other/**"]},
    ]
    guarded = {"mode": "htpasswd", "htpasswd": file, "allow": allow}
    push(origin.registry, "secret/app")
    proxy = await start(origin, upstream={"blobs": "cache"}, access=guarded)
    await named_and_not_held(proxy, origin, ALICE, BOB)


async def test_rights_by_token(origin: Origin, start: StartProxy, clock: Clock, tmp_path: Path) -> None:
    """The same with tokens."""
    service = Service(rsa_key())
    token = {"realm": REALM, "service": SERVICE, "issuer": ISSUER, "keys": [service.publish(tmp_path / "key.pem")]}
    push(origin.registry, "secret/app")
    proxy = await start(origin, upstream={"blobs": "cache"}, access={"mode": "token", "token": token})
    alice = f"Bearer {service.token(clock(), access('secret/app'))}"
    bob = f"Bearer {service.token(clock(), access('other/mine'))}"
    await named_and_not_held(proxy, origin, alice, bob)


async def named_and_not_held(proxy: Proxy, origin: Origin, alice: str, bob: str) -> None:
    """Let bob's repository name what is alice's: he gets none of it, before and after she does."""
    held = await secret(proxy, alice)
    named = Manifest.of(mediatype.DOCKER_MANIFEST, orjson.dumps({**held, "annotations": {"of": "bob"}}))
    origin.registry.add_manifest(Repository("other/mine"), named, Tag("1.0"))
    assert (await proxy.get(f"/v2/other/mine/manifests/{named.descriptor.digest}", Authorization=bob)).status == 200
    for blob in (held["config"], *held["layers"]):
        for who, repository, wanted in (
            (alice, "secret/app", 200),
            (bob, "other/mine", 404),
            (alice, "secret/app", 200),
        ):
            answer = await proxy.get(f"/v2/{repository}/blobs/{blob['digest']}", Authorization=who)
            assert answer.status == wanted
