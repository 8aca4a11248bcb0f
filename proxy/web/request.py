"""A request as handlers see it, and how the registry that it speaks of is found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote

from aiohttp import web

from proxy.oci.reference import Repository
from proxy.oci.registry import Catalogue, Served
from proxy.oci.write import joined
from proxy.web.forwarded import Origin

ALWAYS: Final = {"Docker-Distribution-Api-Version": "registry/2.0", "Server": "manifuse"}
"""Headers of every answer."""


class Directory(Protocol):
    """Which registry a request speaks of."""

    def find(
        self, host: str, namespaces: tuple[str, ...], prefix: str, repository: Repository
    ) -> tuple[Served, Repository]:
        """Return the registry and the repository there. Raises `NameUnknown`."""
        ...

    def catalogue(self, host: str, namespaces: tuple[str, ...], prefix: str) -> Catalogue:
        """Return the catalogue that a request means which names no repository. Raises `NameUnknown`."""
        ...

    def check(self, namespaces: tuple[str, ...], prefix: str) -> None:
        """Raise `NameUnknown` where they name a registry that isn't served."""
        ...


class Single:
    """A directory of one registry, which takes every name."""

    def __init__(self, registry: Served) -> None:
        self._registry = registry

    def find(
        self, host: str, namespaces: tuple[str, ...], prefix: str, repository: Repository
    ) -> tuple[Served, Repository]:
        """Return the registry."""
        return self._registry, repository

    def catalogue(self, host: str, namespaces: tuple[str, ...], prefix: str) -> Catalogue:
        """Return the registry's."""
        return self._registry

    def check(self, namespaces: tuple[str, ...], prefix: str) -> None:
        """Take every name."""


Borrow = Callable[[], AbstractContextManager[Directory]]
"""Lends a directory for one request, which stays open for as long as the block runs."""


def always(registry: Served) -> Borrow:
    """Lend the same registry to every request."""
    return lambda: nullcontext(Single(registry))


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler needs to know of a request."""

    http: web.BaseRequest
    directory: Directory
    prefix: str
    namespaces: tuple[str, ...]
    origin: Origin

    @property
    def is_head(self) -> bool:
        """Whether the body is to be left out."""
        return self.http.method == "HEAD"

    def find(self, repository: Repository) -> tuple[Served, Repository]:
        """Return the registry that is meant and the repository there. Raises `NameUnknown`."""
        return self.directory.find(self.origin.host, self.namespaces, self.prefix, repository)

    def location(self, path: str, query: str = "") -> str:
        """Write a `Location` that leads back here, by the same way of addressing: prefix and `?ns=` stay."""
        prefix = f"/{self.prefix}" if self.prefix else ""
        query = joined(query, *(f"ns={quote(namespace)}" for namespace in self.namespaces))
        return f"{self.origin.url}{prefix}{path}" + (f"?{query}" if query else "")

    def catalogue(self) -> Catalogue:
        """Return the catalogue of the registry that is meant. Raises `NameUnknown`."""
        return self.directory.catalogue(self.origin.host, self.namespaces, self.prefix)

    def namespace(self) -> dict[str, str]:
        """Echo the registry that a mirror's client had in mind, as the specification's proxying section asks."""
        return {"OCI-Namespace": self.namespaces[0]} if self.namespaces and self.namespaces[0] else {}

    def json(self, body: bytes) -> web.Response:
        """Answer with a JSON document."""
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        return web.Response(body=None if self.is_head else body, headers=headers)

    def abort(self) -> None:
        """Let the client see a broken transfer: one that ended cleanly would pass for whole."""
        if self.http.transport is not None:
            self.http.transport.abort()
