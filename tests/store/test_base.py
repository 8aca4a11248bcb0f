"""The values of remembering, and that every store has the Protocols' shape."""

from __future__ import annotations

from pathlib import Path

from proxy.oci.reference import Repository
from proxy.store.base import Content, Metadata, Virtual
from proxy.store.behind import Behind
from proxy.store.disk import DiskContent, DiskMetadata, Folder
from proxy.store.history import Uses
from proxy.store.memory import LruMemory, MemoryContent, MemoryMetadata, Shared
from proxy.store.tiered import TieredContent, TieredMetadata


def test_a_virtual_repository_is_named_as_people_do() -> None:
    """The upstream stands in front, as in an image's name."""
    assert str(Virtual("hub", Repository("kimoqi/alpine"))) == "hub/kimoqi/alpine"


def test_every_store_has_the_protocols_shape(tmp_path: Path) -> None:
    """The type checker holds memory, disk and tiered against the two Protocols here."""
    budget: Shared = LruMemory(0)
    folder = Folder(tmp_path)
    contents: list[Content] = [MemoryContent(budget), DiskContent(folder)]
    metadata: list[Metadata] = [MemoryMetadata(budget), DiskMetadata(folder, {})]
    contents.append(TieredContent(contents[0], contents[1], Uses(), Behind()))
    metadata.append(TieredMetadata(metadata[0], metadata[1], Uses(), Behind()))

    assert len(contents) == len(metadata) == 3
