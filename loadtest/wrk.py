"""wrk: heads that are sent byte for byte, and what it says of the answers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.heads import Head
from loadtest.machine import pinned
from loadtest.peers import found

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


class Failed(Exception):
    """The load wasn't what it should have been: answers with errors, or none."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run of wrk says: requests, requests per second, milliseconds."""

    requests: int
    rate: float
    p50: float
    p99: float


def script(heads: Sequence[Head]) -> str:
    """Write a Lua script that sends one of *heads*, any of them, again and again."""
    listed = ",\n".join(_quoted(bytes(head)) for head in heads)
    # A single one is asked for once, so that Lua costs nothing while it is sent.
    single = "wrk.format = function() return heads[1] end"
    several = "request = function() return heads[math.random(#heads)] end"
    return f"local heads = {{\n{listed}\n}}\n{several if len(heads) > 1 else single}\n"


def run(
    address: str, heads: Sequence[Head], folder: Path, cores: Sequence[int], *, seconds: float, connections: int = 32
) -> Figures:
    """Load *address* for *seconds*, whole ones, and at least one. Raises `Failed`; `Missing` without wrk."""
    path = folder / "wrk.lua"
    path.write_text(script(heads))
    duration = max(1, round(seconds))
    options = [f"-t{len(cores)}", f"-c{connections}", f"-d{duration}s", "--timeout", "5s", "--latency"]
    command = pinned(cores, [*found("wrk"), *options, "-s", str(path), f"http://{address}/"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=duration + 30, check=False)
    if done.returncode != 0:
        raise Failed(f"wrk: {done.stdout}{done.stderr}")
    return parse(done.stdout)


def parse(text: str) -> Figures:
    """Read what wrk prints. Raises `Failed` where answers were errors, or there were none."""
    if wrong := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        raise Failed(f"{wrong[1]} answers weren't 2xx")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    if errors and any(int(count) for count in errors.groups()):
        raise Failed(errors[0])
    requests = re.search(r"(\d+) requests in ", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if not requests or not rate or not int(requests[1]):
        raise Failed(f"no answers:\n{text}")
    return Figures(int(requests[1]), float(rate[1]), _percentile(text, 50), _percentile(text, 99))


def _percentile(text: str, share: int) -> float:
    found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")


def _quoted(data: bytes) -> str:
    """Quote for Lua. Its long brackets won't do: they read a CR LF as one LF."""
    escaped = data.decode().replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n")
    return f'"{escaped}"'
