"""What hot answers are kept in: by the head that they answer, for as long as the lease that they came with holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final

from aiohttp import web

from proxy.oci.lease import Lease
from proxy.telemetry import Tally
from proxy.web.asking import Asking
from proxy.web.forwarded import Networks, is_trusted

MAX_HEAD: Final = 4096
"""Bytes of a head that is kept at most; the recorded clients' heads have less than 1000."""
END: Final = b"\r\n\r\n"
"""What a head ends with."""

_MAX_ANSWER: Final = 128 * 1024  # bytes; the larger one is, the less there is to win
_MAX_ANSWERS: Final = 10_000
_MAX_SPELLINGS: Final = 64  # orders of header lines that an answer is known by; dockerd has as many as Accept lines
_OVERHEAD: Final = 1500  # bytes that an answer takes beside its own
_SPELLING_OVERHEAD: Final = 200  # bytes that a head takes beside its own
_REPEATED: Final = (200, 304)


@dataclass(frozen=True, slots=True)
class Record:
    """How an answer that is given again is counted and logged; *log* is None where requests aren't logged."""

    tally: Tally
    log: Callable[[str | None], None] | None


class Leased(web.Response):
    """A response that may be given again to the same request, while its lease holds; *again* is what it says then."""

    def __init__(
        self,
        lease: Lease | None,
        *,
        body: bytes | None,
        headers: dict[str, str],
        again: dict[str, str] | None = None,
        status: int = 200,
    ) -> None:
        super().__init__(body=body, headers=headers, status=status)
        self.bytes = body or b""
        self.lease = lease
        self.guard: Lease | None = None  # how long the caller counts as who they are
        self.again = again or {}
        self.record: Callable[[], Record] | None = None


class Answer:
    """A response as it is written, with the two headers that change, `Date` and `Age`, as of now."""

    __slots__ = (
        "_body",
        "_changing",
        "_pieces",
        "client",
        "closes",
        "data",
        "end",
        "guard",
        "lease",
        "record",
        "second",
        "spellings",
        "start",
        "used",
    )

    def __init__(self, lease: Lease, record: Record, response: Leased, client: str | None = None) -> None:
        self.lease = lease
        self.guard = response.guard
        self.record = record
        self.client = client  # whom a reverse proxy's head names
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
                pieces[-1] += f"{name}: {response.again.get(name, value)}\r\n"
        self._pieces = [piece.encode() for piece in pieces]
        self._changing = changing

    @property
    def live(self) -> bool:
        """Whether nothing has ended it."""
        return self.lease.live and (self.guard is None or self.guard.live)

    @property
    def size(self) -> int:
        """The bytes that it takes, about."""
        written = sum(map(len, self._pieces)) + 2 * len(self._body)
        return _OVERHEAD + written + sum(len(head) + _SPELLING_OVERHEAD for head in self.spellings)

    def write(self, now: float, wall: float) -> bool:
        """Bring `data` up to date: it is right from `start` until `end`, and in this `second` of the wall clock.

        Returns False where the lease doesn't hold any more.
        """
        guard = self.guard
        if not self.lease.holds(now) or not (guard is None or guard.holds(now)):
            return False
        age = max(0, int(self.lease.age(now)))
        since = self.lease.since
        self.start = self.lease.begins if since is None else max(self.lease.begins, since + age)
        self.end = self.lease.until if since is None else min(since + age + 1, self.lease.until)
        if guard is not None:
            self.start, self.end = max(self.start, guard.begins), min(self.end, guard.until)
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

    def __init__(
        self, limit: int, clock: Callable[[], float], wall: Callable[[], float] = time.time, patience: float = 0.0
    ) -> None:
        """Take what is needed.

        Args:
            clock: Seconds since the epoch, by which leases hold.
            wall: The same by the clock that aiohttp writes `Date` by.
            patience: Seconds that a head waits for the answer to another one.
        """
        self.asking = Asking(patience)
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
        current = answer.live and answer.start <= now < answer.end and answer.second == int(wall)
        if not current and not answer.write(now, wall):
            self._drop(found[0])
            return None
        answer.used = True
        return answer

    def keep(self, head: bytes, response: Leased, client: str | None = None) -> None:
        """Keep what the full path has answered to *head*, a single one, if it came with a lease that holds.

        Args:
            client: Whose requests the head counts as, where it says so itself.
        """
        lease, record = response.lease, response.record
        if lease is None or record is None or response.status not in _REPEATED or len(head) > MAX_HEAD:
            return
        if not lease.holds(self._clock()) or len(response.bytes) > _MAX_ANSWER:
            return
        key = ordered(head) if has_no_order(head) else head
        self._drop(key)
        answer = Answer(lease, record(), response, client)
        self._answers[key] = answer
        self._size += answer.size
        self._spell(key, answer, head)

    def _reordered(self, head: bytes) -> tuple[bytes, Answer] | None:
        """Find the answer to a head whose lines came in another order; next time the head itself is known."""
        if len(head) > MAX_HEAD or not head.endswith(END):
            return None
        key = ordered(head)
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
        self._shrink()

    def _shrink(self) -> None:
        """Let answers go until the rest fits, the oldest first; one used since the last time gets another turn."""
        while self._size > self._limit or len(self._answers) > _MAX_ANSWERS:
            key = next(iter(self._answers))
            answer = self._answers[key]
            if answer.used and answer.live:
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
    """The tables of a server: the same head may mean another thing from a proxy whose word counts.

    Without room for anything nothing is looked up, and every request takes the full path.
    """

    def __init__(
        self,
        limit: int,
        clock: Callable[[], float],
        trusted: Networks = (),
        wall: Callable[[], float] = time.time,
        patience: float = 0.0,
        coalesced: Callable[[], None] = lambda: None,
    ) -> None:
        """Share *limit* bytes among them; *coalesced* counts who got an answer that another had asked for."""
        self.used = limit > 0
        self.coalesced = coalesced
        self._trusted = trusted
        self._table = Table(limit // 2 if trusted else limit, clock, wall, patience)
        self._table_of_trusted = Table(limit // 2 if trusted else 0, clock, wall, patience)

    def of(self, transport: asyncio.Transport) -> Table:
        """Return the table for the peer of *transport*."""
        if self._trusted and is_trusted(peer(transport) or "", self._trusted):
            return self._table_of_trusted
        return self._table


def peer(transport: asyncio.Transport) -> str | None:
    """Return the address at the other end, as a request's `remote` is written."""
    name: Any = transport.get_extra_info("peername")
    if isinstance(name, list | tuple):
        return str(name[0])
    return None if name is None else str(name)


def ordered(head: bytes) -> bytes:
    """Write a head with its lines in alphabetical order, the first line first; no head of its own looks like it."""
    first, *lines = head[: -len(END)].split(b"\r\n")
    lines.sort()
    return b"\r\n".join([first, *lines])


def has_no_order(head: bytes) -> bool:
    """Whether the order of the lines means nothing: no name comes twice, but for `Accept`."""
    names = [line.partition(b":")[0].lower() for line in head[: -len(END)].split(b"\r\n")[1:]]
    others = [name for name in names if name != b"accept"]
    return len(others) == len(set(others))
