"""No configuration from outside, and the seed in the first lines."""

from __future__ import annotations

import pytest

from fuzz.plan import SECONDS, SEED


def pytest_report_header() -> str:
    """Say how to repeat the run."""
    return f"fuzzing: seed {SEED}, {SECONDS:g} s" if SECONDS else f"fuzzing: seed {SEED}, a few inputs of each kind"


@pytest.fixture(autouse=True)
def _bare(bare_environment: None) -> None:
    """Nothing is read but what a test writes."""
