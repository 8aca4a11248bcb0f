"""What pushes, deletions and events change, here and in every other process that answers for the same names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import orjson

from proxy.oci.reference import Digest, Repository, Tag
from proxy.store.base import Virtual
from proxy.virtual.manifests import Manifests
from proxy.virtual.places import Place, Places

Tell = Callable[[bytes], Awaitable[None]]
"""Sends a message to the other processes, and returns when they have heard it, or can't be reached."""


async def nobody(message: bytes) -> None:
    """Tell nobody: there is no other process."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A source of a virtual tag was written: nobody gets any more what was before."""

    virtual: Virtual
    tag: Tag


@dataclass(frozen=True, slots=True)
class Suspected:
    """A source of a virtual tag is said to have changed: it is asked for anew, behind the answers."""

    virtual: Virtual
    tag: Tag


@dataclass(frozen=True, slots=True)
class Listed:
    """The tags of a repository are others now."""

    virtual: Virtual


@dataclass(frozen=True, slots=True)
class Deleted:
    """A digest was deleted from the repository of that name, and the tags that stood for it with it."""

    virtual: Virtual
    digest: Digest

    @property
    def place(self) -> Place:
        """Where it was."""
        return (self.virtual.upstream, self.virtual.repository)


Change = Pushed | Suspected | Listed | Deleted


class Effects:
    """What a change does to one view of the virtual registries."""

    def __init__(self, manifests: Manifests, places: Places, forget_lists: Callable[[Virtual], None]) -> None:
        """Take what is needed; *forget_lists* is told of repositories whose tags are others now."""
        self._manifests = manifests
        self._places = places
        self._forget_lists = forget_lists

    async def take(self, change: Change) -> None:
        """Let *change* count."""
        match change:
            case Pushed(virtual=virtual, tag=tag):
                self._forget_lists(virtual)
                await self._manifests.outdate(virtual, tag)
            case Suspected(virtual=virtual, tag=tag):
                self._forget_lists(virtual)
                await self._manifests.revalidate(virtual, tag)
            case Listed(virtual=virtual):
                self._forget_lists(virtual)
            case Deleted(virtual=virtual, digest=digest):
                self._forget_lists(virtual)
                await self._places.forget(virtual, digest)
                self._manifests.outdate_place(change.place)


class Changes:
    """Lets changes count: in every view here, and in every other process."""

    def __init__(self, effects: Callable[[], Iterable[Effects]], tell: Tell) -> None:
        """Take what is needed; *effects* returns those of all views that there are now."""
        self._effects = effects
        self._tell = tell

    async def happened(self, change: Change) -> None:
        """Let *change* count everywhere: when this returns, nobody is answered with what was before."""
        await self._take(change)
        await self._tell(encode(change))

    async def heard(self, message: bytes) -> None:
        """Let a change count that another process tells of. Raises `ValueError` for anything else."""
        await self._take(decode(message))

    async def _take(self, change: Change) -> None:
        for effects in self._effects():
            await effects.take(change)


def encode(change: Change) -> bytes:
    """Write a change as one line of JSON."""
    return orjson.dumps({"kind": type(change).__name__, **_fields(change)})


def decode(message: bytes) -> Change:
    """Read a change. Raises `ValueError`."""
    document = orjson.loads(message)
    try:
        virtual = Virtual(str(document["upstream"]), Repository.parse(document["repository"]))
        match document["kind"]:
            case "Pushed":
                return Pushed(virtual, Tag.parse(document["tag"]))
            case "Suspected":
                return Suspected(virtual, Tag.parse(document["tag"]))
            case "Listed":
                return Listed(virtual)
            case "Deleted":
                return Deleted(virtual, Digest.parse(document["digest"]))
    except Exception as error:
        raise ValueError("a change was expected") from error
    raise ValueError("an unknown kind of change")


def _fields(change: Change) -> dict[str, str]:
    fields = {"upstream": change.virtual.upstream, "repository": str(change.virtual.repository)}
    match change:
        case Pushed(tag=tag) | Suspected(tag=tag):
            return {**fields, "tag": str(tag)}
        case Deleted(digest=digest):
            return {**fields, "digest": str(digest)}
        case Listed():
            return fields
