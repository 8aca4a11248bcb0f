"""Errors on the wire: whatever an upstream made of them, they can be sent."""

from __future__ import annotations

import orjson
import pytest
from aiohttp import web

from proxy.oci.errors import BadAnswer, Overloaded
from proxy.web.failures import respond


def sent(message: str) -> str:
    """Return the sentence that a client gets."""
    response: web.Response = respond(BadAnswer(message))
    assert isinstance(response.body, bytes)
    found: str = orjson.loads(response.body)["errors"][0]["message"]
    return found


def test_a_sentence_is_sent_as_it_is() -> None:
    """The sentence of an error, in any script."""
    assert sent("hub: größer als erlaubt") == "hub: größer als erlaubt"


@pytest.mark.parametrize("raw", [b"\xff", b"\xed\xa0\x80"])
def test_bytes_that_are_no_text(raw: bytes) -> None:
    """Bytes of an upstream's header that aren't UTF-8 are shown as escapes."""
    message = sent(f"the upstream redirects to {raw.decode('utf-8', 'surrogateescape')}")

    assert message.isascii()
    assert message.startswith("the upstream redirects to \\udc")


def test_a_long_sentence_is_cut() -> None:
    """An upstream's 64 KiB host name isn't passed on."""
    message = sent("x" * 65536)

    assert len(message) <= 1000
    assert message.endswith("…")


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        ("5", "5"),
        ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT"),
        ("5\x01", None),
        ("5\x1b[2J", None),
        ("\udcff5", None),
        ("ä", None),
        ("9" * 9000, None),
        ("", None),
    ],
)
def test_what_an_upstream_says_of_waiting(heard: str, told: str | None) -> None:
    """It is passed on where a header can hold it: an answer that can't be written would be none."""
    assert respond(Overloaded("busy", retry_after=heard)).headers.get("Retry-After") == told
