"""Hot answers: a request that is known byte for byte is answered without being read.

Clients repeat themselves to the letter: a fleet that starts the same images sends the same heads. What the full
path has answered from a fresh entry is kept with the head it answered, and given again for as long as the lease
that came with it holds. The path, `Host`, `Accept` and whatever else the answer may depend on are in the head.

A small protocol stands in front of aiohttp's and looks the head up. Whatever it doesn't know goes to aiohttp, whose
handler is only made then. As answers must leave in the order of their requests, nothing is answered here while
aiohttp has something in flight: heads that are fed are counted, and aiohttp's access logger says when each was
answered. Where the front can't count, because it isn't plain heads that come, the connection is aiohttp's for good.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, cast

from aiohttp import web

from proxy.oci.lease import Lease
from proxy.telemetry import Tally
from proxy.web.forwarded import Networks, is_trusted

_MAX_HEAD: Final = 4096  # bytes; the recorded clients' heads have less than 1000
_MAX_ANSWER: Final = 128 * 1024  # bytes; the larger one is, the less there is to win
_MAX_ANSWERS: Final = 10_000
_MAX_SPELLINGS: Final = 64  # orders of header lines that an answer is known by; dockerd has as many as Accept lines
_OVERHEAD: Final = 1500  # bytes that an answer takes beside its own
_SPELLING_OVERHEAD: Final = 200  # bytes that a head takes beside its own
_SWEEP: Final = 10.0  # seconds between two looks for idle connections
_MAX_SWEEPS: Final = 15  # looks that may find a connection idle; 150 s: longer than Go clients keep one, so they close

# Heads, one or more, that nothing but another head can follow. Anything else may have a body, or change the protocol.
_HEADS: Final = re.compile(
    rb"(?:(?:GET|HEAD) [!-~]++ HTTP/1\.1\r\n"
    rb"(?:(?!(?i:Content-Length|Transfer-Encoding|Upgrade|Expect):)[0-9A-Za-z_-]++:[^\r\n\0]*+\r\n)*+\r\n)++"
)
_END: Final = b"\r\n\r\n"
_REPEATED: Final = (200, 304)


@dataclass(frozen=True, slots=True)
class Record:
    """How an answer that is given again is counted and logged; *log* is None where requests aren't logged."""

    tally: Tally
    log: Callable[[str | None], None] | None


class Leased(web.Response):
    """A response that may be given again to the same request, while its lease holds."""

    def __init__(self, lease: Lease | None, *, body: bytes | None, headers: dict[str, str], status: int = 200) -> None:
        super().__init__(body=body, headers=headers, status=status)
        self.bytes = body or b""
        self.lease = lease
        self.record: Record | None = None


class Answer:
    """A response as it is written, with the two headers that change, `Date` and `Age`, as of now."""

    __slots__ = (
        "_body",
        "_changing",
        "_pieces",
        "closes",
        "data",
        "end",
        "lease",
        "record",
        "second",
        "spellings",
        "start",
        "used",
    )

    def __init__(self, lease: Lease, record: Record, response: Leased) -> None:
        self.lease = lease
        self.record = record
        self.closes = not response.keep_alive
        self.spellings: list[bytes] = []
        self.used = False
        self.data = b""
        self.second = -1
        self.start = self.end = 0.0
        self._body = response.bytes
        pieces, changing = [f"HTTP/1.1 {response.status} {response.reason}\r\n"], []
        for name, value in response.headers.items():
            if name in ("Age", "Date"):
                pieces[-1] += f"{name}: "
                pieces.append("\r\n")
                changing.append(name)
            else:
                pieces[-1] += f"{name}: {value}\r\n"
        self._pieces = [piece.encode() for piece in pieces]
        self._changing = changing

    @property
    def size(self) -> int:
        """The bytes that it takes, about."""
        written = sum(map(len, self._pieces)) + 2 * len(self._body)
        return _OVERHEAD + written + sum(len(head) + _SPELLING_OVERHEAD for head in self.spellings)

    def write(self, now: float, wall: float) -> bool:
        """Bring `data` up to date: it is right from `start` until `end`, and in this `second` of the wall clock.

        Returns False where the lease doesn't hold any more.
        """
        if not self.lease.holds(now):
            return False
        age = max(0, int(self.lease.age(now)))
        since = self.lease.since
        self.start = -math.inf if since is None else since + age
        self.end = self.lease.until if since is None else min(since + age + 1, self.lease.until)
        self.second = int(wall)
        values = {"Age": str(age).encode(), "Date": formatdate(self.second, usegmt=True).encode()}
        head = [self._pieces[0]]
        for name, piece in zip(self._changing, self._pieces[1:], strict=True):
            head += [values[name], piece]
        self.data = b"".join([*head, b"\r\n", self._body])
        return True


class Table:
    """Answers by the head they answer, as many as *limit* bytes hold; those that nobody asks for leave first.

    An answer has a key, its head with the lines in alphabetical order, and spellings, the orders that came: dockerd
    shuffles its four `Accept` lines. The order of lines has no meaning where no name comes twice, and none for
    `Accept`, which is a set here.
    """

    def __init__(self, limit: int, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        """Take what is needed.

        Args:
            clock: Seconds since the epoch, by which leases hold.
            wall: The same by the clock that aiohttp writes `Date` by.
        """
        self._limit = limit
        self._clock = clock
        self._wall = wall
        self._answers: dict[bytes, Answer] = {}
        self._spellings: dict[bytes, tuple[bytes, Answer]] = {}
        self._size = 0

    def __len__(self) -> int:
        """Count the answers."""
        return len(self._answers)

    @property
    def size(self) -> int:
        """The bytes that they take, about."""
        return self._size

    def find(self, head: bytes) -> Answer | None:
        """Return the answer to *head* with `data` as of now, or None where the full path has to be asked."""
        found = self._spellings.get(head) or self._reordered(head)
        if found is None:
            return None
        answer = found[1]
        now, wall = self._clock(), self._wall()
        current = answer.lease.live and answer.start <= now < answer.end and answer.second == int(wall)
        if not current and not answer.write(now, wall):
            self._drop(found[0])
            return None
        answer.used = True
        return answer

    def keep(self, head: bytes, response: Leased) -> None:
        """Keep what the full path has answered to *head*, a single one, if it came with a lease that holds."""
        lease, record = response.lease, response.record
        if lease is None or record is None or response.status not in _REPEATED or len(head) > _MAX_HEAD:
            return
        if not lease.holds(self._clock()) or len(response.bytes) > _MAX_ANSWER:
            return
        key = _sorted(head) if _has_no_order(head) else head
        self._drop(key)
        answer = Answer(lease, record, response)
        self._answers[key] = answer
        self._size += answer.size
        self._spell(key, answer, head)

    def _reordered(self, head: bytes) -> tuple[bytes, Answer] | None:
        """Find the answer to a head whose lines came in another order; next time the head itself is known."""
        if len(head) > _MAX_HEAD or not head.endswith(_END):
            return None
        key = _sorted(head)
        answer = self._answers.get(key)
        if answer is None:
            return None
        if len(answer.spellings) < _MAX_SPELLINGS:
            self._spell(key, answer, head)
        return key, answer

    def _spell(self, key: bytes, answer: Answer, head: bytes) -> None:
        answer.spellings.append(head)
        self._spellings[head] = (key, answer)
        self._size += len(head) + _SPELLING_OVERHEAD
        self._shrink(key)

    def _shrink(self, newest: bytes) -> None:
        """Let answers go until the rest fits, the oldest first; one used since the last time gets another turn."""
        for key in list(self._answers):
            if self._size <= self._limit and len(self._answers) <= _MAX_ANSWERS:
                return
            answer = self._answers[key]
            if answer.used and answer.lease.live and key != newest:
                answer.used = False
                self._answers[key] = self._answers.pop(key)
            else:
                self._drop(key)

    def _drop(self, key: bytes) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._size -= answer.size
            for head in answer.spellings:
                del self._spellings[head]


class Tables:
    """The tables of a server: the same head may mean another thing from a proxy whose word counts."""

    def __init__(
        self, limit: int, clock: Callable[[], float], trusted: Networks = (), wall: Callable[[], float] = time.time
    ) -> None:
        """Share *limit* bytes among them."""
        self._trusted = trusted
        self._table = Table(limit // 2 if trusted else limit, clock, wall)
        self._table_of_trusted = Table(limit // 2 if trusted else 0, clock, wall)

    def of(self, transport: asyncio.Transport) -> Table:
        """Return the table for the peer of *transport*."""
        if self._trusted and is_trusted(peer(transport) or "", self._trusted):
            return self._table_of_trusted
        return self._table


class Front(asyncio.Protocol):
    """One connection: what is known is answered here, everything else by a handler of aiohttp's, made when needed."""

    __slots__ = (
        "_asked",
        "_begun",
        "_blind",
        "_client",
        "_fronts",
        "_handler",
        "_partial",
        "_paused",
        "_pending",
        "_quiet",
        "_ready",
        "_sweeps",
        "_table",
        "_transport",
    )

    def __init__(self, fronts: Fronts) -> None:
        self._fronts = fronts
        self._transport: asyncio.Transport
        self._table: Table
        self._client: str | None = None
        self._handler: web.RequestHandler | None = None
        self._ready = False  # nothing is in flight: what comes may be answered here
        self._blind = False  # it can't be known what is in flight
        self._paused = False  # the client reads slowly
        self._pending = 0  # heads that aiohttp was fed and hasn't answered
        self._begun = 0  # requests that aiohttp is answering
        self._partial = b""  # the beginning of a head, fed already
        self._asked: bytes | None = None  # the head in flight, where it is a single one
        self._quiet = False  # nothing happened since the last sweep
        self._sweeps = 0  # that found it idle, in a row

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._table = self._fronts.tables.of(self._transport)
        self._fronts.open.add(self)
        self._ready = True

    def connection_lost(self, exc: BaseException | None) -> None:
        """End, and let aiohttp end what it was doing."""
        self._fronts.open.discard(self)
        self._ready = False
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Answer what is known, feed aiohttp with the rest."""
        if self._ready:
            answer = self._table.find(data)
            if answer is not None:
                self._transport.write(answer.data)
                self._quiet = False
                record = answer.record
                record.tally.add()
                if record.log is not None:
                    record.log(self._client or self._who())
                if answer.closes:
                    self.close()
                return
        if not self._transport.is_closing():
            self._feed(data)

    def eof_received(self) -> None:
        """The client sends no more; by returning nothing the transport is told to close."""
        if self._handler is not None:
            self._handler.eof_received()

    def pause_writing(self) -> None:
        """The client doesn't read: leave it to aiohttp, which waits before it writes more."""
        self._paused, self._ready = True, False
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._paused = False
        self._settle()
        if self._handler is not None:
            self._handler.resume_writing()

    def began(self) -> None:
        """Be told that aiohttp has begun to answer a request."""
        self._begun += 1

    def answered(self, response: web.StreamResponse) -> None:
        """Be told that aiohttp has written a response, whole."""
        asked, self._asked = self._asked, None
        self._begun = max(0, self._begun - 1)
        self._pending -= 1
        self._quiet = False
        if not response.keep_alive:
            self._blind = True  # aiohttp closes the connection now, whatever else was sent
        self._settle()
        if asked is not None and isinstance(response, Leased):
            self._table.keep(asked, response)

    def sweep(self) -> None:
        """Close the connection if nothing has happened on it for too many of these calls in a row."""
        busy = self._begun or (self._pending and not self._blind)
        self._sweeps = self._sweeps + 1 if self._quiet and not busy else 0
        self._quiet = True
        if self._sweeps >= _MAX_SWEEPS:
            self.close()

    def stop(self) -> None:
        """Close the connection if nothing is in flight; else aiohttp does it after the answer."""
        if self._handler is None or self._ready:
            self.close()
        self._ready, self._blind = False, True

    def close(self) -> None:
        """Close the connection when what was written has left, and answer nothing more."""
        self._ready, self._blind = False, True
        self._transport.close()

    def _feed(self, data: bytes) -> None:
        if self._handler is None:
            self._handler = self._fronts.build(self)
            self._handler.connection_made(self._transport)
            if self._paused:
                self._handler.pause_writing()
        if not self._blind:
            self._count(data)
        self._handler.data_received(data)

    def _count(self, data: bytes) -> None:
        """Count the heads in what aiohttp is fed with."""
        heads, self._partial, self._asked = self._partial + data, b"", None
        if heads.endswith(_END) and _HEADS.fullmatch(heads):
            self._pending += heads.count(_END)
            self._asked = heads if self._pending == 1 else None
        elif _END not in heads and len(heads) <= _MAX_HEAD:
            self._partial = heads
        else:
            self._blind = True
        self._settle()

    def _settle(self) -> None:
        self._ready = not (self._pending or self._partial or self._paused or self._blind)

    def _who(self) -> str | None:
        self._client = peer(self._transport)
        return self._client


class Fronts:
    """The connections of a server. Called, it makes one."""

    def __init__(self, tables: Tables, build: Callable[[Front], web.RequestHandler]) -> None:
        """Take the *tables* to look into, and what makes aiohttp's handler for a connection."""
        self.tables = tables
        self.build = build
        self.open: set[Front] = set()
        self._next: asyncio.TimerHandle | None = None

    def __call__(self) -> Front:
        """Make the protocol of a new connection."""
        return Front(self)

    def watch(self) -> None:
        """Close idle connections from now on. One timer for all of them costs a new connection nothing."""
        self.sweep()
        self._next = asyncio.get_running_loop().call_later(_SWEEP, self.watch)

    def sweep(self) -> None:
        """Look for idle connections once."""
        for front in list(self.open):
            front.sweep()

    def stop(self) -> None:
        """Close the connections that nothing is in flight on, and watch no longer."""
        if self._next is not None:
            self._next.cancel()
        for front in list(self.open):
            front.stop()


def peer(transport: asyncio.Transport) -> str | None:
    """Return the address at the other end, as a request's `remote` is written."""
    name: Any = transport.get_extra_info("peername")
    if isinstance(name, list | tuple):
        return str(name[0])
    return None if name is None else str(name)


def _sorted(head: bytes) -> bytes:
    """Write a head with its lines in alphabetical order, the first line first; no head of its own looks like it."""
    first, *lines = head[: -len(_END)].split(b"\r\n")
    lines.sort()
    return b"\r\n".join([first, *lines])


def _has_no_order(head: bytes) -> bool:
    """Whether the order of the lines means nothing: no name comes twice, but for `Accept`."""
    names = [line.partition(b":")[0].lower() for line in head[: -len(_END)].split(b"\r\n")[1:]]
    others = [name for name in names if name != b"accept"]
    return len(others) == len(set(others))
