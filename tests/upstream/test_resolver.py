"""Names that stand for private addresses, at the moment of connecting."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from conftest import Clock
from images import X86
from proxy.oci.byterange import Whole
from proxy.oci.errors import BadAnswer, NoAnswer, Unreachable
from proxy.oci.reference import Digest
from proxy.telemetry import Metrics
from proxy.upstream.auth import Authorizer, Door
from proxy.upstream.client import Upstream
from proxy.upstream.credentials import Fixed
from proxy.upstream.guard import Bounds
from proxy.upstream.resolver import BoundResolver
from proxy.upstream.tokens import Grant, Service, Tokens
from proxy.upstream.transport import Limits, Transport
from scripted import Origin, status
from upstream.peers import ALICE, sent


class Names(AbstractResolver):
    """A name service that says what it is told to; everything else it leaves to nobody."""

    def __init__(self, table: Mapping[str, list[str]]) -> None:
        self.table = table
        self.asked: list[str] = []
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Answer from the table."""
        self.asked.append(host)
        if host not in self.table:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        kind = {True: socket.AF_INET6, False: socket.AF_INET}
        return [
            ResolveResult(hostname=host, host=each, port=port, family=kind[":" in each], proto=0, flags=0)
            for each in self.table[host]
        ]

    async def close(self) -> None:
        """Note it."""
        self.closed = True


async def test_what_is_out_of_bounds_is_not_returned() -> None:
    """All addresses of a name are checked, the upstream's own are let through, and no name is an error as before."""
    names = Names({"cdn.example.net": ["93.184.216.34", "10.0.0.1"], "registry.example.com": ["10.0.0.1"]})
    resolver = BoundResolver(names, Bounds(URL("https://registry.example.com")))

    assert [each["host"] for each in await resolver.resolve("registry.example.com", 443)] == ["10.0.0.1"]
    names.table = {**names.table, "registry.example.com": ["93.184.216.34"]}
    await resolver.resolve("registry.example.com", 443)
    with pytest.raises(BadAnswer, match="private address"):
        await resolver.resolve("cdn.example.net", 443)
    with pytest.raises(socket.gaierror):
        await resolver.resolve("nowhere.example.net", 443)
    await resolver.close()
    assert names.closed


OUTSIDE = "registry.example.com"  # stands for a public address, but for the connection that a test needs


class Elsewhere(Names):
    """A name service by which the registry is on a public address, and is connected to on loopback all the same."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Answer from the table, and the registry's name with loopback."""
        if host == OUTSIDE:
            host = "at.loopback"
        return await super().resolve(host, port, family)


Begin = Callable[..., Coroutine[Any, Any, Upstream]]


@pytest.fixture
async def begin(origin: Origin, clock: Clock) -> AsyncIterator[Begin]:
    """Open an upstream whose URL is a name, as if it were on a public address."""
    async with AsyncExitStack() as stack:

        async def open_it(table: Mapping[str, list[str]]) -> Upstream:
            names = Elsewhere({"at.loopback": ["127.0.0.1"], **table})
            url = URL(f"http://{OUTSIDE}:{origin.address[1]}")
            transport = Transport("hub", url, Limits(), Metrics(), clock=clock, resolve=lambda: names)
            await stack.enter_async_context(transport)
            transport.bounds.check_addresses(OUTSIDE, origin.address[1], ["93.184.216.34"])
            return Upstream(transport, Authorizer(Door(transport, clock), Fixed(ALICE)))

        yield open_it


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["0.0.0.0"]]
)
async def test_a_redirect_to_a_name_at_home_is_not_followed(
    origin: Origin, other: Origin, begin: Begin, addresses: list[str]
) -> None:
    """A name that stands for a private address is as good as that address: nothing is even connected (S3)."""
    blob = Digest.of(b"layer")
    origin.fail("/blobs/", status(307, Location=f"http://cdn.example.net:{other.address[1]}/b"))
    upstream = await begin({"cdn.example.net": addresses})

    with pytest.raises(BadAnswer, match=r"cdn\.example\.net:\d+, where the upstream sends us, is at a private address"):
        async with upstream.blob(X86, blob, Whole()):
            pass
    assert other.requests == []
    assert len(sent(origin)) == 1


@pytest.mark.parametrize("realms", [(), ("auth.example.com",)])
async def test_a_token_realm_at_home_gets_nothing(clock: Clock, realms: tuple[str, ...]) -> None:
    """A sibling of the upstream may be a token service, but not one on a private address, unless it is listed."""
    url = URL(f"https://{OUTSIDE}")
    names = Names({"auth.example.com": ["127.0.0.1"]})
    asked_for = Grant(Service("https://auth.example.com:443/token", "tests"), "", ALICE)
    async with Transport("hub", url, Limits(), Metrics(), realms=realms, resolve=lambda: names) as transport:
        transport.bounds.check_addresses(OUTSIDE, 443, ["93.184.216.34"])
        with pytest.raises(NoAnswer) as caught:
            await Tokens(transport, clock).get(asked_for)

    refused = "auth.example.com:443, where the upstream sends us, is at a private address; redirect_hosts can allow it"
    assert (str(caught.value) == refused) == (not realms)  # where it is listed nothing listens
    assert names.closed


async def test_a_name_that_nobody_knows_is_no_answer(begin: Begin, origin: Origin) -> None:
    """What can't be resolved is told as before."""
    origin.fail("/blobs/", status(307, Location="http://nowhere.example.net/b"))
    upstream = await begin({})

    with pytest.raises(Unreachable, match="can't be resolved"):
        async with upstream.blob(X86, Digest.of(b"layer"), Whole()):
            pass
