"""What repositories were seen to hold."""

from __future__ import annotations

from images import ARM, X86
from proxy.oci.reference import Digest
from proxy.virtual import holdings as module
from proxy.virtual.holdings import Holdings

ONE = Digest.of(b"one")


def test_only_what_was_seen_there() -> None:
    """Elsewhere it wasn't, nor was anything else."""
    holdings = Holdings()
    holdings.saw(("hub", X86), ONE)
    assert holdings.has(("hub", X86), ONE)
    assert not holdings.has(("hub", ARM), ONE)
    assert not holdings.has(("quay", X86), ONE)
    assert not holdings.has(("hub", X86), Digest.of(b"two"))


def test_the_oldest_is_forgotten() -> None:
    """It costs a question to see it again."""
    holdings = Holdings()
    holdings.saw(("hub", X86), ONE)
    for number in range(module._MOST):
        holdings.saw(("hub", X86), Digest.of(str(number).encode()))
    assert not holdings.has(("hub", X86), ONE)
