"""Real registries, daemons and clients: found, started on loopback, stopped by process id."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from e2e import wire
from patience import HANGING
from ports import free_port

Workshop = Callable[[str], Path]  # makes a folder for the state of a peer that is called this

# `.ci/peers` puts the peers here that it builds itself.
BIN = Path(os.environ.get("MANIFUSE_BIN", "/var/cache/manifuse-e2e/bin"))


@contextmanager
def workshop(prefix: str) -> Iterator[Workshop]:
    """Make folders for the peers' state: short names, because sockets are in them, and gone at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:

        def make(name: str) -> Path:
            return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))

        yield make


class NotReady(Exception):
    """A process ended, or said nothing, before it was ready; the message has the end of its log."""


class ClientFailed(Exception):
    """A client's command failed; the message has the command and all that it printed."""


def unavailable(peer: str, reason: str) -> NoReturn:
    """Skip the test, or fail it when whoever started the run promised this peer in `MANIFUSE_PEERS`."""
    message = f"{peer}: {reason}"
    if peer in os.environ.get("MANIFUSE_PEERS", "").split():
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def command(peer: str) -> str:
    """Return the path of an installed command; daemons live in folders that a user's `PATH` may leave out."""
    return installed(peer) or unavailable(peer, "not installed")


def installed(peer: str) -> str | None:
    """Return the path of a command, if there is one; what was built for these tests comes first."""
    return shutil.which(peer, path=f"{BIN}:{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def need_root(peer: str) -> None:
    """Skip what only root can start."""
    if os.geteuid() != 0:
        unavailable(peer, "needs root")


def eventually(fact: Callable[[], bool], seconds: float = HANGING) -> bool:
    """Tell whether something becomes true in this time."""
    end = time.monotonic() + seconds
    while not (true := fact()) and time.monotonic() < end:
        time.sleep(0.05)
    return true


@dataclass(frozen=True)
class Client:
    """A command with leading options and an environment of its own, so that nothing of the machine's is used."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, seconds: float = 2 * HANGING) -> str:
        """Run the command with these arguments and return what it printed, without the last line break."""
        line = (*self.command, *arguments)
        done = subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != 0:
            raise ClientFailed(f"{' '.join(line)}\nexit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()


@dataclass(frozen=True)
class Daemon:
    """A process of ours and the file that it logs to."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, arguments: Sequence[str], log: Path) -> "Daemon":
        """Start a process; a session of its own keeps a terminal's Ctrl-C for pytest, which then stops it in order."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, log)

    def wait_until(self, ready: Callable[[], bool], seconds: float = HANGING) -> None:
        """Return as soon as the process is ready."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise NotReady(f"ended with exit status {self.process.returncode}\n{self.tail()}")
            if ready():
                return
            time.sleep(0.05)
        raise NotReady(f"not ready after {seconds:g} seconds\n{self.tail()}")

    def stop(self, seconds: float = 30) -> int:
        """Ask it to end and return its exit status; a process that doesn't listen is killed."""
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(seconds)

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def running(peer: str, arguments: Sequence[str], folder: Path, ready: Callable[[], bool]) -> Iterator[Daemon]:
    """Run a peer while the block lasts."""
    daemon = Daemon.start([command(peer), *arguments], folder / "log")
    try:
        try:
            daemon.wait_until(ready)
        except NotReady as trouble:
            unavailable(peer, str(trouble))
        yield daemon
    finally:
        daemon.stop()


REGISTRY = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {data}}}, delete: {{enabled: true}}}}
http: {{addr: "{address}", secret: "the same in every process"}}
"""


@dataclass(frozen=True)
class Account:
    """Who may read and write a private registry."""

    username: str
    password: str


@dataclass(frozen=True)
class Registry:
    """A running registry."""

    address: str
    account: Account | None = None

    @property
    def url(self) -> str:
        """Where the registry answers."""
        return f"http://{self.address}"


def htpasswd(path: Path, *accounts: Account) -> Path:
    """Write a file of passwords, with bcrypt's hashes: registries read no others."""
    run = Client((command("htpasswd"),))
    path.write_text("".join(f"{run('-Bbn', each.username, each.password)}\n" for each in accounts))
    return path


@contextmanager
def registry(
    folder: Path,
    account: Account | None = None,
    peer: str = "docker-registry",
    *,
    auth: str = "",
    data: Path | None = None,
) -> Iterator[Registry]:
    """Run distribution, Debian's unless told otherwise; it asks for Basic authentication if there is an account.

    Args:
        auth: How else it authenticates: the section of that name in its configuration.
        data: The folder with what is in it, where that isn't its own.
    """
    address = f"127.0.0.1:{free_port()}"
    if account and not auth:
        auth = f"{{htpasswd: {{realm: e2e, path: {htpasswd(folder / 'htpasswd', account)}}}}}"
    text = REGISTRY.format(data=data or folder / "data", address=address)
    (folder / "config.yml").write_text(f"{text}auth: {auth}\n" if auth else text)
    arguments = ["serve", str(folder / "config.yml")]
    expected = 401 if auth else 200
    with running(peer, arguments, folder, lambda: wire.answers(f"http://{address}/v2/", expected)):
        yield Registry(address, account)


def client_home(folder: Path) -> dict[str, str]:
    """Return an environment in which container clients find their settings in this folder, not the machine's."""
    settings = folder / ".config" / "containers"
    settings.mkdir(parents=True)
    (settings / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
    (settings / "registries.conf").write_text("unqualified-search-registries = []\n")
    (folder / ".docker").mkdir()
    (folder / ".docker" / "config.json").write_text("{}\n")  # podman and buildah read this one too
    return {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "CONTAINERS_REGISTRIES_CONF": str(settings / "registries.conf"),
        "DOCKER_CONFIG": str(folder / ".docker"),
        "DOCKER_BUILDKIT": "0",  # BuildKit needs a plugin that distributions package apart
    }


@contextmanager
def dockerd(folder: Path) -> Iterator[Client]:
    """Run a Docker daemon with nothing in it; what comes is a `docker` that talks to it."""
    need_root("dockerd")
    where = f"unix://{folder}/docker.sock"
    docker = Client((command("docker"), "--host", where), client_home(folder))
    (folder / "daemon.json").write_text("{}\n")  # the machine's own must not be read
    arguments = [
        f"--config-file={folder}/daemon.json",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/pid",
        f"--host={where}",
        "--storage-driver=vfs",
        # No network is set up: containers run without one, pulls happen in the daemon.
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
    ]
    with running("dockerd", arguments, folder, lambda: _works(docker, "version")):
        yield docker


CONTAINERD = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
# opt wants a folder outside of ours, cri a network; the others need file systems that may not be there.
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.overlayfs",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{folder}/containerd.sock"
"""


@contextmanager
def containerd(folder: Path) -> Iterator[Client]:
    """Run a containerd with nothing in it; what comes is a `ctr` that talks to it."""
    need_root("containerd")
    (folder / "config.toml").write_text(CONTAINERD.format(folder=folder))
    ctr = Client((command("ctr"), "--address", f"{folder}/containerd.sock"), {"CONTAINERD_SNAPSHOTTER": "native"})
    arguments = ["--config", str(folder / "config.toml")]
    with running("containerd", arguments, folder, lambda: _works(ctr, "version")):
        yield ctr


def podman(folder: Path) -> Client:
    """Return a `podman` with an empty store in this folder."""
    need_root("podman")
    options = (*_store(folder), "--tmpdir", f"{folder}/libpod", "--cgroup-manager", "cgroupfs")
    return Client((command("podman"), *options), client_home(folder))


def buildah(folder: Path) -> Client:
    """Return a `buildah` with an empty store in this folder."""
    need_root("buildah")
    return Client((command("buildah"), *_store(folder)), client_home(folder))


def skopeo(folder: Path) -> Client:
    """Return a `skopeo` that reads no settings but this folder's."""
    return Client((command("skopeo"),), client_home(folder))


def _store(folder: Path) -> tuple[str, ...]:
    return ("--root", f"{folder}/store", "--runroot", f"{folder}/run", "--storage-driver", "vfs")


def _works(client: Client, *arguments: str) -> bool:
    try:
        client(*arguments, seconds=HANGING)
    except (ClientFailed, subprocess.TimeoutExpired):
        return False
    return True
