"""An image that is pushed and deleted again, each step on a connection of its own."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import orjson

from fuzz.wire import statuses
from proxy.oci import mediatype
from proxy.oci.reference import Digest

_MOUNT: Final = 5
_DONE: Final = [202, 202, 204, 201, 201, 201, 201, 202, 204, 202, 202]
_LOCATION: Final = re.compile(rb"(?i)\r\nlocation: ([^\r\n]*)")


class LedAway(AssertionError):
    """A client was sent to somebody else."""


@dataclass
class Push:
    """A push; where a step doesn't say how to go on, the next one tries what is usual."""

    send: Callable[[bytes], Awaitable[bytes]]
    repository: str
    mounted: tuple[str, str]
    answers: list[bytes] = field(default_factory=list)

    async def run(self) -> list[bytes]:
        """Push and delete; return all answers."""
        layer, config = self.repository.encode() * 99, b"{}"
        digest, blob = await self._chunks(layer), await self._at_once(config)
        await self._to("POST", f"{self._uploads}?mount={self.mounted[1]}&from={self.mounted[0]}")
        body = _manifest((blob, len(config)), (digest, len(layer)))
        await self._to("PUT", f"{self._base}/manifests/1.0", body, f"Content-Type: {mediatype.OCI_MANIFEST}")
        session = await self._to("POST", self._uploads) or f"{self._uploads}none"
        await self._to("DELETE", session)
        await self._to("DELETE", f"{self._base}/manifests/{Digest.of(body)}")
        await self._to("DELETE", f"{self._base}/blobs/{digest}")
        return self.answers

    @property
    def went_well(self) -> bool:
        """Whether each step has come to what it should; what can't be mounted may be wanted as bytes."""
        found = [status for answer in self.answers for status in statuses(answer)[:1]]
        return found in (_DONE, [*_DONE[:_MOUNT], 202, *_DONE[_MOUNT + 1 :]])

    @property
    def _base(self) -> str:
        return f"/v2/{self.repository}"

    @property
    def _uploads(self) -> str:
        return f"{self._base}/blobs/uploads/"

    async def _chunks(self, data: bytes) -> Digest:
        session = await self._to("POST", self._uploads) or f"{self._uploads}none"
        session = await self._to("PATCH", session, data[:100], "Content-Range: 0-99") or session
        session = await self._to("GET", session) or session
        digest = Digest.of(data)
        await self._to("PUT", f"{session}{'&' if '?' in session else '?'}digest={digest}", data[100:])
        return digest

    async def _at_once(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        await self._to("POST", f"{self._uploads}?digest={digest}", data)
        return digest

    async def _to(self, method: str, path: str, body: bytes = b"", *lines: str) -> str:
        """Send a step, and return where to go on; empty where nothing is said."""
        fields = ("Host: a", "Connection: close", f"Content-Length: {len(body)}", *lines)
        answer = await self.send("\r\n".join((f"{method} {path} HTTP/1.1", *fields, "", "")).encode("latin-1") + body)
        self.answers.append(answer)
        found = _LOCATION.search(answer.partition(b"\r\n\r\n")[0])
        location = found[1].decode("latin-1") if found else ""
        if location and not location.startswith(("/v2/", "?")):
            raise LedAway(location)
        return location if location.startswith("/") else ""


def _manifest(config: tuple[Digest, int], layer: tuple[Digest, int]) -> bytes:
    """Return a manifest with a subject, so that a registry that keeps no referrers has them kept for it."""
    return orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": {"mediaType": mediatype.OCI_CONFIG, "digest": config[0], "size": config[1]},
            "layers": [{"mediaType": "application/x", "digest": layer[0], "size": layer[1]}],
            "subject": {"mediaType": mediatype.OCI_MANIFEST, "digest": Digest.of(b"subject"), "size": 7},
        }
    )
