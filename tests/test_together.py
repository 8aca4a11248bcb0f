"""Which tests one worker runs, where several run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import together
from patience import HANGING


def test_files_and_some_folders_have_one_worker_each(tmp_path: Path) -> None:
    """However many tests they have, and however many workers there are."""
    for name in ("test_a.py", "test_b.py", "e2e/test_c.py", "e2e/test_d.py"):
        file = tmp_path / "tests" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"def test_{number}(): pass\n" for number in range(8)))
    (tmp_path / "tests" / "conftest.py").write_text("from together import pytest_xdist_make_scheduler\n")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {Path(together.__file__).parent}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--verbose", "-p", "xdist", "-n", "2", "tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )
    workers = defaultdict(set)
    for worker, what in re.findall(r"\[(gw\d)\] .*PASSED tests/(e2e|\w+\.py)", done.stdout):
        workers[what].add(worker)

    assert done.returncode == 0, done.stdout
    assert {what: len(found) for what, found in workers.items()} == {"test_a.py": 1, "test_b.py": 1, "e2e": 1}


def test_these_tests_are_handed_out_so(pytestconfig: pytest.Config) -> None:
    """Wherever they are run by several."""
    made_by = [each.function for each in pytestconfig.hook.pytest_xdist_make_scheduler.get_hookimpls()]

    assert together.pytest_xdist_make_scheduler in made_by
