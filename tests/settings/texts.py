"""Configurations as people write them, and what they are refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.settings.load import SettingsInvalid, load

SECRET = "correct horse battery staple"
UPSTREAM = '[[upstream]]\nname = "registry"\nurl = "http://127.0.0.1:5000"\n'


def problems(path: Path | None, **overrides: Any) -> list[str]:
    """Return what *path* is refused for, each as its key and expectation."""
    with pytest.raises(SettingsInvalid) as refused:
        load(path, overrides)
    return [f"{problem.key}: {problem.expected}" for problem in refused.value.problems]


def problems_of(file: Path, text: str) -> list[str]:
    """Write *text* and return what it is refused for."""
    file.write_text(text)
    return problems(file)
