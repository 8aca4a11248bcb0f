"""Several worker processes behind one port: started, started anew when one dies, and stopped together.

The supervisor opens the sockets, one pair for each worker, all on the same addresses (`SO_REUSEPORT`: the kernel
spreads connections over them), and keeps them for as long as it lives. So a connection that comes while a worker is
being replaced waits for the next one instead of being refused.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from prometheus_client.multiprocess import mark_process_dead

_FIRST_PAUSE: Final = 0.2  # seconds before a worker that died is started anew; twice as long each time it dies young
_LONGEST_PAUSE: Final = 10.0
_YOUNG: Final = 30.0  # seconds
_MARGIN: Final = 10.0  # seconds beside `drain` that a worker has to leave, then it is killed
_USAGE: Final = 2
_TOLD: Final = (0, -signal.SIGTERM, -signal.SIGINT)  # ends of a worker that somebody else has told to stop
_KEY_FILE: Final = "key"  # in a folder that only this user can enter
_PREFIX: Final = "manifuse-workers-"
_MEMORY: Final = Path("/dev/shm")  # only for folders that nobody else can enter  # noqa: S108  # nosec B108
_ROOM: Final = 32 << 20  # bytes, more than the counters of 64 workers take
_LOGIN_USERS: Final = range(1000, 60_001)  # as distributions number them; others are services

_log: Final = structlog.get_logger("workers")


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker is given: its number of how many, descriptors, and the workers' folder.

    Attributes:
        registry, admin: Its sockets to listen on.
        lifeline: The end of a pipe that ends when the supervisor does, however it ends.
    """

    number: int
    count: int
    registry: int
    admin: int
    lifeline: int
    folder: Path

    def __str__(self) -> str:
        """Write it as the hidden option that a worker is started with."""
        return f"{self.number},{self.count},{self.registry},{self.admin},{self.lifeline},{self.folder}"

    @classmethod
    def parse(cls, text: str) -> Post:
        """Read what `str` wrote. Raises `ValueError`."""
        *numbers, folder = text.split(",", 5)
        number, count, registry, admin, lifeline = map(int, numbers)
        return cls(number, count, registry, admin, lifeline, Path(folder))

    @property
    def secret(self) -> bytes:
        """What all workers of this service share and nobody else can read."""
        return (self.folder / _KEY_FILE).read_bytes()


class Supervisor:
    """Keeps *count* workers running."""

    def __init__(self, command: Callable[[Post], Sequence[str]], count: int, drain: float) -> None:
        """Take what is needed.

        Args:
            command: How a worker is started.
            drain: Seconds that a worker lets requests finish when it is told to stop.
        """
        self._command = command
        self._count = count
        self._drain = drain
        self._secret = secrets.token_bytes(32)
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._failed = 0

    async def run(self, registry: Sequence[socket.socket], admin: Sequence[socket.socket], stop: asyncio.Event) -> int:
        """Run workers on these sockets, one of each kind for each, until *stop*. Returns the exit status."""
        with ExitStack() as stack:
            folder = stack.enter_context(shared_folder())
            environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
            lifeline, ours = os.pipe()
            stack.callback(os.close, ours)
            stack.callback(os.close, lifeline)
            posts = [
                Post(number, self._count, registry[number].fileno(), admin[number].fileno(), lifeline, folder)
                for number in range(self._count)
            ]
            keeping = [asyncio.create_task(self._keep(post, environment)) for post in posts]
            waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(self._stopping.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            for socks in (registry, admin):
                for sock in socks:
                    sock.close()
            self._tell(signal.SIGTERM)
            _, late = await asyncio.wait(keeping, timeout=self._drain + _MARGIN)
            self._tell(signal.SIGKILL)
            for task in (*waiting, *late):
                task.cancel()
            await asyncio.wait([*waiting, *keeping])
        return self._failed

    def reload(self) -> None:
        """Let every worker load the configuration anew."""
        self._tell(signal.SIGHUP)

    def _furnish(self, folder: Path) -> None:
        """Put into *folder* what a worker needs there, once more where somebody has cleared it away."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if not (folder / _KEY_FILE).exists():
            (folder / _KEY_FILE).write_bytes(self._secret)

    def _tell(self, number: signal.Signals) -> None:
        for process in self._running.values():
            if process.returncode is None:
                process.send_signal(number)

    async def _keep(self, post: Post, environment: dict[str, str]) -> None:
        """Start a worker, and another whenever it dies, until all are stopped."""
        pause, first, loop = _FIRST_PAUSE, True, asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            try:
                status = await self._work(post, environment)
            except OSError as error:  # its socket stays open, and somebody has to take what comes there
                _log.error("worker can't be started", worker=post.number, error=str(error), again_in=pause)
            else:
                if self._stopping.is_set():
                    self._failed = self._failed or max(0, status)
                    return
                if status == _USAGE and first:
                    self._failed = status  # a configuration that can't be used is no accident
                    self._stopping.set()
                    return
                first = False  # from now on a file may be broken, and others go by what stood in it
                pause = _FIRST_PAUSE if loop.time() - began > _YOUNG else pause
                if status in _TOLD:
                    _log.info("worker stopped", worker=post.number, status=status, again_in=pause)
                else:
                    _log.error("worker died", worker=post.number, status=status, again_in=pause)
            with_stop = asyncio.create_task(self._stopping.wait())
            await asyncio.wait([with_stop], timeout=pause)
            with_stop.cancel()
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _work(self, post: Post, environment: dict[str, str]) -> int:
        """Start a worker and wait for its end. Returns its status. Raises `OSError` where none can be started."""
        self._furnish(post.folder)
        with _waiting(signal.SIGHUP):
            process = await asyncio.create_subprocess_exec(
                *self._command(post),
                env=environment,
                pass_fds=(post.registry, post.admin, post.lifeline),
                start_new_session=True,  # a terminal's Ctrl-C is the supervisor's to pass on
            )
        self._running[post.number] = process
        if self._stopping.is_set():
            process.terminate()
        status = await process.wait()
        mark_process_dead(post.number, environment["PROMETHEUS_MULTIPROC_DIR"])  # type: ignore[no-untyped-call]  # the library's omission
        return status


@contextmanager
def shared_folder(memory: Path = _MEMORY, room: int = _ROOM, user: int | None = None) -> Iterator[Path]:
    """Make a folder for the workers of *user*, and clear away those of supervisors that were killed.

    Its place is *memory*, where that has *room*: on a disk that is full whoever counts would be killed, as counters are
    mapped files; folders for temporary files are cleared of what is some days old, and are missing in containers whose
    file system is read-only. What users who log in have in memory, though, may be cleared away when they log out.
    """
    usual = _temporary()
    places = (usual, memory) if (os.geteuid() if user is None else user) in _LOGIN_USERS else (memory, usual)
    place = next((each for each in places if _has_room(each, room)), usual)
    for left in place.glob(f"{_PREFIX}*"):
        with suppress(OSError), _locked(left, fcntl.LOCK_NB):
            if left.stat().st_uid == os.geteuid() and (left / _KEY_FILE).exists():  # else it is just being made
                shutil.rmtree(left, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True) as made,
        _locked(Path(made)),
    ):
        yield Path(made)


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path("/tmp")  # it can't be used; whoever tries hears why  # noqa: S108  # nosec B108


def _has_room(folder: Path, size: int) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK) and disk.f_bavail * disk.f_frsize >= size


@contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    """Hold the lock of *folder*, which ends with this process. Raises `OSError` where it can't be had."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _waiting(number: signal.Signals) -> Iterator[None]:
    """Let a signal to a process that is started meanwhile wait until it listens, as an interpreter's start takes time.

    A child inherits that from asyncio's loop, not from uvloop's. It is forked before the loop does anything else.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
