"""Tests of `config/kubernetes`: what manifuse reads in a pod, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from pods import Pod
from proxy.settings.keys import Settings
from proxy.settings.load import load


@pytest.fixture(autouse=True)
def _bare(bare_environment: None) -> None:
    """No variables but those of a pod."""


@pytest.fixture
def settings(pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What manifuse reads in the container: the file that is mounted, and the environment over it."""
    file = tmp_path / "manifuse.toml"
    file.write_text(pod.configuration)
    for name, value in pod.manifuse.environment.items():
        if name.startswith("MANIFUSE_"):
            monkeypatch.setenv(name, value)
    return load(file)
