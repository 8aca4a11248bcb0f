"""What SECURITY.md says of tests is so."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
POLICY = (ROOT / "SECURITY.md").read_text()


def test_every_way_has_a_row() -> None:
    """S1 to S18, in their order: what holds each of them, or why it doesn't apply."""
    rows = re.findall(r"^\| S(\d+) \| [^|]+ \| ([^|]+) \|$", POLICY, re.MULTILINE)

    assert [int(number) for number, _ in rows] == list(range(1, 19))
    assert all("`tests/" in told or "doesn't apply: " in told for _, told in rows)


def test_every_test_is_named_and_is_there() -> None:
    """Each file of `tests/security` stands in the table, in the row of its number, and all that is named exists."""
    rows = re.findall(r"^\| S(\d+) \|(.+)\|$", POLICY, re.MULTILINE)
    named = {path: int(number) for number, row in rows for path in re.findall(r"`(tests/security/[^`]+)`", row)}
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "security").glob("test_s[0-9]*.py")}

    assert set(named) == there
    assert all(f"/test_s{number:02}_" in path for path, number in named.items())
    assert all((ROOT / path).exists() for path in re.findall(r"`((?:tests|requirements|docs)/[\w./-]+)`", POLICY))


def test_the_readme_leads_to_it() -> None:
    """Whoever reads the first page finds it."""
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text()
