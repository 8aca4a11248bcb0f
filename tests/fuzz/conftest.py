"""No configuration from outside, and the seed in the first lines."""

from __future__ import annotations

import os

import pytest

from fuzz.plan import SECONDS, SEED


def pytest_report_header() -> str:
    """Say how to repeat the run."""
    return f"fuzzing: seed {SEED}, {SECONDS:g} s" if SECONDS else f"fuzzing: seed {SEED}, a few inputs of each kind"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment would lie over every configuration that is read."""
    for name in [name for name in os.environ if name.startswith("MANIFUSE_")]:
        monkeypatch.delenv(name)
