"""What processes cost: CPU time and resident memory of a process and its descendants, from proc(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20


def seconds(pid: int) -> float:
    """Return user and system time of *pid* and its living descendants."""
    return sum(sum(_fields(each)[11:13]) for each in tree(pid)) * _TICK


def resident(pid: int) -> float:
    """Return resident memory of *pid* and its living descendants, MiB; pages that they share count for each."""
    return sum(_fields(each)[21] for each in tree(pid)) * _PAGE / _MIB


def tree(pid: int) -> Iterator[int]:
    """Yield *pid* and its living descendants."""
    yield pid
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from tree(int(child))


def _fields(pid: int) -> list[int]:
    """Return the numbers of stat, from the third field on, behind the name in parentheses; zeros for who has left."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return [0] * 50
    return [0, *map(int, line.split()[1:])]
