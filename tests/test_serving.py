"""What the process finds out of where it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.serving import cores


@pytest.fixture(autouse=True)
def _sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on a machine that has them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


@pytest.mark.parametrize(
    ("own", "limits", "number"),
    [
        ("0::/\n", {}, 16),
        ("0::/\n", {"": "max 100000"}, 16),
        ("0::/\n", {"": "200000 100000"}, 2),
        ("0::/\n", {"": "150000 100000"}, 2),
        ("0::/\n", {"": "10000 100000"}, 1),
        ("0::/\n", {"": "3200000 100000"}, 16),
        ("0::/a.slice/b.service\n", {"a.slice/b.service": "max 100000", "a.slice": "300000 100000"}, 3),
        ("0::/a.slice/b.service\n", {"a.slice/b.service": "400000 100000", "a.slice": "max 100000"}, 4),
        ("0::/../../other\n", {"": "200000 100000"}, 2),
        ("4:memory:/\n0::/\n", {"": "200000 100000"}, 2),
        ("4:memory:/\n", {"": "200000 100000"}, 16),
        ("0::/\n", {"": "no limit"}, 16),
        ("0::/\n", {"": "1 0"}, 16),
    ],
)
def test_as_many_cores_as_there_is_time_for(own: str, limits: dict[str, str], number: int, tmp_path: Path) -> None:
    """A container may see all cores of a large machine, and be given the time of one."""
    (tmp_path / "own").write_text(own)
    root = tmp_path / "cgroup"
    for folder, limit in limits.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "cpu.max").write_text(limit + "\n")

    assert cores(tmp_path / "own", root) == number


def test_without_control_groups_the_cores_count(tmp_path: Path) -> None:
    """As elsewhere than on Linux."""
    assert cores(tmp_path / "nowhere", tmp_path) == 16
