"""What limits go by, and how an error is written where there is no handler."""

from __future__ import annotations

import pytest

from proxy.web.limits import HeadTooSlow, Limits, network, wire


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("no:address", "no:address"),
    ],
)
def test_a_client_is_an_address_or_a_network(address: str, client: str) -> None:
    """One machine has a whole /64 of IPv6 addresses; IPv4 in IPv6's clothes is IPv4."""
    assert network(address) == client


@pytest.mark.parametrize(
    ("timeouts", "sweep", "sweeps"),
    [({}, 10.0, 15), ({"head_timeout": 0.375}, 0.125, 1200), ({"idle_timeout": 0.001}, 0.02, 1)],
)
def test_looks_are_as_frequent_as_the_shortest_wait_needs(
    timeouts: dict[str, float], sweep: float, sweeps: int
) -> None:
    """A third of it, ten seconds at most, and not all the time."""
    limits = Limits(**timeouts)  # type: ignore[arg-type]
    assert limits.sweep == pytest.approx(sweep)
    assert limits.sweeps(limits.idle_timeout) == sweeps


def test_an_error_is_a_whole_answer() -> None:
    """With its length, its end, and OCI's words."""
    head, _, body = wire(HeadTooSlow("too slow")).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 408 Request Timeout"
    assert {f"Content-Length: {len(body)}", "Connection: close", "Content-Type: application/json"} <= set(lines)
    assert b'"message":"too slow"' in body
