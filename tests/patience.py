"""How long tests wait for what has to happen."""

from __future__ import annotations

from typing import Final

HANGING: Final = 90.0
"""Seconds after which what a test waits for is taken for hanging: far more than a busy machine needs."""
