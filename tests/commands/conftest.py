"""Command tests: configurations to call them with, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.calls import CONFIG, RULE, written
from scripted import Origin


@pytest.fixture(autouse=True)
def _own_cache(bare_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands keep what they learn in the test's folder, and read no configuration but the test's."""
    monkeypatch.setenv("MANIFUSE_CACHE__DIR", str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with an upstream that nobody asks."""
    return written(tmp_path, CONFIG.replace("URL", "http://127.0.0.1:9"))


@pytest.fixture
def merging(tmp_path: Path, origin: Origin) -> Path:
    """A configuration that merges what is pushed to the origin."""
    return written(tmp_path, CONFIG.replace("URL", origin.url) + RULE)
