"""manifuse: a registry proxy that merges arch-specific images into one index at pull time."""

import sys

__version__ = "0.1.0"

# structlog imports rich where it finds it, to draw tracebacks with: 5 MiB that a service never needs. It finds none.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # how the import system is told so
    import structlog  # noqa: F401 - for the one import that comes without rich

    del sys.modules["rich"]
