"""Several worker processes behind one port: started, started anew when one dies, and stopped together.

The supervisor opens the sockets, one pair for each worker, all on the same addresses (`SO_REUSEPORT`: the kernel
spreads connections over them), and keeps them for as long as it lives. So a connection that comes while a worker is
being replaced waits for the next one instead of being refused.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
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
_KEY_FILE: Final = "key"  # in a folder that only this user can enter

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
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._failed = 0

    async def run(self, registry: Sequence[socket.socket], admin: Sequence[socket.socket], stop: asyncio.Event) -> int:
        """Run workers on these sockets, one of each kind for each, until *stop*. Returns the exit status."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="manifuse-")))
            environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
            (folder / _KEY_FILE).write_bytes(secrets.token_bytes(32))
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

    def _tell(self, number: signal.Signals) -> None:
        for process in self._running.values():
            if process.returncode is None:
                process.send_signal(number)

    async def _keep(self, post: Post, environment: dict[str, str]) -> None:
        """Start a worker, and another whenever it dies, until all are stopped."""
        pause, loop = _FIRST_PAUSE, asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
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
            mark_process_dead(process.pid, environment["PROMETHEUS_MULTIPROC_DIR"])  # type: ignore[no-untyped-call]  # the library's omission
            if self._stopping.is_set():
                self._failed = self._failed or max(0, status)
                return
            if status == _USAGE:
                self._failed = status  # a configuration that can't be used is no accident
                self._stopping.set()
                return
            pause = _FIRST_PAUSE if loop.time() - began > _YOUNG else min(pause * 2, _LONGEST_PAUSE)
            _log.error("worker died", worker=post.number, status=status, again_in=pause)
            with_stop = asyncio.create_task(self._stopping.wait())
            await asyncio.wait([with_stop], timeout=pause)
            with_stop.cancel()
