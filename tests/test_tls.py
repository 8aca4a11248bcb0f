"""TLS on the registry port: what is shown, to whom, and what happens when it is renewed."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from certificates import Authority, Pair
from conftest import until
from patience import HANGING
from proxy.settings.keys import TlsSettings
from proxy.settings.load import SettingsInvalid
from proxy.tls import Certificate, context
from proxy.web import accept as module
from proxy.web import server as server_module
from proxy.web.forwarded import origin
from proxy.web.gate import Gate
from proxy.web.limits import Limits
from proxy.web.server import listen
from swap import swap


async def ok(request: web.BaseRequest) -> web.StreamResponse:
    """Answer with the scheme that the request came by."""
    return web.Response(text=request.scheme)


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Who issues certificates here."""
    return Authority()


def settings(folder: Path, pair: Pair, **more: Any) -> TlsSettings:
    """Write a pair, and return settings that name it."""
    certificate, key = pair.write(folder)
    return TlsSettings.model_validate({"certificate": certificate, "key": key, **more})


@asynccontextmanager
async def talking(address: tuple[str, int], trust: ssl.SSLContext) -> AsyncIterator[Any]:
    """Connect, and lend what is asked on that connection."""
    reader, writer = await asyncio.open_connection(*address, ssl=trust)

    async def ask(head: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") -> bytes:
        writer.write(head)
        async with asyncio.timeout(HANGING):
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return answer + await reader.readexactly(length)

    ask.tls = writer.get_extra_info("ssl_object")  # type: ignore[attr-defined]
    try:
        yield ask
    finally:
        writer.transport.abort()


def serial(tls: ssl.SSLObject) -> int:
    """Return the serial number of the certificate that was shown."""
    shown = tls.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


async def test_a_renewed_certificate_is_shown_to_the_next_connection(tmp_path: Path, authority: Authority) -> None:
    """As Kubernetes renews it, by a link to another folder. A connection that is open goes on."""
    first, second = authority.server(), authority.server()
    first.write(tmp_path / "1"), second.write(tmp_path / "2")
    (tmp_path / "data").symlink_to("1")
    paths = {"certificate": tmp_path / "data" / "tls.crt", "key": tmp_path / "data" / "tls.key"}
    certificate = Certificate(TlsSettings.model_validate(paths))
    async with (
        listen(ok, ("127.0.0.1", 0), drain=1, tls=certificate) as address,
        talking(address, authority.trusting()) as before,
    ):
        await before()
        (tmp_path / "new").symlink_to("2")
        (tmp_path / "new").rename(tmp_path / "data")
        certificate.look()
        async with talking(address, authority.trusting()) as after:
            assert (await before()).endswith(b"https")
            assert (await after()).endswith(b"https")
            assert [serial(before.tls), serial(after.tls)] == [first.serial, second.serial]


async def test_a_proxy_that_says_no_scheme_came_by_ours(tmp_path: Path, authority: Authority) -> None:
    """Where it speaks TLS to us and names the host alone, addresses are https."""

    async def where(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=origin(request, [ip_network("127.0.0.1")]).url)

    certificate = Certificate(settings(tmp_path, authority.server()))
    async with (
        listen(where, ("127.0.0.1", 0), drain=1, tls=certificate) as address,
        talking(address, authority.trusting()) as ask,
    ):
        answer = await ask(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: registry.example\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nhttps://registry.example")


def test_half_of_a_renewal_leaves_the_old_one(tmp_path: Path, authority: Authority) -> None:
    """A certificate that is there before its key is told of once, and taken when the key has come."""
    certificate = Certificate(settings(tmp_path, authority.server()))
    old, renewed = certificate(), authority.server()
    swap(tmp_path / "tls.crt", renewed.certificate)
    with capture_logs() as logs:
        for _ in range(3):
            certificate.look()
    half = certificate()
    swap(tmp_path / "tls.key", renewed.key)
    certificate.look()

    assert half is old
    assert certificate() is not old
    assert [log["event"] for log in logs] == ["certificate refused, the old one stays"]
    assert logs[0]["problems"] == [
        f"{tmp_path}/tls.key: tls.key: the private key of the certificate in {tmp_path}/tls.crt was expected"
    ]


async def test_the_files_are_watched(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anybody's word."""
    monkeypatch.setattr("proxy.tls._LOOK", 0.01)
    certificate = Certificate(settings(tmp_path, authority.server()))
    old = certificate()
    watching = asyncio.create_task(certificate.watch())
    authority.server().write(tmp_path)
    await until(lambda: certificate() is not old)
    watching.cancel()


def encrypted(pair: Pair) -> bytes:
    """Return the key of *pair* with a password."""
    key = serialization.load_pem_private_key(pair.key, None)
    kind, secret = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    return key.private_bytes(serialization.Encoding.PEM, kind, secret)


def test_what_cannot_be_used_is_told_with_file_and_key(tmp_path: Path, authority: Authority) -> None:
    """Each with its file, the key in the configuration, and what was expected."""
    pair, other = authority.server(), authority.server()
    made = settings(tmp_path, pair)
    assert made.certificate is not None
    assert made.key is not None
    cases: list[tuple[Path, bytes | None, str]] = [
        (made.certificate, None, "certificate: the file can't be read: No such file or directory"),
        (made.key, None, "key: the file can't be read: No such file or directory"),
        (made.certificate, b"nonsense", "certificate: a certificate in PEM was expected"),
        (made.key, pair.certificate, "key: a private key in PEM was expected"),
        (made.key, other.key, f"key: the private key of the certificate in {made.certificate} was expected"),
        (made.key, encrypted(pair), "key: a private key without a password was expected"),
        (
            made.certificate,
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "certificate: a certificate and its key were expected",
        ),
    ]
    for path, content, expected in cases:
        pair.write(tmp_path)
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(SettingsInvalid) as refused:
            context(made)
        assert str(refused.value).startswith(f"{path}: tls.{expected}")


def test_authorities_that_cannot_be_read(tmp_path: Path, authority: Authority) -> None:
    """Neither is a file that holds none."""
    path = tmp_path / "ca.pem"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    made = settings(tmp_path, authority.server(), client_ca=path, client_auth="required")
    with pytest.raises(SettingsInvalid, match=r"tls\.client_ca: certificates of authorities were expected"):
        context(made)


@pytest.mark.parametrize(
    ("client_auth", "shown", "let_in"),
    [
        ("required", "ours", True),
        ("required", "theirs", False),
        ("required", None, False),
        ("optional", "ours", True),
        ("optional", "theirs", False),
        ("optional", None, True),
        ("none", "theirs", True),
    ],
)
async def test_client_certificates(
    tmp_path: Path, authority: Authority, client_auth: str, shown: str | None, let_in: bool
) -> None:
    """Required means one of the authority's; optional, that one which is shown is the authority's."""
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    pair = (authority if shown == "ours" else Authority()).client("node").write(tmp_path / "client") if shown else None
    ca = {"client_ca": tmp_path / "ca.pem"} if client_auth != "none" else {}
    certificate = Certificate(settings(tmp_path, authority.server(), client_auth=client_auth, **ca))
    gate = Gate(Limits())
    async with listen(ok, ("127.0.0.1", 0), drain=1, tls=certificate, gate=gate) as address:
        answered = False
        try:
            async with talking(address, authority.trusting(pair)) as ask:
                answered = (await ask()).endswith(b"https")
        except (OSError, EOFError):
            pass  # the server's no comes after TLS 1.3's handshake
        await until(lambda: gate.connections == 0)
    assert answered == let_in


async def test_old_versions_and_other_protocols(tmp_path: Path, authority: Authority) -> None:
    """TLS 1.1 isn't spoken, and of protocols http/1.1 alone, whatever else a client would like."""
    certificate = Certificate(settings(tmp_path, authority.server()))
    async with listen(ok, ("127.0.0.1", 0), drain=1, tls=certificate) as address:
        for maximum in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            trust = authority.trusting()
            trust.maximum_version = maximum
            trust.set_alpn_protocols(["h2", "http/1.1"])
            async with talking(address, trust) as ask:
                assert ask.tls.selected_alpn_protocol() == "http/1.1"
                assert ask.tls.version() == maximum.name.replace("_", ".")
                assert ask.tls.cipher()[0].startswith(("TLS_", "ECDHE-"))
    assert certificate().minimum_version == ssl.TLSVersion.TLSv1_2


async def test_handshakes_count_as_connections(tmp_path: Path, authority: Authority) -> None:
    """Who connects and says nothing takes one of the connections for as long as a head may take, then none."""
    certificate, gate = (
        Certificate(settings(tmp_path, authority.server())),
        Gate(Limits(connections=2, head_timeout=2)),
    )
    async with listen(ok, ("127.0.0.1", 0), drain=1, tls=certificate, gate=gate) as address:
        mute = [await asyncio.open_connection(*address) for _ in range(2)]
        await until(lambda: gate.connections == 2)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            async with talking(address, authority.trusting()):
                pass
        await until(lambda: gate.connections == 0)
        async with talking(address, authority.trusting()) as ask:
            assert (await ask()).endswith(b"https")
        for _, writer in mute:
            writer.close()


@pytest.fixture
def patient() -> Iterator[None]:
    """Let a service that stops wait long for handshakes and first words: a busy machine isn't what is tested."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_LAST", HANGING)
        patched.setattr(server_module, "_FIRST_WORD", HANGING)
        yield


@pytest.mark.usefixtures("patient")
async def test_a_handshake_that_has_begun_is_finished(tmp_path: Path, authority: Authority) -> None:
    """Stopping takes no new connection, but whoever was taken is shaken by the hand and answered."""
    certificate, gate = Certificate(settings(tmp_path, authority.server())), Gate(Limits())
    server = listen(ok, ("127.0.0.1", 0), drain=HANGING, tls=certificate, gate=gate)
    address = await server.__aenter__()
    reader, writer = await asyncio.open_connection(*address)
    await until(lambda: gate.connections == 1)
    stopping = asyncio.create_task(server.__aexit__(None, None, None))
    await asyncio.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    await writer.start_tls(authority.trusting(), server_hostname=address[0])
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(HANGING):
        answer = await reader.read()
        await stopping
    writer.close()

    assert answer.endswith(b"https")


async def test_a_handshake_that_does_not_go_on_is_left(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever connects and says nothing delays no stop for long."""
    monkeypatch.setattr(module, "_LAST", 0.02)
    certificate, gate = Certificate(settings(tmp_path, authority.server())), Gate(Limits())
    async with listen(ok, ("127.0.0.1", 0), drain=60, tls=certificate, gate=gate) as address:
        reader, writer = await asyncio.open_connection(*address)
        await until(lambda: gate.connections == 1)
    async with asyncio.timeout(HANGING):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()

    assert gate.connections == 0


async def test_what_is_not_tls_is_closed(tmp_path: Path, authority: Authority) -> None:
    """Plain HTTP and garbage end the connection, and leave nothing behind."""
    certificate, gate = Certificate(settings(tmp_path, authority.server())), Gate(Limits())
    async with listen(ok, ("127.0.0.1", 0), drain=1, tls=certificate, gate=gate) as address:
        for data in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", os.urandom(64), b""):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(HANGING):
                assert b"HTTP" not in await reader.read()
            writer.close()
        await until(lambda: gate.connections == 0)


@pytest.mark.usefixtures("patient")
def test_everything_holds_on_uvloop(tmp_path: Path, authority: Authority) -> None:
    """The loop that the service runs on: a handshake, one that fails, one that is one too many, one at the end."""
    uvloop.run(test_handshakes_count_as_connections(tmp_path, authority))
    uvloop.run(test_what_is_not_tls_is_closed(tmp_path, authority))
    uvloop.run(test_a_handshake_that_has_begun_is_finished(tmp_path, authority))
    uvloop.run(test_a_renewed_certificate_is_shown_to_the_next_connection(tmp_path / "renewed", authority))
