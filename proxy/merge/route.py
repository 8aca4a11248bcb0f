"""Which upstream a request speaks of. Only configured names are ever an answer (law 10, S4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.oci.errors import NameUnknown
from proxy.oci.reference import Repository


@dataclass(frozen=True, slots=True)
class Names:
    """An upstream's name and everything else it answers to, in lower case; *default* takes what none claims."""

    name: str
    aliases: frozenset[str]
    default: bool = False

    def claims(self, word: str) -> bool:
        """Say whether *word* means this upstream."""
        return word.lower() in self.aliases or word == self.name


@dataclass(frozen=True, slots=True)
class Address:
    """What a request says about its registry, beside the repository.

    Attributes:
        host: The `Host` header.
        namespaces: All values of `?ns=`: the registry a mirror's client had in mind.
        prefix: The path component in front of `/v2/`.
    """

    host: str = ""
    namespaces: tuple[str, ...] = ()
    prefix: str = ""


def route(upstreams: Sequence[Names], address: Address, repository: Repository) -> tuple[str, Repository]:
    """Return the upstream's name and the repository there.

    In order: the prefix (`/<alias>/v2/…`), `?ns=`, the first path component (`/v2/<alias>/…`), `Host`, the
    default. A prefix, a namespace or a first component that looks like a registry's host and is none of ours
    is unknown, never somebody else's: asking the default for it would be asking a stranger. Where the upstream
    is named already, only its host is taken off the path: another first component is part of the repository.

    Raises:
        NameUnknown: No configured upstream is meant.
    """
    explicit = _explicit(upstreams, address)
    first, slash, rest = repository.partition("/")
    if slash:
        claimed = next((names for names in upstreams if names.claims(first)), None)
        if claimed is not None and (explicit is None or (explicit is claimed and _looks_like_host(first))):
            return claimed.name, Repository.parse(rest)
        if explicit is None and _looks_like_host(first):
            raise NameUnknown(f"no upstream is called {first!r}")
    chosen = explicit or _by_host(upstreams, address.host)
    if chosen is None:
        raise NameUnknown(f"no upstream takes {str(repository)!r}: none is the default")
    return chosen.name, repository


def route_registry(upstreams: Sequence[Names], address: Address) -> str:
    """Return the name of the upstream that a request means which names no repository, in the same order.

    Raises:
        NameUnknown: No configured upstream is meant.
    """
    chosen = _explicit(upstreams, address) or _by_host(upstreams, address.host)
    if chosen is None:
        raise NameUnknown("no upstream is meant: none is the default")
    return chosen.name


def _explicit(upstreams: Sequence[Names], address: Address) -> Names | None:
    """Return the upstream that prefix and `?ns=` name, or None where there are neither."""
    words = dict.fromkeys(word for word in (address.prefix, *address.namespaces) if word)
    meant = {_claimed(upstreams, word).name: _claimed(upstreams, word) for word in words}
    if len(meant) > 1:
        raise NameUnknown(f"the request names several upstreams: {', '.join(meant)}")
    return next(iter(meant.values()), None)


def _claimed(upstreams: Sequence[Names], word: str) -> Names:
    for names in upstreams:
        if names.claims(word):
            return names
    raise NameUnknown(f"no upstream is called {word[:80]!a}")


def _by_host(upstreams: Sequence[Names], host: str) -> Names | None:
    by_host = next((names for names in upstreams if host and names.claims(host)), None)
    return by_host or next((names for names in upstreams if names.default), None)


def _looks_like_host(component: str) -> bool:
    """Docker's test for the first component of a reference."""
    return "." in component or component == "localhost"
