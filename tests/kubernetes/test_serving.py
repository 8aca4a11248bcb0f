"""What `config/kubernetes` shows serves: each pod's process, started as the pod would."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bcrypt
import orjson
import pytest
import yaml

from certificates import Authority
from e2e import peers
from images import push
from pods import REGISTRY, Container, Document, Pod, fenced, put, the
from private import Private, basic
from process import Process, running_process
from proxy.oci import mediatype
from scripted import Origin

TAG = "/v2/team/app/manifests/1.0"


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Who issues the certificate."""
    return Authority()


@pytest.fixture
def registry(origin: Origin) -> Private:
    """A private registry with the two images that everything here merges."""
    push(origin.registry, "team/app-x86", platform="linux/amd64")
    push(origin.registry, "team/app-arm", platform="linux/arm64")
    private = Private({"puller": ("",), "alice": ("team/",), "bob": ("other/",)})
    private.guard(origin)
    return private


@asynccontextmanager
async def started(
    pod: Pod, root: Path, origin: Origin, authority: Authority, configuration: str | None = None
) -> AsyncIterator[Process]:
    """Start what a pod starts, with its volumes below *root*, on free ports, in front of *origin*."""
    manifuse = pod.manifuse
    login = {"username": "puller", "password": "puller1"}
    pair = authority.server()
    held = {
        "manifuse-registry": {".dockerconfigjson": orjson.dumps({"auths": {origin.url: login}})},
        "manifuse-tls": {"tls.crt": pair.certificate, "tls.key": pair.key},
        "manifuse-users": {"htpasswd": b"nodes:" + bcrypt.hashpw(b"nodes1", bcrypt.gensalt(4)) + b"\n"},
        "manifuse-admin": {"token": b"the token\n"},
    }
    for path, name in manifuse.mounts.items():
        secret = pod.volumes[name].get("secret", {})
        put(Path(f"{root}{path}"), held[secret["secretName"]] if secret else {})
    here = manifuse.here(configuration or pod.configuration, root)
    url = f'url = "https://{REGISTRY}"'
    assert url in here
    environment = {name: manifuse.here(value, root) for name, value in manifuse.environment.items() if name != "PATH"}
    ports = {"MANIFUSE_LISTEN": "127.0.0.1:0", "MANIFUSE_ADMIN_LISTEN": "127.0.0.1:0"}
    async with running_process(
        root,
        here.replace(url, f'url = "{origin.url}"\naliases = ["{REGISTRY}"]'),
        {**environment, **ports},
        authority.trusting() if "[tls]" in here else True,
    ) as process:
        yield process


async def platforms(process: Process, path: str = TAG, **headers: str) -> list[str]:
    """Pull a tag, and return which platforms its index has."""
    answer = await process.get(path, Accept=f"{mediatype.DOCKER_LIST}, {mediatype.OCI_INDEX}", **headers)
    assert answer.status == 200, answer.body
    entries = orjson.loads(answer.body)["manifests"]
    return ["{os}/{architecture}".format(**each["platform"]) for each in entries]


BOTH = ["linux/amd64", "linux/arm64"]


async def test_the_node_mirror_serves(tmp_path: Path, origin: Origin, registry: Private, authority: Authority) -> None:
    """Merged as containerd asks a mirror, and by the mirror's own address; kept on the node's disk."""
    pod = the("node-mirror")
    async with started(pod, tmp_path, origin, authority) as process:
        assert await platforms(process, f"{TAG}?ns={REGISTRY}") == BOTH
        assert await platforms(process) == BOTH
        for probe in pod.manifuse.probes.values():
            assert (await process.page(probe["path"])).status == 200
    assert list((tmp_path / "var/lib/manifuse/content/blobs/sha256").iterdir())


async def test_the_service_serves(tmp_path: Path, origin: Origin, registry: Private, authority: Authority) -> None:
    """Over TLS, to whoever has a login; metrics to whoever has the token, and probes without."""
    pod = the("service")
    async with started(pod, tmp_path, origin, authority) as process:
        assert process.url.scheme == "https"
        assert (await process.get(TAG)).status == 401
        assert await platforms(process, Authorization=basic("nodes")) == BOTH
        for probe in pod.manifuse.probes.values():
            assert (await process.page(probe["path"])).status == 200
        assert (await process.page("/metrics")).status == 401
        assert (await process.page("/metrics", Authorization="Bearer the token")).status == 200


async def test_the_service_serves_with_the_registry_s_accounts(
    tmp_path: Path, origin: Origin, registry: Private, authority: Authority
) -> None:
    """With the README's lines in place of the file's own, each login gets what the registry lets it read."""
    (instead,) = fenced("toml")
    sections = re.split(r"^(?=\[)", the("service").configuration, flags=re.MULTILINE)
    kept = "".join(each for each in sections if not each.startswith(("[access]", "[[upstream]]")))
    async with started(the("service"), tmp_path, origin, authority, kept + instead) as process:
        assert (await process.get(TAG)).status == 401
        assert await platforms(process, Authorization=basic("alice")) == BOTH
        assert (await process.get(TAG, Authorization=basic("bob"))).status in (403, 404)


async def test_the_job_beside_it_pulls(tmp_path: Path, origin: Origin, registry: Private, authority: Authority) -> None:
    """The job's own command brings both architectures, where skopeo is installed."""
    peers.command("skopeo")
    pod = the("sidecar")
    async with started(pod, tmp_path, origin, authority) as process:
        address = f"{process.url.host}:{process.url.port}"
        spec: Document = yaml.safe_load(
            yaml.safe_dump(pod.containers["skopeo"].spec).replace("127.0.0.1:5080", address)
        )
        (tmp_path / "work").mkdir()
        done = await asyncio.to_thread(Container(spec, pod).run, tmp_path)

        assert done.returncode == 0, done.stderr
        assert await platforms(process) == BOTH
    index: Any = orjson.loads((tmp_path / "work/app/manifest.json").read_bytes())
    children = [f"{each['digest'].partition(':')[2]}.manifest.json" for each in index["manifests"]]
    assert len(children) == 2
    assert all((tmp_path / "work/app" / child).is_file() for child in children)


def test_the_sidecar_is_asked_for_where_it_listens() -> None:
    """The job names the address that only its own pod has."""
    pod = the("sidecar")

    assert f"docker://{pod.manifuse.environment['MANIFUSE_LISTEN']}/team/app:1.0" in pod.containers["skopeo"].words
    assert pod.manifuse.spec["restartPolicy"] == "Always"
