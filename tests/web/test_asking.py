"""Waiting for what another has asked for."""

from __future__ import annotations

import asyncio

import pytest

from patience import HANGING
from proxy.web.asking import Asking

LINES = b"Host: registry.example\r\nAccept: */*\r\n\r\n"
HEAD = b"GET /v2/kimoqi/alpine/manifests/1.0 HTTP/1.1\r\n" + LINES


@pytest.mark.parametrize(
    ("line", "shared"),
    [
        (b"GET /v2/kimoqi/alpine/manifests/1.0", True),
        (b"HEAD /v2/kimoqi/alpine/manifests/1.0?ns=docker.io", True),
        (b"GET /v2/docker.io/kimoqi/alpine/manifests/sha256:" + b"0" * 64, True),
        (b"GET /v2/manifests/blobs/sha256:" + b"0" * 64, False),
        (b"GET /v2/kimoqi/alpine/tags/list?last=/manifests/1.0", False),
        (b"GET /v2/kimoqi/alpine/blobs/sha256:" + b"0" * 64, False),
        (b"DELETE /v2/kimoqi/alpine/manifests/1.0", False),
    ],
)
def test_only_manifests_are_worth_waiting_for(line: bytes, *, shared: bool) -> None:
    """Everything else may take long, or changes something."""
    assert (Asking(1.0).begin(line + b" HTTP/1.1\r\n" + LINES) is not None) is shared


async def test_all_who_wait_are_woken_once() -> None:
    """At the end, in their order; afterwards the next one asks."""
    asking, woken = Asking(60.0), list[int]()
    question = asking.begin(HEAD)
    assert question is not None
    assert asking.begin(HEAD) is None
    joined = [asking.join(HEAD, lambda n=n: woken.append(n)) for n in range(3)]  # type: ignore[misc]
    asking.end(question)
    asking.end(question)

    assert joined == [True] * 3
    assert woken == [0, 1, 2]
    assert not asking.join(HEAD, lambda: None)
    assert asking.begin(HEAD)


async def test_patience_ends() -> None:
    """Who waits is woken, and who comes later asks."""
    asking, woken = Asking(0.01), asyncio.Event()
    asking.begin(HEAD)
    asking.join(HEAD, woken.set)
    await asyncio.wait_for(woken.wait(), HANGING)

    assert asking.begin(HEAD)


async def test_who_asked_first_ends_no_later_question() -> None:
    """Whose time was up may be answered after somebody else has asked: those wait on who wait for that one."""
    asking, woken = Asking(60.0), list[str]()
    first = asking.begin(HEAD)
    assert first is not None
    asking.end(first)
    second = asking.begin(HEAD)
    assert second is not None
    asking.join(HEAD, lambda: woken.append("second"))
    asking.end(first)
    before = list(woken)
    asking.end(second)

    assert (before, woken) == ([], ["second"])


def test_without_patience_nobody_waits() -> None:
    """Then everybody asks."""
    asking = Asking(0.0)

    assert not asking.begin(HEAD)
    assert not asking.join(HEAD, lambda: None)
