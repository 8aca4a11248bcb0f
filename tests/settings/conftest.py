"""Settings tests: no variables but the test's, and a file that it writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have set variables of ours."""
    for name in [name for name in os.environ if name.startswith("MANIFUSE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file that a test writes."""
    return tmp_path / "manifuse.toml"
