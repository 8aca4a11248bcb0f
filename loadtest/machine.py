"""The machine: which cores take part, and what it is."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from e2e.peers import installed

_FOLDER_NEEDS = 6 << 30  # bytes: files of many known tags, each a page, and blobs


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores for contestants and for what loads them. With fewer than three of them a pair shares with the load."""

    server: tuple[int, ...]
    pair: tuple[int, ...]
    load: tuple[int, ...]
    load_of_pair: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Whether the load takes time from a contestant that has two cores."""
        return bool(set(self.pair) & set(self.load_of_pair))


def share_out(available: Sequence[int]) -> Cores:
    """Give the first core to contestants, the second to those that want two, and the others to the load."""
    if len(available) < 2:
        raise SystemExit("a load test needs two cores: one for the contestants, one for the load")
    pair, behind = tuple(available[:2]), tuple(available[2:])
    return Cores(server=pair[:1], pair=pair, load=tuple(available[1:]), load_of_pair=behind or pair)


def pinned(cores: Sequence[int], command: Sequence[str]) -> list[str]:
    """Return *command* such that it runs on *cores* alone; the process stays the same."""
    return ["taskset", "-c", ",".join(map(str, cores)), *command]


def roomy() -> Path | None:
    """Return a folder in memory that has room for all of it, so that no contestant waits for a disk."""
    memory = Path("/dev/shm")  # noqa: S108 - only the parent of a folder of our own
    if os.environ.get("TMPDIR") or not memory.is_dir() or shutil.disk_usage(memory).free < _FOLDER_NEEDS:
        return None
    return memory


def describe(cores: Cores, folder: Path) -> list[str]:
    """Say what was measured on, a fact a line."""
    return [
        f"CPU: {_cpu()}, {os.cpu_count()} cores; contestants on {_listed(cores.server)}, load on {_listed(cores.load)}",
        f"kernel: {platform.system()} {platform.release()}, load average at the start: {os.getloadavg()[0]:.2f}",
        f"files: on {_file_system(folder)}",
        f"versions: {', '.join(_versions())}",
    ]


def _listed(cores: Sequence[int]) -> str:
    return f"core {'+'.join(map(str, cores))}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system that *folder* is on: of the mounts above it, the nearest."""
    best = ("", "an unknown file system")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def _versions() -> list[str]:
    said = [
        f"Python {platform.python_version()}",
        *(f"{name} {metadata.version(name)}" for name in ("aiohttp", "uvloop")),
    ]
    asked = {"nginx": ("-v",), "wrk": ("-v",), "docker-registry": ("--version",), "registry": ("--version",)}
    return said + [line for peer, options in asked.items() if (line := _version(peer, options))]


def _version(peer: str, options: Sequence[str]) -> str:
    path = installed(peer)
    if path is None:
        return f"no {peer}"
    done = subprocess.run([path, *options], capture_output=True, text=True, timeout=10, check=False)
    line = (done.stdout + done.stderr).splitlines()[0]
    words = [word for word in line.replace("/", " ").split() if any(letter.isdigit() for letter in word)]
    number = next((word for word in words if word[0].isdigit() or word[0] == "v"), words[0] if words else "")
    return f"{peer} {number}".strip()
