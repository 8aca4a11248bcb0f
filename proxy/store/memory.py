"""Remembering within a budget of bytes: least recently used leaves first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from proxy.merge.entry import Entry
from proxy.merge.rule import Learned
from proxy.oci.reference import Digest, Tag
from proxy.store.base import Location, Virtual

# What Python itself needs to hold one item: keys, dictionary slots, value objects, and what tables beside it remember
# of it, such as its last use. An estimate on the safe side; without it the bytes alone would count, and a budget would
# hold far more than it says.
ITEM_OVERHEAD: Final = 1344
_PART_OVERHEAD: Final = 640

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LruMemory(Generic[Key, Value]):
    """A mapping that forgets the least recently used items when their bytes exceed *limit*."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.used = 0

    def __len__(self) -> int:
        """Count the items."""
        return len(self._items)

    def get(self, key: Key) -> Value | None:
        """Return the value of *key* and mark it as used."""
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keep *value*, which counts *size* bytes. One that alone exceeds the limit isn't kept."""
        self.drop(key)
        if size > self._limit:
            return
        self._items[key] = (value, size)
        self.used += size
        while self.used > self._limit:
            _, (_, freed) = self._items.popitem(last=False)
            self.used -= freed

    def drop(self, key: Key) -> None:
        """Forget *key*."""
        item = self._items.pop(key, None)
        self.used -= item[1] if item else 0


Shared = LruMemory[Hashable, object]


class MemoryContent:
    """Content in memory, within a budget that may be shared with metadata."""

    def __init__(self, budget: Shared) -> None:
        self._kept = budget

    async def get(self, digest: Digest) -> bytes | None:
        """Return the bytes of *digest*."""
        found = self._kept.get(digest)
        return found if isinstance(found, bytes) else None

    async def put(self, digest: Digest, data: bytes) -> None:
        """Keep *data*."""
        self._kept.put(digest, data, len(data) + ITEM_OVERHEAD)

    async def remember(self, digest: Digest, data: bytes) -> None:
        """Keep *data*."""
        await self.put(digest, data)

    async def touch(self, digest: Digest) -> bool:
        """Note a use of *digest*."""
        return self._kept.get(digest) is not None


class MemoryMetadata:
    """Metadata in memory, within a budget that may be shared with content and with other metadata."""

    def __init__(self, budget: Shared) -> None:
        self._kept = budget

    async def entry(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the last good generation of a tag."""
        found = self._kept.get((self, virtual, tag))
        return found if isinstance(found, Entry) else None

    async def reread(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the last good generation of a tag."""
        return await self.entry(virtual, tag)

    async def settle(self, virtual: Virtual, tag: Tag) -> None:
        """What was kept is there."""

    async def keep_entry(self, virtual: Virtual, tag: Tag, entry: Entry) -> None:
        """Keep *entry*."""
        self._kept.put((self, virtual, tag), entry, _weight(entry))

    async def drop_entry(self, virtual: Virtual, tag: Tag) -> None:
        """Forget what a tag stood for."""
        self._kept.drop((self, virtual, tag))

    async def location(self, virtual: Virtual, digest: Digest) -> Location | None:
        """Return where *digest* was last found."""
        found = self._kept.get((self, virtual, digest))
        return found if isinstance(found, Location) else None

    async def keep_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is."""
        self._kept.put((self, virtual, digest), location, ITEM_OVERHEAD + len(location.body))

    async def remember_location(self, virtual: Virtual, digest: Digest, location: Location) -> None:
        """Keep where *digest* is."""
        await self.keep_location(virtual, digest, location)

    async def drop_location(self, virtual: Virtual, digest: Digest) -> None:
        """Forget where *digest* is."""
        self._kept.drop((self, virtual, digest))

    async def learned(self, virtual: Virtual) -> Learned | None:
        """Return which naming convention came true."""
        found = self._kept.get((self, virtual, None))
        return found if isinstance(found, Learned) else None

    async def keep_learned(self, virtual: Virtual, learned: Learned) -> None:
        """Keep which naming convention came true."""
        self._kept.put((self, virtual, None), learned, ITEM_OVERHEAD)

    async def touch(self, virtual: Virtual, name: Tag | Digest | None = None) -> bool:
        """Note a use."""
        return self._kept.get((self, virtual, name)) is not None


def _weight(entry: Entry) -> int:
    """Estimate the bytes of an entry: an index may bring a thousand children, with as much text as it likes."""
    children = [child for part in entry.parts for child in part.children]
    text = sum(len(key) + len(value) for child in children for key, value in child.annotations.items())
    return ITEM_OVERHEAD + _PART_OVERHEAD * (len(entry.parts) + len(children)) + text
