"""The running process over TLS, with all that answers there: workers, hot answers, cached blobs, uploads, two ports."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from certificates import Authority
from conftest import until
from images import push_pair
from process import Process
from proxy.oci.reference import Repository
from scripted import Origin
from security.conftest import StartProcess

_PATH = "/v2/kimoqi/alpine/manifests/1.0"
_HEAD = f"GET {_PATH} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


async def _shown(process: Process, trust: ssl.SSLContext) -> bytes | None:
    """Return the certificate that is shown to a new connection."""
    _, writer = await asyncio.open_connection(process.url.host, process.url.port, ssl=trust)
    shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return shown


async def test_everything_works_over_tls(launch: StartProcess, origin: Origin, tmp_path: Path) -> None:
    """A renewed certificate is shown by every worker, while a connection goes on from before."""
    push_pair(origin.registry)
    workers = 2
    layer = bytes(24 << 20)
    digest = origin.registry.add_blob(Repository.parse("kimoqi/alpine"), layer)
    authority = Authority()
    certificate, key = authority.server().write(tmp_path / "tls")
    trust = authority.trusting()
    process = await launch(
        f'workers = {workers}\nadmin_token = "open sesame"\n[limits]\nsend_timeout = "2s"\n'
        f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\nadmin = true\n'
        f'[[upstream]]\nname = "registry"\nurl = "{origin.url}"\nblobs = "cache"\npush = true\n',
        tls=trust,
    )
    assert (process.url.scheme, process.admin.scheme) == ("https", "https")
    # The supervisor says where before anybody does.
    await until(lambda: process.log.count('"event": "listening"') >= workers)
    reader, writer = await asyncio.open_connection(process.url.host, process.url.port, ssl=trust)
    for _ in range(3):
        writer.write(_HEAD)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK")
        await reader.readexactly(int(answer.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]))
    for _ in range(2):
        blob = await process.get(f"/v2/kimoqi/alpine/blobs/{digest}")
        assert (blob.status, blob.body) == (200, layer)
    begun = await process.get("/v2/kimoqi/new/blobs/uploads/", "POST")
    assert (begun.status, begun.headers["Location"][:27]) == (202, "/v2/kimoqi/new/blobs/upload")
    assert (await process.page("/readyz")).status == 200
    assert (await process.page("/metrics")).status == 401
    metrics = await process.page("/metrics", Authorization="Bearer open sesame")
    assert (metrics.status, b"manifuse_connections" in metrics.body) == (200, True)

    _, mute = await asyncio.open_connection(process.url.host, process.url.port, ssl=trust)
    mute.transport.pause_reading()  # type: ignore[attr-defined]
    mute.write(f"GET /v2/kimoqi/alpine/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await until(lambda: '"reason": "send_timeout"' in process.log)
    mute.transport.abort()

    before = await _shown(process, trust)
    authority.server().write(tmp_path / "tls")
    await until(lambda: process.log.count('"certificate loaded"') == workers)
    assert before not in {await _shown(process, trust) for _ in range(8)}
    writer.write(_HEAD)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.transport.abort()
    assert "internal error" not in process.log
