"""Changing bytes."""

from __future__ import annotations

from random import Random

from fuzz.mutation import MAX_INPUT, Mutator

_JSON = b'{"size":12,"names":["a"],"none":null}'


def changed(seed: int, data: bytes = _JSON, times: int = 300) -> list[bytes]:
    """Change *data* many times."""
    mutator = Mutator(Random(seed), [b"WORD"])
    return [mutator.mutate(data, [data, b"other"]) for _ in range(times)]


def test_a_seed_makes_the_same_inputs() -> None:
    """What was found can be found again."""
    assert changed(1) == changed(1)
    assert changed(1) != changed(2)


def test_inputs_are_many_and_have_an_end() -> None:
    """Nearly each is another one, with words of the format and nesting among them."""
    found = changed(1)

    assert len(set(found)) > len(found) * 0.8
    assert max(map(len, found)) <= MAX_INPUT
    assert any(b"WORD" in each for each in found)
    assert any(b"[" * 1000 in each for each in found)


def test_nothing_can_be_changed_too() -> None:
    """An empty input is one to begin with."""
    assert any(changed(1, b"", 50))
