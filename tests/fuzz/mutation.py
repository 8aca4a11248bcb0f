"""Changing bytes: what a fuzzer does to an input that it has."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

MAX_INPUT: Final = 8192  # bytes; what parsers do with more is asked by repeating a part, in `engine.grown`
_NASTY: Final = (
    b"\0",
    b"\r\n",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b"%",
    b"%00",
    b"%2f",
    b"%ff",
    b"..",
    b"/",
    b"\\",
    b'"',
    b"'",
)
_NUMBERS: Final = (b"0", b"-1", b"1", b"99999999999999999999", b"18446744073709551616", b"1e999", b"0x10", b"\xd9\xa1")
_LETTERS: Final = (
    "\N{KELVIN SIGN}",
    "\N{LATIN SMALL LETTER DOTLESS I}",
    "\N{FULLWIDTH SOLIDUS}",
    "\N{ZERO WIDTH SPACE}",
)
_VALUE: Final = re.compile(rb'"[^"\n]*"\s*:|("[^"\n]*"|-?\d[\d.]*|null|true|false|\[\]|\{\})')
_VALUES: Final = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"-1",
    b"1e308",
    b"18446744073709551615",
    b'"\\u0000"',
    b'[""]',
)
_BRACKETS: Final = ((b"[", b"]"), (b'{"a":', b"}"), (b'"', b'"'), (b"{", b"}"))
_TOKENS: Final = (*_NASTY, *_NUMBERS, b"\xff", b"\xed\xa0\x80", *(letter.encode() for letter in _LETTERS))


class Mutator:
    """Makes inputs of inputs. The same seed of *random* makes the same ones.

    Args:
        words: What the format knows by heart: a flipped bit seldom makes one of them.
    """

    def __init__(self, random: Random, words: Sequence[bytes] = ()) -> None:
        self._random = random
        self._tokens = (*words, *words, *_TOKENS)
        self._ways: tuple[Callable[[bytes], bytes], ...] = (
            self._flip,
            self._replace,
            self._insert,
            self._insert,
            self._delete,
            self._repeat,
            self._move,
            self._nest,
            self._change_value,
            self._drop_line,
        )

    def mutate(self, data: bytes, others: Sequence[bytes]) -> bytes:
        """Change *data* in a few ways, sometimes with a part of one of *others*."""
        for _ in range(1 << self._random.randrange(4)):
            data = self._splice(data, others) if self._random.random() < 0.1 else self._random.choice(self._ways)(data)
        return data[:MAX_INPUT]

    def _span(self, data: bytes) -> tuple[int, int]:
        start = self._random.randrange(len(data) + 1)
        return start, min(len(data), start + 1 + int(self._random.expovariate(0.1)))

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        at = self._random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << self._random.randrange(8))]) + data[at + 1 :]

    def _replace(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + self._random.choice(self._tokens) + data[end:]

    def _insert(self, data: bytes) -> bytes:
        start, _ = self._span(data)
        return data[:start] + self._random.choice(self._tokens) + data[start:]

    def _delete(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[end:]

    def _repeat(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:end] + data[start:end] * (1 << self._random.randrange(8)) + data[end:]

    def _move(self, data: bytes) -> bytes:
        start, end = self._span(data)
        rest = data[:start] + data[end:]
        at = self._random.randrange(len(rest) + 1)
        return rest[:at] + data[start:end] + rest[at:]

    def _nest(self, data: bytes) -> bytes:
        """Put brackets around a part."""
        start, end = self._span(data)
        before, after = self._random.choice(_BRACKETS)
        return data[:start] + before + data[start:end] + after + data[end:]

    def _change_value(self, data: bytes) -> bytes:
        """Change a value as JSON and TOML have them: for another type, or one as deep as parsers allow."""
        values = [value for value in _VALUE.finditer(data) if value[1]]
        if not values:
            return data
        value = self._random.choice(values)
        if self._random.random() < 0.5:
            other = self._random.choice([each[0] for each in values] + list(_VALUES))
        else:
            before, after = self._random.choice(_BRACKETS[:2])
            depth = self._random.choice([1, 2, 30, 1010])
            other = before * depth + value[0] + after * depth
        return data[: value.start()] + other + data[value.end() :]

    def _drop_line(self, data: bytes) -> bytes:
        lines = data.split(b"\n")
        del lines[self._random.randrange(len(lines))]
        return b"\n".join(lines)

    def _splice(self, data: bytes, others: Sequence[bytes]) -> bytes:
        other = self._random.choice(others) if others else data
        return data[: self._random.randrange(len(data) + 1)] + other[self._random.randrange(len(other) + 1) :]
