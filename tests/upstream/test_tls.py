"""TLS to upstreams: whose certificate is believed, and who is shown ours."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from yarl import URL

from certificates import Authority
from proxy.files import read
from proxy.oci.errors import Unreachable
from proxy.settings.keys import Settings
from proxy.settings.load import SettingsInvalid
from proxy.telemetry import Metrics
from proxy.upstream.transport import Limits, Transport


class Server:
    """A server that asks for certificates, and notes whose it was shown; it redirects where it is told to."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []
        self.url = ""
        self.location = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer."""
        assert request.transport is not None
        shown: Any = request.transport.get_extra_info("peercert")
        self.seen.append(shown["subject"][0][0][1] if shown else None)
        if self.location:
            return web.Response(status=307, headers={"Location": self.location})
        return web.Response(text="fine")


Start = Callable[[], Coroutine[Any, Any, Server]]


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Who has issued all of them."""
    return Authority()


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> Path:
    """Where our certificate is, and the authority's."""
    authority.client("manifuse").write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    return tmp_path


@pytest.fixture
async def start(tmp_path: Path, authority: Authority) -> AsyncIterator[Start]:
    """Start a server on loopback."""
    async with AsyncExitStack() as stack:

        async def begin() -> Server:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.pem.decode())
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_cert_chain(*authority.server().write(tmp_path / "server"))
            server = Server()
            runner = web.ServerRunner(web.Server(server.handle))
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            server.url = "https://127.0.0.1:{}".format(*runner.addresses[0][1:])
            return server

        yield begin


async def get(url: str, realms: tuple[str, ...] = (), path: str | None = None, **keys: Any) -> str:
    """Ask an upstream with such keys, or somebody else in its name."""
    upstream = {"name": "hub", "url": url, **keys}
    tls = read(Settings.model_validate({"upstream": [upstream]}), {}).tls["hub"]
    asking = Transport("hub", URL(url), Limits(), Metrics(), tls.own, others=tls.others, realms=realms)
    async with asking as transport, transport.document("GET", URL(path or url), {}) as response:
        return (await transport.read(response, 100, "document")).decode()


async def test_a_certificate_is_checked(start: Start, folder: Path) -> None:
    """Against what is known, and only by the operator's word against nothing."""
    server = await start()

    with pytest.raises(Unreachable, match=r"certificate is not trusted: [^\[]*$"):
        await get(server.url)
    assert server.seen == []
    assert await get(server.url, ca_file=folder / "ca.pem") == "fine"
    assert await get(server.url, insecure_skip_verify=True) == "fine"
    assert server.seen == [None, None]


@pytest.mark.parametrize("trust", [{"ca_file": "ca.pem"}, {"insecure_skip_verify": True}])
async def test_our_certificate_is_shown_to_the_upstream_alone(
    start: Start, folder: Path, trust: dict[str, Any]
) -> None:
    """Where it redirects to learns nothing of who we are, unless the operator has named it."""
    server, other = await start(), await start()
    keys: dict[str, Any] = {"client_certificate": folder / "tls.crt", "client_key": folder / "tls.key"}
    keys |= {key: folder / value if key == "ca_file" else value for key, value in trust.items()}

    assert await get(server.url, **keys) == "fine"
    server.location = other.url
    assert await get(server.url, **keys) == "fine"
    assert await get(server.url, realms=(other.url,), path=other.url, **keys) == "fine"

    assert server.seen == ["manifuse", "manifuse"]
    assert other.seen == [None, "manifuse"]


async def test_key_and_certificate_may_be_one_file(start: Start, folder: Path) -> None:
    """As some authorities issue them."""
    both = folder / "both.pem"
    both.write_bytes((folder / "tls.crt").read_bytes() + (folder / "tls.key").read_bytes())
    server = await start()

    assert await get(server.url, client_certificate=both, ca_file=folder / "ca.pem") == "fine"
    assert server.seen == ["manifuse"]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"client_certificate": "none"}, "unusable, or not with its key: No such file or directory"),
        ({"client_certificate": "tls.crt"}, "unusable, or not with its key: "),
        (
            {"client_certificate": "tls.crt", "client_key": "server/tls.key"},
            "unusable, or not with its key: key values mismatch",
        ),
        (
            {"client_certificate": "tls.crt", "client_key": "locked.key"},
            "unusable, or not with its key: the key has a password",
        ),
    ],
)
def test_a_certificate_that_can_not_be_used_stops_the_start(
    folder: Path, authority: Authority, keys: dict[str, str], problem: str
) -> None:
    """A key of another certificate, or one that wants a password, is found before anything is served."""
    authority.server().write(folder / "server")
    encryption = serialization.BestAvailableEncryption(b"a password")
    key = serialization.load_pem_private_key((folder / "tls.key").read_bytes(), None)
    locked = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (folder / "locked.key").write_bytes(locked)
    upstream = {"name": "hub", "url": "https://hub.example"} | {key: folder / name for key, name in keys.items()}

    with pytest.raises(SettingsInvalid) as caught:
        read(Settings.model_validate({"upstream": [upstream]}), {})
    where = folder / keys["client_certificate"]
    assert str(caught.value).startswith(f"{where}: upstream[0].client_certificate: {problem}")
