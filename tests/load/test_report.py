"""Medians, the table and the chart."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from loadtest.report import Row, markdown, number, spread, summary, svg, table

FAST = Row(what="fast & <good>", unit="x nginx", how="Quickly.", limit=1.0, values=(1.3, 1.1, 1.2), details=("a line",))
SLOW = Row(what="slow", unit="ms", how="Slowly.", limit=5.0, at_least=False, values=(9.0, 11.0))
ABSENT = Row(what="absent", unit="MiB", how="Not at all.", limit=60.0, at_least=False, missing="no peer")
OPEN = Row(what="open", unit="s", how="Somehow.", values=(1234.5,))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00512, "0.00512"),
        (0.98765, "0.988"),
        (1.0, "1"),
        (1.25, "1.25"),
        (50.0, "50"),
        (12.345, "12.3"),
        (64984.12, "64,984"),
        (float("nan"), "-"),
    ],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    """Numbers have three digits that count."""
    assert number(value) == text


def test_targets_are_judged_by_the_median() -> None:
    """Targets are judged by the median."""
    assert [row.met for row in (FAST, SLOW, ABSENT, OPEN)] == [True, False, None, None]
    assert FAST.measured == 1.2
    assert Row(what="", unit="", how="", limit=1.0, values=(1.0,)).met


def test_what_is_half_the_time_is_twice_as_good() -> None:
    """What is half the time is twice as good."""
    assert SLOW.against_target(2.5) == 2.0
    assert FAST.against_target(2.0) == 2.0


def test_spread_and_summary() -> None:
    """What was measured is told with its lowest and highest."""
    assert spread(()) == "-"
    assert summary("nginx", [3.0, 1.0, 2.0], "s") == "nginx: 2 s (1 to 3)"


def test_table() -> None:
    """A row that wasn't measured is in the table, too."""
    assert table([FAST, SLOW, ABSENT, OPEN])[2:] == [
        "| fast & <good> | ≥ 1 x nginx | 1.2 x nginx | 1.1 to 1.3 | met |",
        "| slow | ≤ 5 ms | 10 ms | 9 to 11 | **not met** |",
        "| absent | ≤ 60 MiB | not measured | - | - |",
        "| open | - | 1,234 s | 1,234 to 1,234 | - |",
    ]


def test_report_has_the_machine_and_the_reasons() -> None:
    """Report has the machine and the reasons."""
    text = markdown([FAST, ABSENT], ["CPU: one"], "make loadtest", "RESULTS.svg")

    assert "- CPU: one\n" in text
    assert "**fast & <good>.** Quickly.\n\n- a line" in text
    assert "Not measured: no peer." in text
    assert "](RESULTS.svg)" in text


def test_chart_is_xml_with_a_bar_for_each_judged_row() -> None:
    """Chart is xml with a bar for each judged row."""
    root = ET.fromstring(svg([FAST, SLOW, ABSENT, OPEN]))  # noqa: S314 - our own
    name = "{http://www.w3.org/2000/svg}"
    bars = [each for each in root.iter(f"{name}rect") if each.get("fill-opacity")]

    assert [each.get("fill") for each in bars] == ["#2f7d4f", "#b5483a"]
    assert any(each.text == "fast & <good> (≥ 1 x nginx)" for each in root.iter(f"{name}text"))


def test_chart_cuts_off_what_is_far_beyond() -> None:
    """Chart cuts off what is far beyond."""
    far = Row(what="far", unit="", how="", limit=1.0, values=(1000.0, 0.0))
    root = ET.fromstring(svg([far]))  # noqa: S314 - our own
    width = float(root.get("viewBox", "").split()[2])

    for each in root.iter():
        if each.get("width"):
            assert float(each.get("width", 0)) <= width
