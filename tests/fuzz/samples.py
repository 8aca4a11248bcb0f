"""Inputs as they should be, and words that formats know by heart."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.oci import mediatype

DIGEST: Final = "sha256:" + "a" * 64
SECRET: Final = "hunter2-planted"
_ROOT: Final = Path(__file__).parents[2]


def chunks(values: Iterable[str]) -> tuple[bytes, ...]:
    """Encode each."""
    return tuple(value.encode() for value in values)


def index(**changes: Any) -> bytes:
    """Return an index with a field of each kind."""
    entry = {
        "mediaType": mediatype.OCI_MANIFEST,
        "digest": DIGEST,
        "size": 7,
        "platform": {
            "os": "windows",
            "architecture": "arm",
            "variant": "v7",
            "os.version": "10.0",
            "os.features": ["x"],
        },
        "annotations": {"vnd.docker.reference.digest": DIGEST, "vnd.docker.reference.type": "attestation-manifest"},
    }
    return orjson.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [entry, entry], **changes})


def image(config: str = mediatype.OCI_CONFIG, **changes: Any) -> bytes:
    """Return an image's manifest."""
    blob = {"mediaType": config, "digest": DIGEST, "size": 7, "urls": ["http://a"], "data": "YQ=="}
    subject = {"subject": {"mediaType": mediatype.OCI_MANIFEST, "digest": DIGEST, "size": 1}}
    return orjson.dumps({"schemaVersion": 2, "config": blob, "layers": [blob], **subject, **changes})


ENTRY: Final = {
    "descriptor": {
        "media_type": "a/b",
        "digest": DIGEST,
        "size": 1,
        "platform": {"os": "linux", "architecture": "arm", "variant": "v7", "os_version": "1.2", "os_features": ["x"]},
        "annotations": {"a": "b"},
        "artifact_type": "",
    },
    "merged": True,
    "default_child": None,
    "warnings": ["w"],
    "fingerprint": "f",
    "checked_at": 1.5,
    "changed_at": 1.5,
    "complete": True,
    "coherent": True,
    "held": "",
    "held_since": 0.0,
}
PART: Final = {
    "upstream": "hub",
    "repository": "a/b",
    "tag": "1",
    "digest": DIGEST,
    "children": [ENTRY["descriptor"]],
}
TOML: Final = tuple(
    path.read_bytes() for path in sorted((_ROOT / "config").rglob("*.toml")) if path.parent.name != "clients"
)
SECRETS: Final = f"""
[hooks]
secret = "{SECRET}"
[[upstream]]
name = "a"
url = "http://a:5000/b"
aliases = ["x"]
timeouts = {{ connect = "1s" }}
[upstream.credentials]
username = "u"
password = "{SECRET}"
""".encode()
KEYS: Final = tuple(
    sorted(
        {word for data in (*TOML, SECRETS) for word in re.findall(rb"[a-z_]+|\[\[?[a-z]+\]\]?", data) if len(word) > 2}
    )
)
FIELDS: Final = chunks(
    [
        "schemaVersion",
        "mediaType",
        "manifests",
        "config",
        "layers",
        "digest",
        "size",
        "platform",
        "os",
        "architecture",
        "annotations",
        "artifactType",
        "subject",
        "urls",
        "blobs",
        "os.features",
        "os.version",
        "variant",
        "null",
        "[]",
        "{}",
        DIGEST,
        "sha512:",
        "1e308",
        "-1",
        "true",
        "fsLayers",
        "Labels",
        *sorted(mediatype.INDEXES | mediatype.MANIFESTS),
    ]
)
HEADERS: Final = chunks(
    [
        "GET ",
        "HEAD ",
        "POST ",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "Host: a\r\n",
        "Accept: a/b\r\n",
        "Accept: c/d\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Connection: close\r\n",
        "Expect: 100-continue\r\n",
        "Content-Encoding: gzip\r\n",
        "Sec-WebSocket-Key1: x\r\n",
        "Trailer: x\r\n",
        "\r\n\r\n",
        "\r\n",
        " \t",
        "\r\n x",
        ":",
        "%",
        "#",
        "?",
        "*",
        "CONNECT ",
    ]
)
