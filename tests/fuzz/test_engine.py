"""The fuzzer finds what it is there to find."""

from __future__ import annotations

import re
from random import Random

import pytest

from fuzz import engine
from fuzz.engine import Hang, Target, explore, grown, limited, run, smallest
from proxy.oci.mediatype import Accept, bare
from proxy.oci.reference import Tag


def target(check: engine.Check, *seeds: bytes) -> Target:
    """Return a target that nobody has found anything for."""
    return Target("none", check, seeds or (b"tag",), (b"!",))


def _fails(data: bytes) -> None:
    if b"!" in data and len(data) > 3:
        raise KeyError("a bug")


def _reads(data: bytes) -> None:
    Tag.parse(data.decode())


def test_an_undeclared_error_is_found_once_and_made_small() -> None:
    """The error of one place is told once, with an input of which no part could be left out."""
    one = target(_fails)
    ((data, error),) = explore(one, 0, lambda tried: tried < 500)

    assert isinstance(error, KeyError)
    assert len(smallest(one, data, error)) == 4


def test_what_reaches_new_lines_is_kept() -> None:
    """Lines of ours are seen, and others aren't."""
    lines = run(target(_reads), b"1.0")

    assert {code.co_name for code, _ in lines} == {"parse"}


def test_too_many_lines_are_told() -> None:
    """Work for the square of the length is found by counting."""

    def squared(data: bytes) -> None:
        for _ in range(len(data) ** 2 // 40):
            bare("a/b")
            Accept.parse(["a"])

    run(target(squared), b"x" * 100)
    with pytest.raises(AssertionError, match="cost"):
        run(target(squared), b"x" * 2000)


def test_a_slow_expression_is_told() -> None:
    """An expression that backtracks is interrupted."""

    def slow() -> None:
        with limited(0.2):
            re.fullmatch(rb"(a+)+b", b"a" * 64)

    with pytest.raises(Hang):
        slow()


def test_inputs_grow_to_a_megabyte() -> None:
    """A part is repeated."""
    assert (1 << 20) <= len(grown(target(_fails), b"abc", Random(0))) < (1 << 20) + 16
