"""The contestants, started on loopback, each on its cores, and stopped by process id."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from e2e import wire
from e2e.peers import Daemon, installed
from loadtest.machine import Cores, pinned
from ports import free_port

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = {"docker-registry": "distribution 2.8", "registry": "distribution 3"}  # what it is, by its command

_NGINX = """
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log {log};
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 150s;
  keepalive_requests 1000000000;
  types {{}}
  default_type "{media_type}";
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen {address}; root {folder}/root; {more} }}
}}
"""
_DISTRIBUTION = """
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{cache: {{blobdescriptor: inmemory}}, filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "{address}", secret: "the same in every process"}}
"""
_MANIFUSE = """
listen = "{address}"
admin_listen = "{admin}"
drain = "2s"
{top}

[[upstream]]
name = "origin"
url = "http://{upstream}"
{of_upstream}
{rule}
[cache]
dir = "{cache}"
{of_cache}
"""


class Missing(Exception):
    """Something that a row needs isn't there; the message says what."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running contestant."""

    address: str
    pid: int
    folder: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.address}"


@dataclass(frozen=True, slots=True)
class Manifuse(Peer):
    """A running manifuse; *ready* is how many seconds it took until it said so."""

    admin: str
    ready: float

    def upstream_requests(self) -> int:
        """Return how many requests it has sent."""
        text = wire.request("GET", f"http://{self.admin}/metrics").body.decode()
        counts = re.findall(r"^manifuse_upstream_requests_total\{.*\} (\S+)$", text, re.MULTILINE)
        return int(sum(map(float, counts)))


@dataclass(frozen=True, slots=True)
class Origin(Peer):
    """A running `upstream.py`."""

    process: subprocess.Popen[str]

    def requests(self) -> int:
        """Return how many requests it has got."""
        if not self.process.stdin or not self.process.stdout:
            return 0
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@dataclass(frozen=True, slots=True)
class Yard:
    """Where contestants run: a folder, and cores."""

    folder: Path
    cores: Cores
    _names: Iterator[int] = field(default_factory=count)

    def place(self, name: str) -> Path:
        """Make a folder of its own for somebody called *name*."""
        place = self.folder / f"{next(self._names)}-{name}"
        place.mkdir(parents=True)
        return place

    @contextmanager
    def nginx(
        self, files: Mapping[str, bytes], media_type: str, *, logged: bool = False, more: str = ""
    ) -> Iterator[Peer]:
        """Run nginx with one worker, serving *files* by their paths."""
        folder, address = self.place("nginx"), _address()
        for path, data in files.items():
            file = folder / "root" / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        log = f"{folder}/access.log combined" if logged else "off"
        text = _NGINX.format(
            user="user root;" if os.geteuid() == 0 else "",
            folder=folder,
            address=address,
            log=log,
            more=more,
            media_type=media_type,
        )
        (folder / "nginx.conf").write_text(text)
        options = ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
        with self._running(found("nginx"), options, folder, address, "/", {200, 403, 404}) as peer:
            yield peer

    @contextmanager
    def distribution(self, command: str, *, remote: str = "", cores: Sequence[int] = ()) -> Iterator[Peer]:
        """Run a registry, as a pull-through cache of *remote* if there is one."""
        folder, address = self.place(command), _address()
        text = _DISTRIBUTION.format(folder=folder, address=address)
        if remote:
            text += f"proxy: {{remoteurl: http://{remote}}}\n"
        (folder / "config.yml").write_text(text)
        options = ["serve", str(folder / "config.yml")]
        with self._running(found(command), options, folder, address, "/v2/", {200}, cores=cores) as peer:
            yield peer

    @contextmanager
    def crane(self) -> Iterator[Peer]:
        """Run go-containerregistry's registry, which keeps everything in memory."""
        folder, address = self.place("crane"), _address()
        options = ["registry", "serve", "--address", address]
        with self._running(found("crane"), options, folder, address, "/v2/", {200}) as peer:
            yield peer

    @contextmanager
    def manifuse(
        self,
        upstream: str,
        *,
        top: str = "",
        of_upstream: str = "",
        rule: str = "",
        of_cache: str = "",
        cache: Path | None = None,
        cores: Sequence[int] = (),
    ) -> Iterator[Manifuse]:
        """Run manifuse in front of *upstream*, logging to a file; the others are lines of its configuration."""
        folder, address, admin = self.place("manifuse"), _address(), _address()
        text = _MANIFUSE.format(
            address=address,
            admin=admin,
            top=top,
            upstream=upstream,
            of_upstream=of_upstream,
            rule=rule,
            cache=cache or folder / "cache",
            of_cache=of_cache,
        )
        (folder / "manifuse.toml").write_text(text)
        options = ["serve", "--config", str(folder / "manifuse.toml")]
        began = time.time()
        with self._running(command(), options, folder, admin, "/readyz", {200}, cores=cores) as peer:
            yield Manifuse(address, peer.pid, folder, admin, _listening(folder / "log") - began)

    @contextmanager
    def origin(self, tags: int, delay: float = 0.0, *, layers: int = 1, size: int = 200) -> Iterator[Origin]:
        """Run the registry far away, beside the load: it is no contestant."""
        arguments = map(str, (tags, delay, layers, size))
        process = subprocess.Popen(
            pinned(self.cores.load, [sys.executable, "-m", "loadtest.upstream", *arguments]),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            address = process.stdout.readline().strip() if process.stdout else ""
            if not address:
                raise Missing("the registry far away doesn't listen")
            yield Origin(address, process.pid, self.folder, process)
        finally:
            process.terminate()
            process.wait(10)

    @contextmanager
    def _running(
        self,
        program: Sequence[str],
        options: Sequence[str],
        folder: Path,
        address: str,
        path: str,
        statuses: set[int],
        cores: Sequence[int] = (),
    ) -> Iterator[Peer]:
        line = pinned(cores or self.cores.server, [*program, *options])
        daemon = Daemon.start(line, folder / "log")
        try:
            daemon.wait_until(lambda: any(wire.answers(f"http://{address}{path}", status) for status in statuses))
            yield Peer(address, daemon.process.pid, folder)
        finally:
            daemon.stop(10)


def found(peer: str) -> list[str]:
    """Return the command of a peer. Raises `Missing`."""
    path = installed(peer)
    if path is None:
        raise Missing(f"{peer} isn't installed (.ci/peers installs it)")
    # Version 3 sends traces to a collector unless told otherwise; there is none.
    return ["env", "OTEL_TRACES_EXPORTER=none", path] if peer == "registry" else [path]


def command() -> list[str]:
    """Return the command of manifuse; `MANIFUSE_COMMAND` may name that of another tree."""
    return shlex.split(os.environ.get("MANIFUSE_COMMAND", "")) or [sys.executable, "-m", "proxy"]


def knows(*path: str) -> Any:
    """Return what the configuration's schema says of a key, or None where there is no such key."""
    done = subprocess.run([*command(), "check", "--schema"], cwd=ROOT, capture_output=True, timeout=30, check=True)
    schema = orjson.loads(done.stdout)
    at: Any = schema
    for name in path:
        at = at.get("properties", {}).get(name)
        if at is None:
            return None
        reference = at.get("$ref") or at.get("items", {}).get("$ref", "")
        at = schema["$defs"][reference.rpartition("/")[2]] if reference else at
    return at


def blob_modes() -> list[str]:
    """Return how this manifuse can serve blobs."""
    key = knows("upstream", "blobs") or {}
    return list(key.get("enum", [key.get("const", "stream")]))


def _address() -> str:
    return f"127.0.0.1:{free_port()}"


def _listening(log: Path) -> float:
    """Return when manifuse said that it listens, seconds since the epoch; it doesn't say so below info."""
    for line in log.read_bytes().splitlines():
        if b'"listening"' in line:
            return datetime.fromisoformat(orjson.loads(line)["timestamp"]).timestamp()
    return float("nan")
