"""Another attempt: after what, how soon, and how often."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from yarl import URL

from conftest import Clock
from images import ARM, V1, X86, push_pair
from proxy.oci.byterange import Whole
from proxy.oci.errors import BadAnswer, NoAnswer, NotFound, Overloaded, RegistryError, TimedOut, Unreachable
from proxy.oci.reference import Digest
from proxy.telemetry import Metrics
from proxy.upstream.client import Upstream
from proxy.upstream.retry import NotConnected, Retries
from proxy.upstream.transport import Limits, Transport
from scripted import Fault, Origin, html, reset, status
from upstream.peers import Connect, Tokens

GET = "GET kimoqi/alpine-x86/manifests/1.0"
LAYER = b"layer"


@dataclass
class Pauses:
    """Sleep that takes no time but the clock's."""

    clock: Clock
    slept: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        """Sleep."""
        self.slept.append(seconds)
        self.clock.advance(seconds)


@pytest.fixture
def pauses(clock: Clock) -> Pauses:
    """Sleep that takes no time."""
    return Pauses(clock)


@pytest.fixture
def retries(pauses: Pauses) -> Retries:
    """Two more attempts, in the middle of their jitter."""
    return Retries(more=2, luck=lambda: 0.5, sleep=pauses)


def times(count: int, fault: Fault) -> Fault:
    """Let *fault* answer so many requests, the registry all others."""
    left = [fault] * count

    async def some(request: web.BaseRequest) -> web.StreamResponse | None:
        return await left.pop()(request) if left else None

    return some


# The rule


@pytest.mark.parametrize(
    "outcome", [500, 502, 503, 504, Unreachable("no connection"), NotConnected("no connection in time")]
)
def test_what_may_pass_is_tried_again(outcome: int | NoAnswer) -> None:
    """The server's passing troubles, and those on the way to it, are worth another attempt."""
    assert Retries(more=2).pause(0, outcome, left=8) is not None


@pytest.mark.parametrize(
    "outcome", [200, 301, 401, 403, 404, 405, 408, 429, 501, 505, TimedOut("slow"), BadAnswer("what?"), Overloaded("")]
)
def test_an_answer_and_lost_time_are_not_tried_again(outcome: int | NoAnswer) -> None:
    """No 4xx, and so no 429, no nonsense, and nothing that took its whole time already."""
    assert Retries(more=2).pause(0, outcome, left=8) is None


def test_pauses_grow_and_vary() -> None:
    """About 0.1 seconds, then twice as long, each from half to one and a half of that."""
    least, most = Retries(more=3, luck=lambda: 0.0), Retries(more=3, luck=lambda: 1.0)

    assert [least.pause(n, 503, left=8) for n in range(4)] == pytest.approx([0.05, 0.1, 0.2, None])
    assert [most.pause(n, 503, left=8) for n in range(4)] == pytest.approx([0.15, 0.3, 0.6, None])


def test_without_more_attempts_there_are_none() -> None:
    """With `retries = 0` a request is sent once."""
    assert Retries().pause(0, 503, left=8) is None


def test_a_pause_fits_into_the_time_that_is_left() -> None:
    """What would come too late isn't tried; a `Retry-After` is waited for where it fits."""
    retries = Retries(more=2, luck=lambda: 0.5)

    assert retries.pause(0, 503, left=0.1) is None
    assert retries.pause(0, 503, left=8, asked_for=3) == 3
    assert retries.pause(0, 503, left=8, asked_for=8) is None
    assert retries.pause(0, 503, left=8, asked_for=0.01) == 0.1


# Against a server


@pytest.mark.parametrize("code", [500, 502, 503, 504])
async def test_a_passing_trouble_is_not_noticed(
    origin: Origin, connect: Connect, retries: Retries, code: int, pauses: Pauses
) -> None:
    """A request that fails once is answered all the same."""
    x86, _ = push_pair(origin.registry)
    origin.fail("/manifests/", times(1, status(code)))
    upstream = await connect(origin, retries=retries)

    manifest = await upstream.manifest(X86, V1)

    assert manifest.descriptor.digest == x86.digest
    assert origin.asked == [GET, GET]
    assert pauses.slept == [0.1]


async def test_a_lost_connection_is_not_noticed(
    origin: Origin, connect: Connect, retries: Retries, pauses: Pauses
) -> None:
    """A connection that closes without an answer; aiohttp itself has asked once more already."""
    x86, _ = push_pair(origin.registry)
    origin.fail("/manifests/", times(2, reset()))
    upstream = await connect(origin, retries=retries)

    manifest = await upstream.manifest(X86, V1)

    assert manifest.descriptor.digest == x86.digest
    assert origin.asked == [GET] * 3
    assert pauses.slept == [0.1]


async def test_what_stays_is_asked_three_times(
    origin: Origin, connect: Connect, retries: Retries, pauses: Pauses
) -> None:
    """Two more attempts, each after a longer pause; then the last answer counts."""
    origin.fail("/manifests/", status(503))
    upstream = await connect(origin, retries=retries)

    with pytest.raises(Overloaded, match="503"):
        await upstream.manifest(X86, V1)

    assert origin.asked == [GET] * 3
    assert pauses.slept == [0.1, 0.2]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (status(404), NotFound),
        (status(429), Overloaded),
        (status(429, Retry_After="1"), Overloaded),
        (status(418), BadAnswer),
        (status(501), Overloaded),
        (html(), BadAnswer),
    ],
    ids=["404", "429", "429 with Retry-After", "418", "501", "html"],
)
async def test_an_answer_is_taken_the_first_time(
    origin: Origin, connect: Connect, retries: Retries, fault: Fault, error: type[RegistryError]
) -> None:
    """What the upstream said on purpose is not asked for again, least of all after a 429."""
    origin.fail("/manifests/", fault)
    upstream = await connect(origin, retries=retries)

    with pytest.raises(error):
        await upstream.manifest(X86, V1)

    assert origin.asked == [GET]


async def opened(upstream: Upstream) -> bytes:
    """Return the layer."""
    async with upstream.blob(X86, Digest.of(LAYER), Whole()) as blob:
        return b"".join([chunk async for chunk in blob.chunks])


READS: dict[str, Callable[[Upstream], Awaitable[object]]] = {
    "HEAD": lambda upstream: upstream.resolve(X86, V1),
    "manifest": lambda upstream: upstream.manifest(X86, V1),
    "tags": lambda upstream: upstream.tags(X86, None, ""),
    "referrers": lambda upstream: upstream.referrers(X86, Digest.of(b"")),
    "blob": opened,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_every_read_is_persistent(
    origin: Origin, connect: Connect, retries: Retries, read: Callable[[Upstream], Awaitable[object]]
) -> None:
    """Manifests, lists, and the opening of blobs, configs among them."""
    push_pair(origin.registry)
    origin.registry.add_blob(X86, LAYER)
    upstream = await connect(origin, retries=retries)
    alone = await read(upstream)
    origin.fail("", times(2, status(502)))

    assert await read(upstream) == alone


async def test_tokens_are_asked_for_persistently(origin: Origin, connect: Connect, retries: Retries) -> None:
    """A token service that hiccups is asked again, the registry isn't."""
    push_pair(origin.registry)
    tokens = Tokens(origin)
    origin.fail("GET /token", times(2, status(500)))
    upstream = await connect(origin, retries=retries)

    assert (await upstream.manifest(X86, V1)).body
    assert len(tokens.asked) == 3
    assert origin.asked.count(GET) == 2  # one that is challenged, one with the token


async def test_a_redirect_s_target_is_asked_persistently(
    origin: Origin, other: Origin, connect: Connect, retries: Retries
) -> None:
    """Where blobs come from another host, it is that host that is asked again."""
    other.registry.add_blob(X86, LAYER)
    path = f"/v2/{X86}/blobs/{Digest.of(LAYER)}"
    origin.fail("/blobs/", status(307, Location=other.url + path))
    other.fail("/blobs/", times(2, status(503)))
    upstream = await connect(origin, retries=retries)

    assert await opened(upstream) == LAYER
    assert (len(origin.requests), len(other.requests)) == (1, 3)


@pytest.mark.parametrize(("wait", "asked"), [("3", 3), ("9", 1), ("120", 1)])
async def test_a_503_says_itself_when_to_try_again(
    origin: Origin, connect: Connect, retries: Retries, pauses: Pauses, wait: str, asked: int
) -> None:
    """`Retry-After` is waited for within the time limit for headers; what says longer isn't tried again."""
    origin.fail("/manifests/", status(503, Retry_After=wait))
    upstream = await connect(origin, retries=retries, limits=Limits(header=8))

    with pytest.raises(Overloaded):
        await upstream.manifest(X86, V1)

    assert len(origin.requests) == asked
    assert pauses.slept == [3.0] * (asked - 1)


async def test_all_attempts_share_one_time_limit(
    origin: Origin, connect: Connect, retries: Retries, clock: Clock
) -> None:
    """An upstream that takes long to fail isn't asked three times as long."""

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        clock.advance(5)
        return web.Response(status=504)

    origin.fail("/manifests/", slow)
    upstream = await connect(origin, retries=retries, limits=Limits(header=8))

    with pytest.raises(Overloaded):
        await upstream.manifest(X86, V1)

    assert len(origin.requests) == 2


async def test_time_that_runs_out_between_attempts_is_a_timeout(origin: Origin, connect: Connect) -> None:
    """The pause counts for the time limit, too."""
    origin.fail("/manifests/", status(503))

    async def forever(_: float) -> None:
        await asyncio.Event().wait()

    upstream = await connect(
        origin, retries=Retries(more=2, luck=lambda: 0.0, sleep=forever), limits=Limits(header=0.1)
    )

    with pytest.raises(TimedOut, match=r"hub didn't answer within 0\.1 s"):
        await upstream.manifest(X86, V1)


async def test_a_connection_that_takes_too_long_is_tried_again(retries: Retries, pauses: Pauses) -> None:
    """Nothing was asked yet, so it may be asked again; the sentence says that there was no connection."""
    metrics = Metrics()
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # nobody accepts: the kernel takes no more
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = URL("http://{}:{}".format(*full.getsockname()))
        limits = Limits(connect=0.05, header=60)
        async with Transport("hub", url, limits, metrics, retries=retries) as transport:
            with pytest.raises(NotConnected, match=r"hub \(127\.0\.0\.1:\d+\): no connection in time"):
                async with transport.document("GET", url, {}):
                    pass

    assert len(pauses.slept) == 2
    assert (
        'manifuse_upstream_requests_total{method="GET",status="error",upstream="hub"} 3.0' in metrics.render().decode()
    )


async def test_connections_of_failed_attempts_are_given_back(
    origin: Origin, connect: Connect, retries: Retries
) -> None:
    """With one connection in the pool, three attempts and the next request find it free."""
    push_pair(origin.registry)
    origin.fail(f"/{X86}/", status(500, b"x" * 100_000))
    upstream = await connect(origin, retries=retries, limits=Limits(connections=1))
    with pytest.raises(Overloaded):
        await upstream.manifest(X86, V1)

    assert (await upstream.manifest(ARM, V1)).body
