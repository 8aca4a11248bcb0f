"""The requests of real clients, recorded, and asked again: docker, podman, skopeo, buildah, containerd."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from conftest import Proxy, StartProxy
from images import push_pair
from proxy.oci.reference import Digest
from scripted import Origin

RECORDED = Path(__file__).parent / "recorded.jsonl"

# How the recorded digests begin: the index, then manifest, config and layer of amd64, and those of arm64.
NAMED = ("de7cae875485", "eaf44cbc0d88", "c734a3ee33ca", "41cb131fd93f", "b11bbc29f796", "da5c7d0bd55d", "eb3117c48263")


@dataclass(frozen=True)
class Recorded:
    """One request of a client's."""

    client: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]

    @property
    def head(self) -> bytes:
        """The request as bytes, header lines in the client's order."""
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode()

    def about(self, ours: Mapping[str, str]) -> Recorded:
        """Ask for what is here in place of what was there, where a digest is asked for."""
        front, word, rest = self.path.partition("sha256:")
        if not word:
            return self
        _, mark, query = rest.partition("?")
        return replace(self, path=f"{front}{ours[rest[:12]]}{mark}{query}")


def recorded() -> Iterator[Recorded]:
    """Return the requests that read; those that push belong to another test."""
    client = ""
    for line in RECORDED.read_text().splitlines():
        row: dict[str, Any] = orjson.loads(line)
        client = row.get("mark", client)
        if row.get("method") in {"GET", "HEAD"} and "/pushed/" not in row["path"]:
            yield Recorded(client, row["method"], row["path"], tuple((name, value) for name, value in row["headers"]))


READS = list(recorded())
TAGS = [each for each in READS if each.path.partition("?")[0].endswith("/manifests/1.0")]


async def ask(proxy: Proxy, each: Recorded) -> tuple[int, dict[str, str], bytes]:
    """Send a recorded request byte for byte on a connection of its own."""
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(each.head)
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    length = 0 if each.method == "HEAD" else int(headers["Content-Length"])
    body = await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    return int(status.split()[1]), headers, body


@pytest.fixture
async def proxy(origin: Origin, start: StartProxy, rule: dict[str, Any]) -> Proxy:
    """A proxy in front of the pair."""
    push_pair(origin.registry)
    return await start(origin, rule=[rule], upstream={"aliases": ["registry.example.com:5000"]})


@pytest.fixture
async def ours(proxy: Proxy) -> dict[str, str]:
    """The pair's digests, by how the recorded ones begin."""
    index = await proxy.get("/v2/kimoqi/alpine/manifests/1.0")
    found = [index.headers["Docker-Content-Digest"]]
    for child in orjson.loads(index.body)["manifests"]:
        image = orjson.loads((await proxy.get(f"/v2/kimoqi/alpine/manifests/{child['digest']}")).body)
        found += [child["digest"], image["config"]["digest"], image["layers"][0]["digest"]]
    return dict(zip(NAMED, found, strict=True))


def test_the_recording_has_every_client() -> None:
    """The recording holds what the tests below need: shuffled Accept lines, HEAD and GET, `?ns=`."""
    accepts = {tuple(value for name, value in each.headers if name == "Accept") for each in TAGS}

    assert len({tuple(sorted(accept)) for accept in accepts}) < len(accepts)
    assert {each.method for each in TAGS} == {"GET", "HEAD"}
    assert any("ns=" in each.path for each in TAGS)


@pytest.mark.parametrize("each", TAGS, ids=[f"{n}-{each.client}" for n, each in enumerate(TAGS)])
async def test_every_client_gets_the_same_index(proxy: Proxy, each: Recorded) -> None:
    """Whatever a client lists as acceptable, and in whatever order, the tag is the same index."""
    reference = await proxy.get("/v2/kimoqi/alpine/manifests/1.0")

    status, headers, body = await ask(proxy, each)

    assert status == 200
    assert headers["Docker-Content-Digest"] == reference.headers["Docker-Content-Digest"]
    assert headers["Content-Length"] == str(len(reference.body))
    assert body == (b"" if each.method == "HEAD" else reference.body)


@pytest.mark.parametrize("each", READS, ids=[f"{n}-{each.client}" for n, each in enumerate(READS)])
async def test_no_recorded_request_is_misunderstood(proxy: Proxy, ours: dict[str, str], each: Recorded) -> None:
    """Every recorded read is answered as a registry would, digests with the very bytes: no encoding, no negotiation."""
    asked = each.about(ours)

    status, headers, body = await ask(proxy, asked)

    digest = asked.path.partition("?")[0].rpartition("/")[2]
    assert status == 200
    assert "Content-Encoding" not in headers
    assert headers["Content-Type"].count(";") == 0
    if "sha256:" in digest:
        assert headers["Docker-Content-Digest"] == digest
        assert each.method == "HEAD" or Digest.of(body) == digest
