"""Which tests one worker runs, where several run them: what a file or a folder sets up is set up once.

xdist's own way, `--dist loadgroup`, writes groups into the names of tests. Since pytest 9.2 they don't stay there, and
each test goes wherever there is time.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

# What tests of these folders start, daemons and registries, is started once. Of the rest each file has a worker.
_FOLDERS: Final = ("chaos", "conformance", "crash", "e2e", "load")


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out files, and some folders, as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        """Return what the test belongs to."""
        file = nodeid.partition("::")[0]
        folder = PurePath(file).parts[:2]
        return "/".join(folder) if folder[-1] in _FOLDERS else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Let the workers have tests that way."""
    return Together(config, log)
