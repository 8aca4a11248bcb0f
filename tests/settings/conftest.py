"""Settings tests: no variables but the test's, and a file that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _bare(bare_environment: None) -> None:
    """Nothing is read but what a test writes."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file that a test writes."""
    return tmp_path / "manifuse.toml"
