"""A request as handlers see it, and how the registry that it speaks of is found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote

from aiohttp import web

from proxy.oci.access import EVERYBODY, Action, Caller, Resource
from proxy.oci.errors import Denied, Invalid, RegistryError, Unauthorized
from proxy.oci.reference import Repository
from proxy.oci.registry import Catalogue, Served
from proxy.oci.write import joined
from proxy.web.forwarded import Origin
from proxy.web.gate import Gate

ALWAYS: Final = {"Docker-Distribution-Api-Version": "registry/2.0", "Server": "manifuse"}
"""Headers of every answer."""


class Directory(Protocol):
    """Which registry a request speaks of."""

    def find(
        self, host: str, namespaces: tuple[str, ...], prefix: str, repository: Repository
    ) -> tuple[Served, Resource]:
        """Return the registry and the repository there. Raises `NameUnknown`."""
        ...

    def catalogue(self, host: str, namespaces: tuple[str, ...], prefix: str) -> tuple[Catalogue, str]:
        """Return the catalogue that a request means which names no repository, and whose it is.

        Raises `NameUnknown`.
        """
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
    ) -> tuple[Served, Resource]:
        """Return the registry."""
        return self._registry, Resource("", repository, repository)

    def catalogue(self, host: str, namespaces: tuple[str, ...], prefix: str) -> tuple[Catalogue, str]:
        """Return the registry's."""
        return self._registry, ""

    def check(self, namespaces: tuple[str, ...], prefix: str) -> None:
        """Take every name."""


@dataclass(frozen=True, slots=True)
class Knock:
    """What somebody has to say who wants to come in.

    Attributes:
        authorization: Their `Authorization`; None where there is none.
        host, namespaces, prefix: Which registry they speak of.
        repository: And which repository, if any.
        client: What limits for one client go by; None where there are none.
    """

    authorization: str | None
    host: str = ""
    namespaces: tuple[str, ...] = ()
    prefix: str = ""
    repository: Repository | None = None
    client: str | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """Who came in, and what they find there."""

    caller: Caller
    directory: Directory


class House(Protocol):
    """What is served, and who may come in."""

    def admit(self, knock: Knock) -> AbstractAsyncContextManager[Admission]:
        """Let somebody in for one request. Raises `Unauthorized`, `Refused` or `NoAnswer` on entering."""
        ...


class OpenHouse:
    """A house that lets everybody in."""

    def __init__(self, directory: Directory) -> None:
        self._admission = Admission(EVERYBODY, directory)

    def admit(self, knock: Knock) -> AbstractAsyncContextManager[Admission]:
        """Let anybody in."""
        return nullcontext(self._admission)


Borrow = Callable[[], AbstractContextManager[House]]
"""Lends a house for one request, which stays open for as long as the block runs."""


def always(registry: Served) -> Borrow:
    """Lend the same registry to every request, whoever sent it."""
    return lambda: nullcontext(OpenHouse(Single(registry)))


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler needs to know of a request."""

    http: web.BaseRequest
    caller: Caller
    directory: Directory
    action: Action
    prefix: str
    namespaces: tuple[str, ...]
    origin: Origin
    gate: Gate

    @property
    def client(self) -> str | None:
        """What limits for one client go by; None where there are none."""
        return self.gate.asking(self.http, self.gate.client(self.http.remote))

    @property
    def is_head(self) -> bool:
        """Whether the body is to be left out."""
        return self.http.method == "HEAD"

    def find(self, repository: Repository) -> tuple[Served, Repository]:
        """Return the registry that is meant and the repository there, if the caller may do there what they want to.

        Raises `NameUnknown`, `Denied`, or `Unauthorized` where another token may help.
        """
        registry, resource = self._found(repository)
        if not self.caller.may(self.action, resource):
            self._refuse(resource)
        return registry, resource.repository

    def beside(self, registry: Served, repository: Repository) -> Repository | None:
        """Return another repository, as *registry* calls it, if it is one of its own and the caller may pull it.

        Raises `NameUnknown`.
        """
        other, resource = self._found(repository)
        return resource.repository if other is registry and self.caller.may(Action.PULL, resource) else None

    def sees(self, upstream: str, name: str) -> bool:
        """Whether the caller may pull the repository of that name: whether it is shown in a list."""
        try:
            return self.caller.may(Action.PULL, Resource(upstream, Repository.parse(name)))
        except Invalid:
            return False  # nobody could ask for it

    def identify(self, repository: Repository | None) -> None:
        """Raise `Unauthorized` where the caller has to say who they are, and for what: *repository*, if any."""
        if self.caller.known:
            return
        try:
            name = self._found(repository)[1].name if repository else ""
        except RegistryError:
            name = ""  # what there is and what not is for those who are known
        raise self._unauthorized("authentication is required", name)

    def _found(self, repository: Repository) -> tuple[Served, Resource]:
        return self.directory.find(self.origin.host, self.namespaces, self.prefix, repository)

    def _refuse(self, resource: Resource) -> None:
        who = self.caller.name or "this client"
        message = f"{who[:80]} may not {self.action} {resource.repository}"
        if self.caller.challenge is not None:
            raise self._unauthorized(message, resource.name)
        raise Denied(message)

    def _unauthorized(self, message: str, name: str) -> Unauthorized:
        actions = "pull" if self.action is Action.PULL else "pull,push"
        actions += ",delete" if self.action is Action.DELETE else ""
        write = self.caller.challenge
        scope = f"repository:{name}:{actions}" if name else ""
        return Unauthorized(message, challenge=write(scope) if write else "")

    def location(self, path: str, query: str = "") -> str:
        """Write a `Location` that leads back here, by the same way of addressing: prefix and `?ns=` stay."""
        prefix = f"/{self.prefix}" if self.prefix else ""
        query = joined(query, *(f"ns={quote(namespace)}" for namespace in self.namespaces))
        return f"{self.origin.url}{prefix}{path}" + (f"?{query}" if query else "")

    def catalogue(self) -> tuple[Catalogue, str]:
        """Return the catalogue of the registry that is meant, and whose it is. Raises `NameUnknown`."""
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
