"""Shares of cores for contestants, by the kernel's CPU controller (cgroups, version 1 or 2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.cpu import tree
from loadtest.peers import Missing

_PERIOD = 100_000  # microseconds, the kernel's default
_OLD = Path("/sys/fs/cgroup/cpu")
_NEW = Path("/sys/fs/cgroup")


@contextmanager
def held(pid: int, share: float) -> Iterator[None]:
    """Give *pid* and each of its descendants no more than *share* of a core while the block runs. Raises `Missing`."""
    groups: list[Path] = []
    root = _OLD if (_OLD / "cgroup.procs").exists() else _NEW
    try:
        for each in tree(pid):
            group = root / f"manifuse-load-{os.getpid()}-{each}"
            group.mkdir()
            groups.append(group)
            _limit(group, round(share * _PERIOD))
            (group / "cgroup.procs").write_text(str(each))
    except OSError as error:
        _free(root, groups)
        raise Missing(f"the kernel's CPU controller can't be used: {error}") from error
    try:
        yield
    finally:
        _free(root, groups)


def _limit(group: Path, quota: int) -> None:
    if (group / "cpu.cfs_quota_us").exists():
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} {_PERIOD}")


def _free(root: Path, groups: list[Path]) -> None:
    """Return the processes to where they were, and remove the groups."""
    for group in groups:
        for pid in (group / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(pid)
        group.rmdir()
