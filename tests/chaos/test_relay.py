"""The relay does what it is told, and nothing else: otherwise the suite proves nothing."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from chaos import faults
from chaos.relay import Answer, Message, Relay, limited, relay
from images import X86, push
from patience import HANGING
from proxy.oci.content import Descriptor
from scripted import Origin


@pytest.fixture
def pushed(origin: Origin) -> Descriptor:
    """An image in a registry."""
    return push(origin.registry, X86)


@pytest.fixture
async def between(origin: Origin, pushed: Descriptor) -> AsyncIterator[Relay]:
    """A relay in front of that registry."""
    async with relay("{}:{}".format(*origin.address)) as one:
        yield one


async def ask(
    one: Relay,
    path: str = "/v2/kimoqi/alpine-x86/manifests/1.0",
    *,
    seconds: float = HANGING,
    silence: float = HANGING,
) -> Message:
    """Send a request and return all that came back, whatever it is.

    Args:
        seconds: How long an answer is read that doesn't end.
        silence: How long nothing may come of one that has begun.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    received = bytearray()
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: */*\r\n\r\n".encode())
        async with asyncio.timeout(seconds):
            while not _is_whole(received) and (chunk := await _more(reader, silence if received else seconds)):
                received += chunk
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return _message(received)


async def _more(reader: asyncio.StreamReader, seconds: float) -> bytes:
    async with asyncio.timeout(seconds):
        return await reader.read(65536)


def _message(received: bytes | bytearray) -> Message:
    head, end, body = bytes(received).partition(b"\r\n\r\n")
    return Message(head + end, body)


def _is_whole(received: bytearray) -> bool:
    """Whether all came that the head has announced."""
    message = _message(received)
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", message.head)
    return length is not None and len(message.body) >= int(length[1])


async def test_answers_pass_untouched(between: Relay, pushed: Descriptor) -> None:
    """Without a fault the registry's own bytes come."""
    answer = await ask(between)

    assert answer.first_line[1] == "200"
    assert pushed.digest.matches(answer.body)


@pytest.mark.parametrize("fault", [faults.reset_in_body, faults.truncate, faults.stall])
async def test_most_of_a_body_comes(fault: Answer, between: Relay, pushed: Descriptor) -> None:
    """A body that is cut off is announced whole, and seven eighths of it come."""
    between.answer = fault
    answer = await ask(between, silence=0.5)

    assert f"Content-Length: {pushed.size}".encode() in answer.head
    assert len(answer.body) == pushed.size * 7 // 8


@pytest.mark.parametrize("fault", [faults.hang, faults.reset_in_header, faults.drip])
async def test_no_header_comes(fault: Answer, between: Relay) -> None:
    """The header isn't there in time, or never whole."""
    between.answer = fault

    assert not (await ask(between, seconds=0.5)).head.endswith(b"\r\n\r\n")


async def test_a_byte_is_changed(between: Relay, pushed: Descriptor) -> None:
    """As many bytes come, and they aren't the same."""
    between.answer = faults.flip_manifests
    answer = await ask(between)

    assert len(answer.body) == pushed.size
    assert not pushed.digest.matches(answer.body)


async def test_blobs_alone_are_changed(between: Relay, pushed: Descriptor) -> None:
    """A fault of blobs leaves manifests alone."""
    between.answer = faults.flip_blobs

    assert pushed.digest.matches((await ask(between)).body)


async def test_every_other_request_is_refused(between: Relay) -> None:
    """The refusals come and go."""
    between.answer = faults.flap

    assert [(await ask(between)).first_line[1] for _ in range(4)] == ["401", "200", "401", "200"]


async def test_a_fault_may_be_limited(between: Relay) -> None:
    """Only paths with the words are hit."""
    between.answer = limited(faults.status(503), "/blobs/")

    assert (await ask(between)).first_line[1] == "200"
    assert (await ask(between, "/v2/kimoqi/alpine-x86/blobs/x")).first_line[1] == "503"


async def test_a_closed_port_opens_again(between: Relay) -> None:
    """Nobody listens, and then somebody does, at the same address."""
    await between.close()
    with pytest.raises(ConnectionRefusedError):
        await ask(between)
    await between.heal()

    assert (await ask(between)).first_line[1] == "200"
