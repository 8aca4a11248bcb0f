"""Whether files have changed."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[tuple[int, int, int] | None, ...]


def stamp(*paths: Path) -> Stamp:
    """Return what changes when one of *paths* does, or what a link there leads to: Kubernetes swaps links.

    None stands for a file that isn't there, as between an editor's two steps.
    """
    return tuple(map(_one, paths))


def _one(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
