"""Hot answers: a request that is known byte for byte is answered without being read.

Clients repeat themselves to the letter: a fleet that starts the same images sends the same heads. What the full
path has answered from a fresh entry is kept with the head it answered, and given again for as long as the lease
that came with it holds. The path, `Host`, `Accept` and whatever else the answer may depend on are in the head.

A small protocol stands in front of aiohttp's and looks the head up. Whatever it doesn't know goes to aiohttp, whose
handler is only made then. As answers must leave in the order of their requests, nothing is answered here while
aiohttp has something in flight: heads that are fed are counted, and aiohttp's access logger says when each was
answered. Where the front can't count, because it isn't plain heads that come, the connection is aiohttp's for good.

A head that another connection has just fed to aiohttp waits in front for that answer (`asking`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final, cast

from aiohttp import web

from proxy.oci.errors import RegistryError
from proxy.web.asking import Question
from proxy.web.gate import Gate
from proxy.web.limits import HeadTooSlow, Limits, wire
from proxy.web.table import END, MAX_HEAD, Leased, Table, Tables, peer

_LOOK: Final = 0.01  # seconds between two looks whether all have been heard

# Heads, one or more, that nothing but another head can follow. Anything else may have a body, or change the protocol.
_HEADS: Final = re.compile(
    rb"(?:(?:GET|HEAD) [!-~]++ HTTP/1\.1\r\n"
    rb"(?:(?!(?i:Content-Length|Transfer-Encoding|Upgrade|Expect):)[0-9A-Za-z_-]++:[^\r\n\0]*+\r\n)*+\r\n)++"
)


class Front(asyncio.Protocol):
    """One connection: what is known is answered here, everything else by a handler of aiohttp's, made when needed."""

    __slots__ = (
        "_asked",
        "_asker",
        "_begun",
        "_blind",
        "_client",
        "_entered",
        "_fronts",
        "_handler",
        "_heads",
        "_key",
        "_leads",
        "_parked",
        "_partial",
        "_paused",
        "_pending",
        "_quiet",
        "_rates",
        "_reading",
        "_ready",
        "_sweeps",
        "_table",
        "_transport",
        "_waits",
        "silent",
    )

    def __init__(self, fronts: Fronts) -> None:
        self.silent = True  # nothing has come yet
        self._fronts = fronts
        self._rates = fronts.gate.rates
        self._entered = False  # it is counted as a connection
        self._key: str | None = None  # what limits for one client go by
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
        self._asker: str | None = None  # whose request aiohttp is answering, where a reverse proxy says so
        self._leads: Question | None = None  # what is in flight that others may wait for
        self._parked: bytes | None = None  # the head that waits for another's answer
        self._quiet = False  # nothing happened since the last sweep
        self._sweeps = 0  # that found it idle, in a row
        self._waits = 0  # sweeps that found it waiting for the client, in a row
        self._heads = 0  # heads that aiohttp has read
        self._reading = False  # aiohttp has read a part of another one

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there may be another connection."""
        self._transport = cast("asyncio.Transport", transport)
        gate = self._fronts.gate
        if not self._entered:
            key = gate.client(self._who()) if gate.limits.tell_clients_apart else None
            reason = self.enter(key)
            if reason is not None:
                gate.turn_away(self._transport, reason)
                return
        self._table = self._fronts.tables.of(self._transport)
        self._fronts.open.add(self)
        self._ready = self._fronts.tables.used
        self._blind = not self._ready

    def enter(self, key: str | None) -> str | None:
        """Be counted as a connection of *key*. Returns the reason where there may be no other one."""
        reason = self._fronts.gate.enter(key)
        self._entered, self._key = reason is None, key
        return reason

    def dropped(self, reason: str | None = None) -> None:
        """Be told that there will be no connection, perhaps for a *reason* to count."""
        if reason is not None:
            self._fronts.gate.count(reason)  # and not log: balancers that only connect are no news
        self._leave()

    def _leave(self) -> None:
        if self._entered:
            self._entered = False
            self._fronts.gate.leave(self._key)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End, and let aiohttp end what it was doing."""
        self._leave()
        self._fronts.open.discard(self)
        self._ready = False
        self._parked = None
        self._land()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Answer what is known, wait where another asks for the same, feed aiohttp with the rest."""
        self.silent = False
        if self._parked is not None:
            self._resume()  # more has come
        if self._ready:
            if self._answer(data):
                return
            if self._table.asking.join(data, self._resume):
                self._parked, self._ready, self._quiet = data, False, False
                return
        if not self._transport.is_closing():
            self._feed(data)

    def eof_received(self) -> None:
        """The client sends no more; by returning nothing the transport is told to close."""
        if self._handler is not None:
            self._handler.eof_received()

    def pause_writing(self) -> None:
        """The client doesn't read: leave it to aiohttp, which waits before it writes more."""
        self._paused, self._ready, self._waits = True, False, 0
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._paused, self._waits = False, 0
        self._settle()
        if self._handler is not None:
            self._handler.resume_writing()

    def read(self, heads: int, *, partly: bool) -> None:
        """Be told that aiohttp has read so many heads on this connection, and perhaps a part of another one."""
        if not self._paused and (heads != self._heads or not partly):
            self._waits = 0
        self._heads, self._reading = heads, partly

    def began(self, request: web.BaseRequest) -> str | None:
        """Be told that aiohttp has begun to answer a request. Returns what limits for one client go by in it."""
        self._begun += 1
        self._asker = self._fronts.gate.asking(request, self._key)
        return self._asker

    def answered(self, response: web.StreamResponse) -> None:
        """Be told that aiohttp has written a response, whole, to the request that was begun last."""
        asked, self._asked = self._asked, None
        self._begun = max(0, self._begun - 1)
        self._pending -= 1
        self._quiet = False
        if not response.keep_alive:
            self._blind = True  # aiohttp closes the connection now, whatever else was sent
        self._settle()
        if asked is not None and isinstance(response, Leased):
            self._table.keep(asked, response, self._asker)
        self._land()

    def sweep(self) -> None:
        """Close the connection if too many of these calls in a row find it idle, or waiting for the client."""
        limits = self._fronts.gate.limits
        busy = self._begun or self._parked or (self._pending and not self._blind)
        self._sweeps = self._sweeps + 1 if self._quiet and not busy else 0
        self._quiet = True
        if self._paused or (self._reading and not self._begun):
            self._waits += 1
            # One more than the limit has: the first may have come just after the wait began.
            if self._paused and self._waits > limits.sweeps(limits.send_timeout):
                self._fronts.gate.refused("send_timeout")
                self._transport.abort()
            elif not self._paused and self._waits > limits.sweeps(limits.head_timeout):
                self._fronts.gate.refused("head_timeout")
                self.refuse(HeadTooSlow("the head of the request comes too slowly"))
        elif self._sweeps >= limits.sweeps(limits.idle_timeout):
            self.close()

    def refuse(self, error: RegistryError) -> None:
        """Answer a request that nobody else will answer, if nothing else is being answered, and close."""
        if self._begun:
            self._transport.abort()
        elif not self._transport.is_closing():
            self._transport.write(wire(error))
        self.close()

    def stop(self) -> None:
        """Close the connection if nothing is in flight; else aiohttp does it after the answer."""
        self._resume()
        if self._handler is None or self._ready:
            self.close()
        self._ready, self._blind = False, True

    def close(self) -> None:
        """Close the connection when what was written has left, and answer nothing more."""
        self._ready, self._blind = False, True
        self._transport.close()

    def _answer(self, data: bytes) -> bool:
        """Answer what is known, where the client may have another answer."""
        answer, rates = self._table.find(data), self._rates
        if answer is None or not (rates is None or rates.take(self._key or answer.client)):
            return False
        self._transport.write(answer.data)
        self._quiet = False
        record = answer.record
        record.tally.add()
        if record.log is not None:
            record.log(self._client or self._who())
        if answer.closes:
            self.close()
        return True

    def _resume(self) -> None:
        """Wait no longer for another's answer: it is known now, or this head goes the whole way itself."""
        parked, self._parked = self._parked, None
        if parked is None:
            return
        self._settle()
        if self._ready and self._answer(parked):
            self._fronts.tables.coalesced()
        elif not self._transport.is_closing():
            self._feed(parked)

    def _land(self) -> None:
        """Let those look again who wait for what this connection has asked for."""
        leads, self._leads = self._leads, None
        if leads is not None:
            self._table.asking.end(leads)

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
        if heads.endswith(END) and _HEADS.fullmatch(heads):
            self._pending += heads.count(END)
            if self._pending == 1:
                self._asked = heads
                self._leads = self._table.asking.begin(heads)
        elif END not in heads and len(heads) <= MAX_HEAD:
            self._partial = heads
        else:
            self._blind = True
        self._settle()

    def _settle(self) -> None:
        self._ready = not (self._pending or self._partial or self._paused or self._blind or self._parked)

    def _who(self) -> str | None:
        self._client = peer(self._transport)
        return self._client


class Fronts:
    """The connections of a server. Called, it makes one."""

    def __init__(self, tables: Tables, build: Callable[[Front], web.RequestHandler], gate: Gate | None = None) -> None:
        """Take the *tables* to look into, what makes aiohttp's handler for a connection, and who lets clients in."""
        self.tables = tables
        self.build = build
        self.gate = gate or Gate(Limits())
        self.open: set[Front] = set()
        self._next: asyncio.TimerHandle | None = None

    def __call__(self) -> Front:
        """Make the protocol of a new connection."""
        return Front(self)

    def watch(self) -> None:
        """Close idle connections from now on. One timer for all of them costs a new connection nothing."""
        self.sweep()
        self._next = asyncio.get_running_loop().call_later(self.gate.limits.sweep, self.watch)

    def sweep(self) -> None:
        """Look for idle connections once."""
        self.gate.settle()
        for front in list(self.open):
            front.sweep()

    def stop(self, *, spare: bool = False) -> None:
        """Close the connections that nothing is in flight on, and watch no longer.

        Args:
            spare: Leave those alone that nothing has come on yet: a request may be on its way.
        """
        if self._next is not None:
            self._next.cancel()
        for front in list(self.open):
            if not (spare and front.silent):
                front.stop()

    async def heard(self, seconds: float) -> None:
        """Wait until something has come on every connection, so long at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while any(front.silent for front in self.open) and loop.time() < end:  # noqa: ASYNC110 - an event would cost every connection something
            await asyncio.sleep(_LOOK)
