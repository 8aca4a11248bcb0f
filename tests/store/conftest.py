"""Store tests: what the conformance classes assert is explained like any other assertion."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("store.conformance")
