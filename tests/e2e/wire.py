"""One HTTP exchange at a time, plain enough to see every byte."""

import hashlib
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urljoin, urlsplit

from patience import HANGING

INDEXES = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: Message
    body: bytes

    @property
    def digest(self) -> str:
        """The digest of the body as we measure it, whatever the server says it is."""
        return f"sha256:{hashlib.sha256(self.body).hexdigest()}"

    @property
    def entries(self) -> dict[str, tuple[int, str]]:
        """The children of an index: size and platform by digest."""
        return {entry["digest"]: (entry["size"], platform_of(entry)) for entry in json.loads(self.body)["manifests"]}


def platform_of(entry: Mapping[str, Any]) -> str:
    """Return an index entry's platform as one word."""
    platform = entry["platform"]
    return "/".join(platform[key] for key in ("os", "architecture", "variant") if key in platform)


def request(method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """Send one request and read the whole answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=HANGING)
    try:
        connection.request(method, url.removeprefix(f"http://{parts.netloc}"), body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def manifest(registry: str, repository: str, reference: str) -> Answer:
    """Get a manifest, as a client that accepts every kind would."""
    return request("GET", f"http://{registry}/v2/{repository}/manifests/{reference}", None, {"Accept": INDEXES})


def answers(url: str, status: int) -> bool:
    """Tell whether a server is there and gives this status."""
    try:
        return request("GET", url).status == status
    except OSError:
        return False


def push_blob(registry: str, repository: str, content: bytes) -> str:
    """Put a blob into a registry and return its digest."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    url = f"http://{registry}/v2/{repository}/blobs/uploads/"
    begun = request("POST", url)
    location = urljoin(url, begun.headers["Location"])  # some are relative, and not all have a query
    done = request("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", content)
    if done.status != 201:
        raise OSError(f"{registry} answered {done.status} to a blob: {done.body!r}")
    return digest


def push_manifest(registry: str, repository: str, reference: str, body: bytes, media_type: str) -> None:
    """Put a manifest into a registry."""
    url = f"http://{registry}/v2/{repository}/manifests/{reference}"
    done = request("PUT", url, body, {"Content-Type": media_type})
    if done.status != 201:
        raise OSError(f"{registry} answered {done.status} to a manifest: {done.body!r}")
