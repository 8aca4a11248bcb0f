"""How far addresses reach, in every form in which one can be written."""

from __future__ import annotations

import ipaddress

import pytest

from proxy.upstream.addresses import Reach, parse, reach, reach_of_host


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", Reach.PUBLIC),
        ("10.0.0.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("198.18.0.1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("0.0.0.0", Reach.LOOPBACK),
        ("169.254.1.1", Reach.NOWHERE),
        ("100.100.100.200", Reach.NOWHERE),
        ("168.63.129.16", Reach.NOWHERE),
        ("224.0.0.1", Reach.NOWHERE),
        ("240.0.0.1", Reach.NOWHERE),
        ("2606:4700::1111", Reach.PUBLIC),
        ("fd00::1", Reach.PRIVATE),
        ("fec0::1", Reach.PRIVATE),
        ("2001:db8::1", Reach.PRIVATE),
        ("::1", Reach.LOOPBACK),
        ("::", Reach.LOOPBACK),
        ("fe80::1", Reach.NOWHERE),
        ("ff02::1", Reach.NOWHERE),
        ("fd00:ec2::254", Reach.NOWHERE),
        ("fd00:ec2::23", Reach.NOWHERE),
        ("fd00:42::42", Reach.NOWHERE),
        ("::ffff:8.8.8.8", Reach.PUBLIC),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("::127.0.0.1", Reach.LOOPBACK),
        ("64:ff9b::7f00:1", Reach.LOOPBACK),
        ("64:ff9b::808:808", Reach.PUBLIC),
        ("64:ff9b:1::808:808", Reach.PRIVATE),
        ("64:ff9b:1::a9fe:a9fe", Reach.NOWHERE),
        ("2002:808:808::1", Reach.PUBLIC),
        ("2002:a9fe:a9fe::1", Reach.NOWHERE),
    ],
)
def test_an_address_reaches_as_far_as_what_it_holds(address: str, expected: Reach) -> None:
    """An IPv6 address that holds an IPv4 address leads where that one does."""
    assert reach(ipaddress.ip_address(address)) is expected


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1", "::1"])
def test_an_address_is_read_as_resolvers_do(host: str) -> None:
    """Short, decimal, hexadecimal and octal forms are all loopback to `getaddrinfo`."""
    address = parse(host)

    assert address is not None
    assert reach(address) is Reach.LOOPBACK


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", Reach.LOOPBACK),
        ("LocalHost.", Reach.LOOPBACK),
        ("db.localhost", Reach.LOOPBACK),
        ("10.0.0.1", Reach.PRIVATE),
        ("example.com", None),
        ("notlocalhost", None),
        ("\u00e4", None),
        ("", None),
    ],
)
def test_only_a_resolver_knows_names(host: str, expected: Reach | None) -> None:
    """`localhost` means the same everywhere (RFC 6761); any other name may mean anything."""
    assert reach_of_host(host) is expected
