"""Where nothing may arrive: a listener that notes every connection, and the scripted upstream over TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from certificates import Authority
from proxy.upstream.credentials import Credential
from scripted import Origin

SECRET = "planted-secret"
ALICE = Credential("alice", SECRET)


PASSING = '[[rule]]\nmatch = "**"\n'
"""Nothing is merged: what is asked for is asked for by its own name alone."""


def upstream(url: str, keys: str = "", *, name: str = "registry", alice: bool = False) -> str:
    """Return the configuration of an upstream, perhaps with credentials for it."""
    mine = f'credentials = {{ username = "alice", password = "{SECRET}" }}\n' if alice else ""
    return f'[[upstream]]\nname = "{name}"\nurl = "{url}"\n{mine}{keys}'


@dataclass
class Trap:
    """A port on loopback, IPv4 and IPv6 where there is any.

    Attributes:
        caught: What each connection has sent.
    """

    port: int = 0
    caught: list[bytes] = field(default_factory=list)

    async def catch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Note what comes, and answer as a token service that gives tokens to anybody."""
        number = len(self.caught)
        self.caught.append(b"")
        with suppress(ConnectionError, TimeoutError):
            self.caught[number] = await asyncio.wait_for(reader.read(1 << 16), 1)
            body = b'{"token": "of-the-trap"}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()


@asynccontextmanager
async def trap() -> AsyncIterator[Trap]:
    """Listen."""
    trap = Trap()
    async with await asyncio.start_server(trap.catch, "127.0.0.1", 0) as first:
        trap.port = first.sockets[0].getsockname()[1]
        with suppress(OSError):
            async with await asyncio.start_server(trap.catch, "::1", trap.port):
                yield trap
                return
        yield trap


@asynccontextmanager
async def over_tls(origin: Origin, authority: Authority, folder: Path) -> AsyncIterator[str]:
    """Let *origin* be on https, too. Yields its URL."""
    runner = web.ServerRunner(web.Server(origin.handle))
    await runner.setup()
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority.server().write(folder / "server"))
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
