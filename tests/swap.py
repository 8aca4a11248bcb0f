"""Files that are replaced."""

from __future__ import annotations

from pathlib import Path


def swap(path: Path, content: bytes) -> None:
    """Put another file in the place of *path*, as whoever changes one well does.

    Written in place twice within a tick of the kernel's clock, 4 ms or 10, a file of the same size looks unchanged.
    """
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.rename(path)
