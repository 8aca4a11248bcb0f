"""What was measured: rows of a table with their targets, written as Markdown and as a chart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

_WIDTH, _LINE, _LEFT, _RIGHT = 1180, 24, 620, 90  # pixels
_MOST = 4.0  # times the target, either way, beyond which a bar is cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A target and what was measured.

    Attributes:
        limit: What the median may not be below, or above where it isn't *at_least*; None where nothing is asked.
        values: One for each repetition; none where it couldn't be measured.
        how: How it was measured, in a sentence or two.
        details: What lies behind the values, a line each.
        missing: Why there are no values.
    """

    what: str
    unit: str
    how: str
    limit: float | None = None
    at_least: bool = True
    values: tuple[float, ...] = ()
    details: tuple[str, ...] = ()
    missing: str = ""

    @property
    def measured(self) -> float:
        """The median."""
        return median(self.values) if self.values else math.nan

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        if self.limit is None or not self.values:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def target(self) -> str:
        """The target as people write it."""
        return "-" if self.limit is None else f"{'≥' if self.at_least else '≤'} {number(self.limit)} {self.unit}"

    def against_target(self, value: float) -> float:
        """Return how many times as good as the target *value* is."""
        if not self.limit or value <= 0:
            return math.nan
        return value / self.limit if self.at_least else self.limit / value


def number(value: float) -> str:
    """Write a number with three digits that count, and no more than it needs."""
    if not math.isfinite(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def spread(values: Sequence[float]) -> str:
    """Write the lowest and the highest."""
    return f"{number(min(values))} to {number(max(values))}" if values else "-"


def summary(name: str, values: Sequence[float], unit: str) -> str:
    """Write what was measured of one contestant."""
    return f"{name}: {number(median(values))} {unit} ({spread(values)})"


def markdown(rows: Iterable[Row], machine: Sequence[str], command: str, chart: str) -> str:
    """Write the whole report."""
    kept = list(rows)
    parts = [
        "# Results of the load test",
        f"Written by `{command}`; [README.md](README.md) says how it measures. Medians of repeated runs, with the "
        "lowest and the highest; every ratio is of runs next to each other, the contestants taking turns on the same "
        "core.",
        "\n".join(f"- {line}" for line in machine),
        f"![what was measured against each target]({chart})",
        "\n".join(table(kept)),
        "## How each was measured, and what lies behind it",
        "\n\n".join(_explained(row) for row in kept),
    ]
    return "\n\n".join(parts) + "\n"


def table(rows: Iterable[Row]) -> list[str]:
    """Write the table, a line each."""
    verdicts = {True: "met", False: "**not met**", None: "-"}
    lines = ["| what | target | measured | lowest to highest | |", "|---|---|---|---|---|"]
    for row in rows:
        measured = f"{number(row.measured)} {row.unit}" if row.values else "not measured"
        lines.append(f"| {row.what} | {row.target} | {measured} | {spread(row.values)} | {verdicts[row.met]} |")
    return lines


def _explained(row: Row) -> str:
    reason = f"\n\nNot measured: {row.missing}." if row.missing else ""
    details = "".join(f"\n- {line}" for line in row.details)
    return f"**{row.what}.** {row.how}{reason}" + (f"\n{details}" if details else "")


def svg(rows: Iterable[Row]) -> str:
    """Draw each row against its target: what reaches the line meets it, on a scale of doublings."""
    drawn = [row for row in rows if row.met is not None]
    height = (len(drawn) + 3) * _LINE
    view = f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="13"'
    legend = "times as good as the target (thin line: lowest to highest)"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {view}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        *(_scale(times, height) for times in (0.25, 0.5, 1.0, 2.0, 4.0)),
        *(part for place, row in enumerate(drawn, 1) for part in _bar(row, place * _LINE)),
        _vertical(_at(1.0), height, 'stroke="#333333" stroke-width="2"'),
        f'<text x="{_at(1.0):.1f}" y="{height - 8}" text-anchor="middle">{legend}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _at(times: float) -> float:
    """Return where *times* the target is, in pixels."""
    kept = min(_MOST, max(1 / _MOST, times)) if math.isfinite(times) else 1 / _MOST
    share = (math.log2(kept) + math.log2(_MOST)) / (2 * math.log2(_MOST))
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _vertical(x: float, height: int, style: str) -> str:
    return f'<line x1="{x:.1f}" y1="{_LINE - 6}" x2="{x:.1f}" y2="{height - 2 * _LINE}" {style}/>'


def _scale(times: float, height: int) -> str:
    place = f'x="{_at(times):.1f}" y="{height - 2 * _LINE + 16}"'
    label = f'<text {place} text-anchor="middle" fill="#555555">{number(times)}x</text>'
    return _vertical(_at(times), height, 'stroke="#dddddd"') + label


def _bar(row: Row, y: int) -> list[str]:
    width = max(1.0, _at(row.against_target(row.measured)) - _LEFT)
    low, high = sorted(_at(row.against_target(value)) for value in (min(row.values), max(row.values)))
    colour = "#2f7d4f" if row.met else "#b5483a"
    label = escape(f"{row.what} ({row.target})")
    return [
        f'<text x="{_LEFT - 10}" y="{y + 13}" text-anchor="end">{label}</text>',
        f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="16" fill="{colour}" fill-opacity="0.75"/>',
        f'<line x1="{low:.1f}" y1="{y + 8}" x2="{high:.1f}" y2="{y + 8}" stroke="#111111"/>',
        f'<text x="{_WIDTH - _RIGHT + 8}" y="{y + 13}">{escape(number(row.measured))}</text>',
    ]
