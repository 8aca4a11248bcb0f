"""What `.ci/run` lets pass: tests that fail once, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from patience import HANGING

ROOT = Path(__file__).parents[2]

# Stands in for make: of the targets one fails, perhaps with tests; what failed last passes when it is tried again.
MAKE = """#!/bin/sh
echo "$1" >> targets
last=.pytest_cache/v/cache/lastfailed
case "$1" in
  again) test -e $last && rm $last || exit 5 ;;
  "$FAILING") test -z "$TESTS" || { mkdir -p .pytest_cache/v/cache && echo '{}' > $last; }; exit 2 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which an earlier run has left a test that failed."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    for path, text in ((".ci/peers", "#!/bin/sh\n"), ("bin/make", MAKE)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    last = tmp_path / ".pytest_cache" / "v" / "cache" / "lastfailed"
    last.parent.mkdir(parents=True)
    last.write_text("{}")
    return tmp_path


def run(checkout: Path, failing: str, *, tests: bool) -> subprocess.CompletedProcess[str]:
    """Run it there, with one target *failing*, because of *tests* or before there were any."""
    environment = os.environ | {
        "PATH": f"{checkout / 'bin'}:{os.environ['PATH']}",
        "FAILING": failing,
        "TESTS": "some" if tests else "",
    }
    return subprocess.run(
        [checkout / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False, timeout=HANGING
    )


@pytest.mark.parametrize("failing", ["test", "full-path"])
def test_tests_that_pass_alone_are_only_told_of(checkout: Path, failing: str) -> None:
    """They are unsteady, and everything else is looked at, too."""
    done = run(checkout, failing, tests=True)

    assert done.returncode == 0
    assert f"warning: make {failing}: " in done.stderr
    assert (checkout / "targets").read_text().split()[-1] == "audit"


@pytest.mark.parametrize("failing", ["run", "test", "full-path", "audit"])
def test_what_fails_without_a_test_fails(checkout: Path, failing: str) -> None:
    """A type that is wrong is no test: those that failed in an earlier run don't stand in for it."""
    assert run(checkout, failing, tests=False).returncode != 0
