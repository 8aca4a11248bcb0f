"""Heads that wait for the answer that another connection has asked for."""

from __future__ import annotations

import asyncio

from conftest import Clock, until
from web.heads import head
from web.hotserver import Server, serving, undated


async def test_who_sends_the_same_meanwhile_waits_for_the_answer(server: Server) -> None:
    """While one head goes the whole way, others like it wait, and get what it gets; nobody is asked again."""
    connections = await server.waiting(head(), 20)
    server.registry.gate.set()
    answers = [await connection.answer() for connection in connections]
    again = [await connection.ask(head()) for connection in connections]

    assert len({undated(answer) for answer in [*answers, *again]}) == 1
    assert server.registry.reads == 1
    assert await server.counted() == 42
    assert b"\nmanifuse_coalesced_total 20.0\n" in server.metrics.render()


async def test_who_waited_asks_itself_where_the_answer_may_not_be_given_again(server: Server) -> None:
    """What was changed meanwhile is asked for anew by everybody who waited."""
    connections = await server.waiting(head(), 3)
    server.registry.lease.live = False
    server.registry.leased()
    server.registry.gate.set()
    answers = [await connection.answer() for connection in connections]

    assert {answer.partition(b" ")[2][:3] for answer in answers} == {b"200"}
    assert server.registry.reads == 4


async def test_who_sends_more_while_waiting_is_answered_in_order(server: Server) -> None:
    """Two heads on one connection are answered one after the other."""
    connections = await server.waiting(head(), 1)
    connections[1].writer.write(head(method="HEAD"))
    await until(lambda: server.registry.reads == 2)
    server.registry.gate.set()
    answers = [await connections[1].answer(), await connections[1].answer(is_head=True)]

    assert undated(answers[1]) == undated(answers[0]).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


async def test_who_waits_for_one_that_leaves_asks_itself(server: Server) -> None:
    """The one whose answer is waited for may leave; so may one who waits."""
    asked, leaving, staying = await server.waiting(head(), 2)
    leaving.writer.close()
    asked.writer.close()
    await until(lambda: server.registry.reads == 2)
    server.registry.gate.set()

    assert (await staying.answer()).startswith(b"HTTP/1.1 200 ")


async def test_nobody_waits_for_long(clock: Clock) -> None:
    """When its patience ends a head goes the whole way, however long the other still takes."""
    async with serving(clock, patience=0.02) as server:
        connections = [await server.connect() for _ in range(3)]
        server.registry.gate.clear()
        for connection in connections:
            connection.writer.write(head())
        await until(lambda: server.registry.reads == 3)
        server.registry.gate.set()

        assert [(await connection.answer())[:12] for connection in connections] == [b"HTTP/1.1 200"] * 3


async def test_who_waits_when_the_server_stops_is_answered(clock: Clock) -> None:
    """Requests in flight are finished, those that wait for another's answer, too."""
    async with serving(clock) as server:
        connections = await server.waiting(head(), 3)
        stopping = asyncio.create_task(server.stack.aclose())
        await until(lambda: server.registry.reads == 4)
        server.registry.gate.set()
        answers = [await connection.rest() for connection in connections]
        await stopping

    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 4
