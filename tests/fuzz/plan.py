"""How long to fuzz, and where to begin: from the environment, as `make fuzz` sets it."""

from __future__ import annotations

import os
from typing import Final

SECONDS: Final = float(os.environ.get("MANIFUSE_FUZZ_SECONDS", "0"))
"""For everything together; 0 for a fixed number of inputs."""
SEED: Final = int(os.environ.get("MANIFUSE_FUZZ_SEED", "0"))
"""The same seed tries the same inputs, as long as no line of ours changes."""
