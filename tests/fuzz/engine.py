"""A fuzzer's loop: inputs that reach new lines of ours are kept, and changed again.

It traces lines of `proxy` alone, so it also counts them: an input may cost a number of lines that grows with its
length, and no more. What regular expressions do isn't lines; `grown` makes inputs of a megabyte, which whoever needs
time for the square of the length doesn't end.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any, Final

import proxy
from fuzz.mutation import Mutator

CORPUS: Final = Path(__file__).parent / "corpus"
_OURS: Final = str(Path(proxy.__file__).parent)
_GROWN: Final = 1 << 20  # bytes
_CPU: Final = 20.0  # seconds of CPU for one input; linear readers of a megabyte need less than one
_FREE: Final = 4000  # lines that any input may cost

Check = Callable[[bytes], None]
"""Reads an input, and raises what the reader doesn't declare, or `AssertionError` for a property that doesn't hold."""


class Hang(Exception):
    """An input took longer than any should."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads what others wrote.

    Attributes:
        seeds: Inputs as they should be.
        words: What the format knows by heart.
        lines: Lines of ours that it may cost to read a byte.
        tries: Inputs for each run of the tests.
        grows: Whether inputs of a megabyte may come, from the network; configuration files are the operator's own.
    """

    name: str
    check: Check
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    lines: int = 60
    tries: int = 1200
    grows: bool = True

    @property
    def corpus(self) -> list[bytes]:
        """The seeds, and what was found once."""
        return [*self.seeds, *(path.read_bytes() for path in found(self.name))]


def found(name: str) -> list[Path]:
    """Return the files of the corpus for a target."""
    return sorted((CORPUS / name).glob("*")) if (CORPUS / name).is_dir() else []


def keep(name: str, data: bytes) -> Path:
    """Write an input that found something into the corpus."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def run(target: Target, data: bytes) -> set[tuple[CodeType, int]]:
    """Let *target* read *data*; return the lines that it came by. Raises what is wrong."""
    lines, count = set[tuple[CodeType, int]](), 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            lines.add((frame.f_code, frame.f_lineno))
        return line

    def call(frame: FrameType, event: str, argument: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(_OURS) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        with limited():
            target.check(data)
    finally:
        sys.settrace(before)
    most = _FREE + target.lines * len(data)
    assert count <= most, f"{len(data)} bytes cost {count} lines, at most {most} were expected"
    return lines


def explore(target: Target, seed: int, more: Callable[[int], bool]) -> Iterator[tuple[bytes, Exception]]:
    """Change inputs for as long as *more* says, given how many were tried; yield each that finds something new.

    Of inputs that fail in the same place the first one is told.
    """
    random = Random(f"{seed}:{target.name}")
    mutator, pool = Mutator(random, target.words), target.corpus
    seen, told = set[tuple[CodeType, int]](), set[str]()
    for data in pool:
        seen |= run(target, data)
    tried = 0
    while more(tried):
        tried += 1
        data = mutator.mutate(random.choice(pool[-20:] if random.random() < 0.3 else pool), pool)
        try:
            lines = run(target, data)
        except Exception as error:  # noqa: BLE001 - whatever is wrong is what is looked for
            if (place := _place(error)) not in told:
                told.add(place)
                yield data, error
            continue
        if not lines <= seen:
            seen |= lines
            pool.append(data)


def grown(target: Target, data: bytes, random: Random) -> bytes:
    """Return *data* with a part of it repeated until it has a megabyte."""
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + 1 + random.randrange(8))
    part = data[start:end] or b" "
    return data[:end] + part * (_GROWN // len(part)) + data[end : end * random.randrange(2)]


@contextmanager
def limited(seconds: float = _CPU) -> Iterator[None]:
    """Raise `Hang` when the block has used *seconds* of this process's CPU; a loaded machine is no reason."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hang(f"the input took more than {seconds:g} s of CPU")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def smallest(target: Target, data: bytes, error: Exception) -> bytes:
    """Return less of *data* that fails in the same place: parts are left out while it does."""
    place, size = _place(error), len(data) // 2
    while size:
        at = 0
        while at < len(data):
            less = data[:at] + data[at + size :]
            if _fails(target, less, place):
                data = less
            else:
                at += size
        size //= 2
    return data


def _fails(target: Target, data: bytes, place: str) -> bool:
    try:
        run(target, data)
    except Exception as error:  # noqa: BLE001 - as above
        return _place(error) == place
    return False


def _place(error: Exception) -> str:
    """Say where an error comes from: its type and the innermost line of ours or of the check."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(_OURS) or name.endswith("checks.py"):
            place = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} {place}"


def report(target: str, seed: int, findings: Sequence[tuple[bytes, Exception]]) -> str:
    """Write what was found so that it can be repeated."""
    lines = [f"fuzzing {target} with seed {seed} found {len(findings)} inputs, now in {CORPUS / target}:"]
    for error in {id(error): error for _, error in findings}.values():
        lines += [f"  {data[:200]!r}" for data, its in findings if its is error]
        lines.append(f"    {type(error).__name__}: {str(error)[:2000]}")
    return "\n".join(lines)
