"""The tables of docs/conformance.md, written from what a run saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from conformance.suite import Difference

BEGIN: Final = "<!-- conformance: begin (`make conformance` writes what is between these lines) -->"
END: Final = "<!-- conformance: end -->"
_HEAD: Final = "| test | registry alone | through manifuse |\n|---|---|---|\n"
_ORDER: Final = ("pass", "skip", "off", "fail")

Run = tuple[str, str]  # the registry and what was done
Runs = dict[Run, Sequence[Difference]]


def section(run: Run, differences: Sequence[Difference]) -> str:
    """Return the sums of one run, and the table of all that isn't a pass on both sides."""
    alone, through = (
        sum((getattr(each, side) for each in differences), Counter[str]()) for side in ("alone", "through")
    )
    # What differs comes first; else they stay in the suite's order.
    told = sorted((each for each in differences if not each.plain), key=lambda each: each.alone == each.through)
    rows = "".join(f"| {each.test} | {_cell(each.alone)} | {_cell(each.through)} |\n" for each in told)
    better = sum(not each.worse and each.alone != each.through for each in differences)
    worse = sum(each.worse for each in differences)
    sums = (
        f"Of the registry alone, {alone.total()} results: {_sums(alone)}. Through manifuse, {through.total()}: "
        f"{_sums(through)}.\nBetter through manifuse: {better} tests. Worse: {worse}.\n"
    )
    return f"## {run[0]}, {run[1]}\n\n{sums}" + (f"\n{_HEAD}{rows}" if rows else "")


def write(page: Path, runs: Runs) -> None:
    """Write the tables into the page."""
    sections = "\n".join(section(run, differences) for run, differences in runs.items())
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{sections}\n{END}{after}")


def _sums(counted: Counter[str]) -> str:
    return ", ".join(f"{counted[word]} {word}" for word in _ORDER if counted[word])


def _cell(counted: Counter[str]) -> str:
    """Return what a test found; how often only matters where it ran often and differed."""
    if len(counted) <= 1:
        return next(iter(counted), "not run")
    return ", ".join(f"{counted[word]} {word}" for word in _ORDER if counted[word])
