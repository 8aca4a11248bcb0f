"""A service with hot answers beside one without: whatever happens, and whatever is sent, they say the same bytes.

Both run on uvloop, as the process does.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from hypothesis.strategies import DrawFn, SearchStrategy

from conftest import RULE, Clock, settled
from images import ARM, V1, X86, push, push_pair
from patience import HANGING
from proxy.app import Running, serve
from proxy.oci.reference import Digest
from proxy.settings.keys import Settings
from scripted import Origin, running, status
from test_recorded import READS, Recorded

TAG = "/v2/kimoqi/alpine/manifests/1.0"
PLATFORMS = {X86: "linux/amd64", ARM: "linux/arm64"}
ACCEPTS = (
    "Accept: application/vnd.oci.image.index.v1+json",
    "Accept: application/vnd.docker.distribution.manifest.v2+json",
    "Accept: application/vnd.docker.distribution.manifest.list.v2+json",
)
_RESET = b"<reset>"
LAST = b"GET /v2/ HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"


def head(*lines: str, method: str = "GET", path: str = TAG) -> bytes:
    """Write a request head."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: registry.example", *lines, "", ""]).encode()


class Twins:
    """Two services in front of one upstream, by one clock; the first has hot answers."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()
        self.clock = Clock()
        self.origin = Origin()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.services: list[Running] = []

    async def start(self) -> None:
        """Let all of them listen."""
        await self.stack.enter_async_context(running(self.origin))
        for hot in (True, False):
            service = serve(self._settings(hot=hot), self.clock, self.clock)
            self.services.append(await self.stack.enter_async_context(service))

    async def load(self, *, tag_ttl: float) -> None:
        """Let both go by another configuration, which finds on disk what the old one has kept."""
        await settled(self.folder)
        for hot, service in zip((True, False), self.services, strict=True):
            await service.reload(lambda hot=hot: self._settings(hot=hot, tag_ttl=tag_ttl))  # type: ignore[misc]

    def _settings(self, *, hot: bool, tag_ttl: float = 60.0) -> Settings:
        upstream = {"name": "hub", "url": self.origin.url, "retries": 0, "breaker": 0, "push": True}
        return Settings.model_validate(
            {
                "listen": "127.0.0.1:0",
                "admin_listen": "127.0.0.1:0",
                "drain": "1s",
                "hot": hot,
                "upstream": [upstream],
                "rule": [{**RULE, "tag_ttl": f"{tag_ttl:.0f}s"}],
                "cache": {"dir": self.folder / str(hot), "stale_while_revalidate": "0s"},
            }
        )

    async def ask(self, *pieces: bytes) -> bytes:
        """Send *pieces* to both, on connections that they close; return what both answer."""
        for _ in range(20):
            second = int(time.time())
            one, other = [await self._ask(service, pieces) for service in self.services]
            if int(time.time()) == second:  # else their `Date` may differ
                break
        if _RESET in (one[-1], other[-1]):
            # A server that closes without having read everything may take back what it has sent.
            shorter, longer = sorted((b"".join(one[:-1]), b"".join(other[:-1])), key=len)
            assert longer.startswith(shorter)
        else:
            assert b"".join(one) == b"".join(other)
        return b"".join(other)

    async def _ask(self, service: Running, pieces: Sequence[bytes]) -> list[bytes]:
        reader, writer = await asyncio.open_connection(*service.registry)
        reading = asyncio.create_task(_read(reader))
        for piece in pieces:
            if not writer.transport.is_closing():  # uvloop takes nothing for who has left
                writer.write(piece)
            for _ in range(3):  # let it arrive before the next one
                await asyncio.sleep(0)
        async with asyncio.timeout(HANGING):
            answer = await reading
        writer.close()
        return answer

    async def delete(self, digest: Digest) -> None:
        """Delete a source's manifest, and its tag with it, through both."""
        self.origin.registry.remove(ARM, V1)
        self.origin.fail("DELETE ", status(202))  # it is gone already; but both have to hear that it is
        for service in self.services:
            url = "http://{}:{}/v2/{}/manifests/{}".format(*service.registry, ARM, digest)
            async with aiohttp.ClientSession() as session, session.delete(url) as response:
                assert response.status == 202


async def _read(reader: asyncio.StreamReader) -> list[bytes]:
    """Read to the end; the last part is `_RESET` where it wasn't a clean one."""
    parts = [b""]
    try:
        while part := await reader.read(65536):
            parts.append(part)
    except ConnectionResetError:
        parts.append(_RESET)
    return parts


class Histories(RuleBasedStateMachine):
    """What happens to the services and to their upstream, and requests between."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.twins = Twins()
        self.count = 0
        self.paths = [TAG]
        self.pushed: dict[Any, Digest] = {}

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the machine's event loop."""
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        """Let everything listen."""
        for repository in PLATFORMS:
            self.push(repository)
        self.run(self.twins.start())

    def teardown(self) -> None:
        """Stop everything."""
        self.run(self.twins.stack.aclose())
        self.runner.close()

    @rule(repository=st.sampled_from([X86, ARM]))
    def push(self, repository: Any) -> None:
        """A build pushes an image past us."""
        self.count += 1
        image = push(self.twins.origin.registry, repository, V1, PLATFORMS[repository], text=str(self.count))
        self.pushed[repository] = image.digest

    @rule()
    def delete(self) -> None:
        """Somebody deletes a source through us, which its registry has to be there for."""
        self.twins.origin.heal()
        if (digest := self.pushed.pop(ARM, None)) is not None:
            self.run(self.twins.delete(digest))

    @rule(code=st.sampled_from([0, 403, 503]))
    def outage(self, code: int) -> None:
        """An upstream refuses, goes down, or comes back."""
        self.twins.origin.heal()
        if code:
            self.twins.origin.fail(f"/v2/{ARM}/", status(code))

    @rule(seconds=st.sampled_from([0.3, 1.0, 29.5, 61.0, 400.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.twins.clock.advance(seconds)

    @rule(tag_ttl=st.sampled_from([1.0, 60.0, 600.0]))
    def reload(self, tag_ttl: float) -> None:
        """Another configuration is loaded."""
        self.run(self.twins.load(tag_ttl=tag_ttl))

    @rule(
        method=st.sampled_from(["GET", "HEAD"]),
        accepts=st.permutations(ACCEPTS) | st.just([ACCEPTS[1]]),
        which=st.integers(0, 5),
        times=st.integers(1, 4),
    )
    def pull(self, method: str, accepts: list[str], which: int, times: int) -> None:
        """A client asks, again and again."""
        path = self.paths[which % len(self.paths)]
        for _ in range(times):
            answer = self.run(self.twins.ask(head(*accepts, "Connection: close", method=method, path=path)))
        if answer.startswith(b"HTTP/1.1 200") and method == "GET":
            digest = Digest.of(answer.partition(b"\r\n\r\n")[2])
            self.paths.append(f"/v2/kimoqi/alpine/manifests/{digest}")


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)

_LINES = [
    *ACCEPTS,
    "accept: a/b",
    "User-Agent: a",
    "User-Agent: b",
    "Host: x",
    "X: 1",
    "X:1",
    "X:  1",
    "x: 1",
    "If-None-Match: *",
]
_ODD = ["X: 1\r\n folded", "X : 1", "Bad Name: 1", "Content-Length: 0", "Connection: keep-alive", "Upgrade: x", ": y"]


@st.composite
def requests(draw: DrawFn) -> bytes:
    """Draw a request: mostly one that may be known, sometimes what no parser agrees on."""
    method = draw(st.sampled_from(["GET", "GET", "GET", "HEAD", "get", "OPTIONS"]))
    path = draw(
        st.sampled_from([TAG, TAG, TAG, TAG + "?ns=hub", "/v2/", "/v2/kimoqi/alpine/manifests/none", TAG + "#x"])
    )
    lines = draw(st.lists(st.sampled_from(_LINES), max_size=4))
    lines += draw(st.lists(st.sampled_from(_ODD), max_size=1)) if draw(st.integers(0, 3)) == 0 else []
    lines = draw(st.permutations(lines))
    data = head(*lines, method=method, path=path)
    match draw(st.integers(0, 11)):
        case 0:
            body = draw(st.binary(max_size=5) | st.just(head()))
            return head(f"Content-Length: {len(body)}", *lines, method=method, path=path) + body
        case 1:
            return head("Transfer-Encoding: chunked", *lines, path=path) + b"1\r\nx\r\n0\r\n\r\n"
        case 2:
            return data.replace(b"\r\n", b"\n", draw(st.integers(0, 3)))
        case 3:
            return b"\r\n" + data
        case 4:
            return data.replace(b"HTTP/1.1", draw(st.sampled_from([b"HTTP/1.0", b"HTTP/1.2", b"http/1.1"])))
    return data


streams: SearchStrategy[list[bytes]] = st.lists(requests(), min_size=1, max_size=4)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut *data* at *places*."""
    marks = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(marks) if start < end]


@pytest.fixture(scope="module")
def together() -> Any:
    """Twins that have answered the commonest heads, and the loop they run in."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        twins = Twins()
        push_pair(twins.origin.registry)
        runner.run(twins.start())
        for _ in range(2):
            runner.run(twins.ask(head(), head(*ACCEPTS), head(method="HEAD"), LAST))
        yield runner, twins
        runner.run(twins.stack.aclose())


@settings(max_examples=400, deadline=None)
@given(stream=streams, places=st.lists(st.integers(0, 5000), max_size=3), apart=st.booleans())
def test_whatever_is_sent(together: Any, stream: list[bytes], places: list[int], *, apart: bool) -> None:
    """Requests in any order, whole, pipelined or cut anywhere, well formed or not: the same bytes come back."""
    runner, twins = together
    pieces = [*stream, LAST] if apart else cut(b"".join([*stream, LAST]), places)
    for _ in range(2):
        runner.run(twins.ask(*pieces))


def test_cut_anywhere(together: Any) -> None:
    """A known head that comes in two pieces, cut at any byte, behind another and before another."""
    runner, twins = together
    data = head(*ACCEPTS)
    for place in range(1, len(data)):
        runner.run(twins.ask(head(), data[:place], data[place:], head(), LAST))


@pytest.mark.parametrize("each", READS, ids=[f"{n}-{each.client}" for n, each in enumerate(READS)])
def test_recorded_requests(together: Any, each: Recorded) -> None:
    """What real clients send is answered the same, the first time and again."""
    runner, twins = together
    for _ in range(3):
        runner.run(twins.ask(each.head, *([] if b"Connection: close" in each.head else [LAST])))
