"""The proxy under test: the installed command, in a process of its own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from e2e import wire
from e2e.peers import Daemon, Registry
from ports import free_port

COMMAND = (str(Path(sys.executable).with_name("manifuse")),)
GRACE = 40.0  # more than the proxy itself gives to what is in flight


@dataclass
class Proxy:
    """A running `manifuse serve`."""

    address: str
    admin: str
    configuration: Path
    daemon: Daemon

    @classmethod
    def start(cls, configuration: str, folder: Path, cache: Path) -> "Proxy":
        """Serve this configuration on free ports with this cache, and return once it says that it is ready."""
        listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "manifuse.toml"
        head = f'listen = "{listen}"\nadmin_listen = "{admin}"\n'
        path.write_text(f'{head}\n{configuration}\n[cache]\ndir = "{cache}"\n')
        daemon = Daemon.start([*COMMAND, "serve", "--config", str(path)], folder / "log")
        try:
            daemon.wait_until(lambda: wire.answers(f"http://{admin}/readyz", 200))
        except BaseException:
            daemon.stop()
            raise
        return cls(listen, admin, path, daemon)

    @property
    def url(self) -> str:
        """Where the registry API answers."""
        return f"http://{self.address}"

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        return self.daemon.stop(GRACE)


class StartProxy(Protocol):
    """Starts a proxy with this configuration, and with an empty cache of its own unless told otherwise."""

    def __call__(self, configuration: str, cache: Path | None = None) -> Proxy:
        """Return the proxy once it is ready."""
        ...


@contextmanager
def serving(configuration: str, folder: Path, cache: Path | None = None) -> Iterator[Proxy]:
    """Run a proxy while the block lasts; it has to leave with exit status 0."""
    proxy = Proxy.start(configuration, folder, cache or folder / "cache")
    try:
        yield proxy
    finally:
        status = proxy.stop()
    assert status == 0, f"exit status {status} after SIGTERM\n{proxy.daemon.tail()}"


def upstream(
    registry: Registry,
    name: str = "plain",
    *,
    aliases: tuple[str, ...] = (),
    default: bool = True,
    push: bool = False,
    password_file: Path | None = None,
    more: str = "",
) -> str:
    """Return the configuration of one upstream, with credentials when there is a file to read the password from.

    Args:
        more: Lines of other keys.
    """
    lines = ["[[upstream]]", f'name = "{name}"', f'url = "{registry.url}"', f"aliases = {list(aliases)}"]
    lines.append(f"default = {str(default).lower()}")
    if push:
        lines.append("push = true")
    if registry.account and password_file:
        password_file.write_text(f"{registry.account.password}\n")
        username = registry.account.username
        lines.append(f'credentials = {{ username = "{username}", password_file = "{password_file}" }}')
    lines.append(more)
    return "\n".join(lines) + "\n"
