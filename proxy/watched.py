"""A file that may change: read again when it did, while what it said last goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

Content = TypeVar("Content")

_EVERY: Final = 1.0  # seconds; a look costs one stat, of a file that is on this machine or in memory

_log: Final = structlog.get_logger("files")


class Watched(Generic[Content]):
    """What a file means.

    It is looked at once a second at most, when somebody asks. What counts is the file that its name leads to:
    Kubernetes changes a secret by letting a symbolic link lead elsewhere. A file that can't be used for a moment
    leaves what it said before, and is told of once.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[bytes], Content],
        clock: Callable[[], float],
        absent: Content | None = None,
    ) -> None:
        """Read it.

        Args:
            read: Says what its bytes mean, or raises `ValueError` in words that hold no secret.
            clock: Seconds that never go backwards.
            absent: What it means that there is no such file at the start; without it, that is an error.

        Raises:
            OSError: It can't be read.
            ValueError: It means nothing.
        """
        self._path = path
        self._read = read
        self._clock = clock
        self._looked = clock()
        self._broken = False
        self._seen: tuple[int, int, int, int] | None = None
        try:
            self._content = self._load()
        except FileNotFoundError:
            if absent is None:
                raise
            self._content = absent

    @property
    def content(self) -> Content:
        """What it means now, as far as is known."""
        if self._clock() - self._looked >= _EVERY:
            self._looked = self._clock()
            self._look()
        return self._content

    def _look(self) -> None:
        try:
            if _identity(self._path.stat()) == self._seen and not self._broken:
                return
            self._content = self._load()
        except (OSError, ValueError) as error:
            is_there_not_yet = self._seen is None and isinstance(error, FileNotFoundError)
            if not self._broken and not is_there_not_yet:
                _log.warning(
                    "a file can't be used, what it said last stays",
                    file=str(self._path),
                    reason=_reason(error),
                )
                self._broken = True
        else:
            self._broken = False

    def _load(self) -> Content:
        """Read it whole; what is remembered of it belongs to the very bytes that were read."""
        with self._path.open("rb") as file:
            identity = _identity(os.fstat(file.fileno()))
            content = self._read(file.read())
        self._seen = identity
        return content


def _reason(error: OSError | ValueError) -> str:
    """Say why without a word of what the file holds; errors of others may repeat it."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if type(error) is ValueError else type(error).__name__


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
