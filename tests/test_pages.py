"""The project's pages: they lead where they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "config").rglob("*.md")))
DECISIONS = ROOT / "docs" / "decisions"


def links(page: Path) -> list[str]:
    """Return what *page* links to within the project."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [link.partition("#")[0] for link in found if not link.startswith(("http:", "https:", "#"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """What a page links to is there."""
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


def test_every_decision_stands_in_the_table() -> None:
    """Who looks for why something is as it is finds it from the first page."""
    assert sorted(links(DECISIONS / "README.md")) == sorted(
        ["../../ARCHITECTURE.md", *(page.name for page in DECISIONS.glob("*.md") if page.name != "README.md")]
    )


@pytest.mark.parametrize("page", sorted(set(DECISIONS.glob("*.md")) - {DECISIONS / "README.md"}), ids=lambda p: p.stem)
def test_a_decision_says_what_and_why(page: Path) -> None:
    """Each is told the same way, so that one can be looked up in a moment."""
    text = page.read_text()
    assert text.startswith("# ")
    assert [part for part in ("**Decided.**", "**Why.**") if part not in text] == []
