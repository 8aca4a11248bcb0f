"""Running the proxy until it is told to stop: as one process, or as workers and their supervisor."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Final

import structlog

from proxy import __version__
from proxy.app import Running, Work, bound, serve
from proxy.settings.keys import Settings
from proxy.siblings import Siblings
from proxy.stamp import stamp
from proxy.supervisor import Post, Supervisor
from proxy.telemetry import Accesses, count_as

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
HEARD: Final = (*STOPPING, signal.SIGHUP)
_WATCH_SECONDS: Final = 2.0  # between two looks at a watched file
_GC_THRESHOLD: Final = 5000  # objects made since the last collection; Python's 700 is for small programs

_OWN_GROUP: Final = Path("/proc/self/cgroup")
_GROUPS: Final = Path("/sys/fs/cgroup")

_log: Final = structlog.get_logger("manifuse")


def allow_files() -> None:
    """Open as many files as this user may: the usual limit at the start is for programs that use select(2)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def cores(own: Path = _OWN_GROUP, root: Path = _GROUPS) -> int:
    """Count the cores that this process may keep busy: a container may see many, and be given little of their time.

    Args:
        own: Says which control group the process is in.
        root: Where control groups are, version 2.
    """
    return max(1, math.ceil(min([len(os.sched_getaffinity(0)), *_quotas(own, root)])))


def _quotas(own: Path, root: Path) -> Iterator[float]:
    """Yield how many cores' time each control group has that the process is within, where it is limited."""
    with suppress(OSError):
        groups = [line.removeprefix("0::/") for line in own.read_text().splitlines() if line.startswith("0::/")]
        for group in groups:
            inside = PurePath() if ".." in group else PurePath(group)  # what is outside a container it can't see
            for folder in (inside, *inside.parents):
                with suppress(OSError, ValueError, ZeroDivisionError):
                    quota, period = (root / folder / "cpu.max").read_text().split()
                    yield int(quota) / int(period)  # no number where there is no limit


async def supervise(settings: Settings, workers: int) -> int:
    """Run worker processes by the same command line. Returns the exit status."""
    stop, reload = told(*STOPPING), told(signal.SIGHUP)
    command = [sys.executable, "-m", "proxy", *sys.argv[1:]]
    supervisor = Supervisor(lambda post: [*command, "--post", str(post)], workers, settings.drain)
    registry, admin = bound(settings.listen, workers), bound(settings.admin_listen, workers)
    addresses = {
        "registry": url(registry[0].getsockname()[:2], secure=_secure(settings)),
        "admin": url(admin[0].getsockname()[:2], secure=settings.tls.admin),
    }
    _log.info("supervising", **addresses, workers=workers, version=__version__)
    running = asyncio.create_task(supervisor.run(registry, admin, stop))
    while not running.done():
        again = asyncio.create_task(reload.wait())
        await asyncio.wait([running, again], return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        if reload.is_set():
            reload.clear()
            supervisor.reload()
    return await running


def _work(post: Post) -> Work:
    """Take over what the supervisor has opened for this worker."""
    registry, admin = (socket.socket(fileno=number) for number in (post.registry, post.admin))
    structlog.contextvars.bind_contextvars(worker=post.number)
    count_as(post.number)
    return Work(registry, admin, Siblings(post.folder, post.number, post.count), post.secret)


async def run(
    settings: Settings,
    load_again: Callable[[], Settings],
    watched: Path | None,
    accesses: Accesses,
    post: Post | None = None,
) -> None:
    """Serve until a signal of `STOPPING`, or until the supervisor of *post* has left.

    Args:
        load_again: Loads the settings anew, on SIGHUP. Raises `SettingsInvalid`.
        watched: A file whose changes mean the same.
        post: What a worker's supervisor has given it.
    """
    # Before anything listens: whoever sees us listening may send a signal.
    stop, reload = told(*STOPPING), told(signal.SIGHUP)
    if post is not None:
        asyncio.get_running_loop().add_reader(post.lifeline, stop.set)
    async with serve(settings, work=_work(post) if post else None, accesses=accesses) as running:
        _log.info(
            "listening",
            registry=url(running.registry, secure=_secure(settings)),
            admin=url(running.admin, secure=settings.tls.admin),
            version=__version__,
        )
        # What the start has made stays: no collection has to look at it, and fewer have to look at all.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        reloading = asyncio.create_task(reload_when(running, load_again, reload, watched))
        await stop.wait()
        reloading.cancel()
        _log.info("stopping", drain=settings.drain)
    _log.info("stopped")


def told(*signals: signal.Signals) -> asyncio.Event:
    """Return an event that one of *signals* sets, one that came before and waits among them."""
    event = asyncio.Event()
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    return event


async def reload_when(
    running: Running, load_again: Callable[[], Settings], reload: asyncio.Event, watched: Path | None
) -> None:
    """Load the configuration anew on *reload*, and when the watched file changes, until cancelled."""
    paths = (watched,) if watched else ()
    seen = stamp(*paths)
    while True:
        try:
            async with asyncio.timeout(_WATCH_SECONDS if watched else None):
                await reload.wait()
        except TimeoutError:
            if stamp(*paths) == seen:
                continue
        reload.clear()
        seen = stamp(*paths)
        await running.reload(load_again)


def _secure(settings: Settings) -> bool:
    return settings.tls.certificate is not None


def url(address: tuple[str, int], *, secure: bool = False) -> str:
    """Return the URL of an address that we listen on."""
    host, port = address
    scheme = "https" if secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
