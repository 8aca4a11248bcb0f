"""A client that pushes through the proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from yarl import URL

from conftest import Answer, Proxy
from images import layer
from proxy.oci import mediatype
from proxy.oci.reference import Digest

VIRTUAL_TAG = "/v2/kimoqi/alpine/manifests/1.0"
OPEN: dict[str, Any] = {"push": True}


@dataclass(frozen=True)
class Pusher:
    """A client that pushes through the proxy."""

    proxy: Proxy

    async def send(self, method: str, location: str, data: Any = None, **headers: str) -> Answer:
        """Send a request to a path, or to a Location as it came."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = URL(self.proxy.url).join(URL(location, encoded=True))
        async with self.proxy.session.request(method, url, data=data, headers=named) as response:
            return Answer(response.status, response.headers, await response.read())

    async def begin(self, repository: str, query: str = "") -> Answer:
        """Begin an upload."""
        return await self.send("POST", f"/v2/{repository}/blobs/uploads/{query}")

    async def blob(self, repository: str, data: bytes) -> Digest:
        """Push a blob in one piece."""
        digest = Digest.of(data)
        begun = await self.begin(repository)
        done = await self.send("PUT", f"{begun.headers['Location']}&digest={digest}", data)
        assert (begun.status, done.status) == (202, 201)
        return digest

    async def image(self, repository: str, tag: str, architecture: str, text: str = "") -> Answer:
        """Push an image with one layer."""
        packed, diff_id = layer(text or f"{repository}:{tag}")
        config = orjson.dumps(
            {"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
        )
        body = manifest(await self.blob(repository, config), len(config), await self.blob(repository, packed), packed)
        return await self.put(repository, tag, body)

    async def put(self, repository: str, reference: str, body: Any, media_type: str = mediatype.OCI_MANIFEST) -> Answer:
        """Put a manifest."""
        return await self.send("PUT", f"/v2/{repository}/manifests/{reference}", body, Content_Type=media_type)


def manifest(config: Digest, size: int, blob: Digest, packed: bytes) -> bytes:
    """Return the manifest of an image with one layer."""
    return orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": {"mediaType": mediatype.OCI_CONFIG, "digest": config, "size": size},
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": blob, "size": len(packed)}
            ],
        }
    )
