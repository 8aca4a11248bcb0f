"""What registries do when they fail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from chaos.relay import Answer, Exchange, Message, faithfully

_DRIP: Final = 0.05  # seconds for a byte


@dataclass(frozen=True, slots=True)
class ClosedPort:
    """Nobody listens any more."""


@dataclass(frozen=True, slots=True)
class NoSuchHost:
    """The registry's name can't be resolved."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A way of failing: its words in the table, and what does it."""

    name: str
    does: ClosedPort | NoSuchHost | Answer

    def __str__(self) -> str:
        """Name it as a test."""
        return self.name.replace(" ", "-").replace("`", "").replace(",", "").replace("'", "")


async def hang(exchange: Exchange) -> None:
    """Never answer."""
    await exchange.left()


async def drip(exchange: Exchange) -> None:
    """Send the answer a byte at a time."""
    answer = await exchange.ask()
    for byte in answer.head + answer.body:
        await exchange.send(bytes([byte]))
        await asyncio.sleep(_DRIP)


async def reset_in_header(exchange: Exchange) -> None:
    """Reset the connection in the middle of the header."""
    answer = await exchange.ask()
    await exchange.send(answer.head[: len(answer.head) // 2])
    await exchange.reset()


async def reset_in_body(exchange: Exchange) -> None:
    """Reset the connection after most of the body."""
    if await _most(exchange):
        await exchange.reset()


async def truncate(exchange: Exchange) -> None:
    """Close the connection after most of the body."""
    if await _most(exchange):
        exchange.end()


async def stall(exchange: Exchange) -> None:
    """Say nothing more after most of the body."""
    if await _most(exchange):
        await exchange.left()


async def reset_without_ranges(exchange: Exchange) -> None:
    """Reset the connection after most of the body, and know no ranges."""
    exchange.request = exchange.request.without(b"range:")
    await reset_in_body(exchange)


async def flip_manifests(exchange: Exchange) -> None:
    """Change a byte of every manifest."""
    await (flip if "/manifests/" in exchange.path else faithfully)(exchange)


async def flip_blobs(exchange: Exchange) -> None:
    """Change a byte of every blob."""
    await (flip if "/blobs/" in exchange.path else faithfully)(exchange)


async def flip(exchange: Exchange) -> None:
    """Change a byte in the middle of the body."""
    answer = await exchange.ask()
    body = bytearray(answer.body)
    if body:
        body[len(body) // 2] ^= 1
    await exchange.send(answer.head + body)


async def html(exchange: Exchange) -> None:
    """Answer every question with a login page."""
    await _say(exchange, "200 OK", b"<!doctype html><title>Log in</title>", b"Content-Type: text/html")


async def flap(exchange: Exchange) -> None:
    """Answer every other request with 401."""
    refused = status(401, b'WWW-Authenticate: Basic realm="registry"')
    await (refused if exchange.number % 2 else faithfully)(exchange)


def status(code: int, *fields: bytes) -> Answer:
    """Answer *code* with no more than a header."""

    async def answer(exchange: Exchange) -> None:
        await _say(exchange, f"{code} Trouble", b"", *fields)

    return answer


async def _most(exchange: Exchange) -> bool:
    """Send the head and seven eighths of the body. False where there is nothing to leave out."""
    answer = await exchange.ask()
    kept = max(1, len(answer.body) * 7 // 8)
    await exchange.send(answer.head + answer.body[:kept])
    return kept < len(answer.body)


async def _say(exchange: Exchange, line: str, body: bytes, *fields: bytes) -> None:
    answer = Message(f"HTTP/1.1 {line}\r\nContent-Length: {len(body)}\r\n\r\n".encode()).with_field(
        b"Connection: close"
    )
    for each in fields:
        answer = answer.with_field(each)
    await exchange.send(answer.head + (b"" if exchange.method == "HEAD" else body))
    exchange.end()


FAULTS: Final = (
    Fault("refuses connections", ClosedPort()),
    Fault("never answers", hang),
    Fault("answers a byte at a time", drip),
    Fault("resets in the header", reset_in_header),
    Fault("resets in the body", reset_in_body),
    Fault("resets in the body, knows no ranges", reset_without_ranges),
    Fault("stops short of the end", truncate),
    Fault("falls silent in the body", stall),
    Fault("changes a byte of manifests", flip_manifests),
    Fault("changes a byte of blobs", flip_blobs),
    Fault("429 with `Retry-After`", status(429, b"Retry-After: 1")),
    Fault("429 without", status(429)),
    Fault("500", status(500)),
    Fault("502", status(502)),
    Fault("503", status(503)),
    Fault("401 every other time", flap),
    Fault("200 with a login page", html),
    Fault("one of their names can't be resolved", NoSuchHost()),
)
