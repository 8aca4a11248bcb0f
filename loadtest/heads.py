"""The heads of requests that real clients send, recorded, and sent here to other names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import orjson

RECORDED = Path(__file__).parents[1] / "tests" / "recorded.jsonl"


@dataclass(frozen=True, slots=True)
class Head:
    """A request without a body, its header lines in the client's order."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]

    def __bytes__(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode()

    @property
    def closes(self) -> bool:
        """Whether the connection ends with the answer."""
        return ("Connection", "close") in self.headers

    def to(self, address: str, path: str, method: str = "") -> Head:
        """Return the same request for another path, sent to another server."""
        headers = tuple((name, address if name == "Host" else value) for name, value in self.headers)
        return Head(method or self.method, path, headers)

    def alive(self) -> Head:
        """Return it without the wish to close the connection."""
        return replace(self, headers=tuple(line for line in self.headers if line[0] != "Connection"))

    def closing(self) -> Head:
        """Return it with the wish to close the connection."""
        return replace(self, headers=(*self.alive().headers, ("Connection", "close")))

    def shuffled(self) -> Iterator[Head]:
        """Yield it with its `Accept` lines in every order, as dockerd sends them in any."""
        where = [number for number, (name, _) in enumerate(self.headers) if name == "Accept"]
        for order in permutations(where):
            moved = dict(zip(where, order, strict=True))
            headers = tuple(self.headers[moved.get(number, number)] for number in range(len(self.headers)))
            yield replace(self, headers=headers)


@dataclass(frozen=True, slots=True)
class Client:
    """How one client asks: its head for each step of a pull; a step that it doesn't take has none."""

    name: str
    ping: Head | None
    resolve: Head  # of a tag
    index: Head | None  # by digest; without it the tag was read already
    child: Head
    blob: Head


def recorded(path: Path = RECORDED) -> Mapping[str, tuple[Head, ...]]:
    """Return what each client sent, by what it was told to do."""
    found: dict[str, list[Head]] = {}
    mark = ""
    for line in path.read_bytes().splitlines():
        document = orjson.loads(line)
        mark = document.get("mark", mark)
        if "method" in document:
            headers = tuple((name, value) for name, value in document["headers"])
            found.setdefault(mark, []).append(Head(document["method"], document["path"], headers))
    return {mark: tuple(heads) for mark, heads in found.items()}


def docker() -> Client:
    """Return dockerd with its classic store. Its blobs weren't recorded: they have the ping's header lines."""
    ping, resolve, index, child = recorded()["docker pull (20.10 daemon)"]
    return Client("docker", ping, resolve, index, child, ping)


def containerd() -> Client:
    """Return containerd, behind a mirror, which asks on connections that stay."""
    resolve, index, child, _, layer, *_ = recorded()["ctr pull via hosts.toml mirror"]
    return Client("containerd", None, resolve, index, child, layer)


def podman() -> Client:
    """Return podman, which reads the tag with GET."""
    ping, resolve, child, _, layer = recorded()["podman pull"]
    return Client("podman", ping, resolve, None, child, layer)


def docker_cli() -> Head:
    """Return a GET of a tag with four `Accept` lines: wrk can't read answers to dockerd's HEAD."""
    return recorded()["docker manifest inspect"][1]
