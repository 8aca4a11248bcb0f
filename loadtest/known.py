"""A cache folder that knows many tags, without anybody having pulled them.

One tag is pulled for real. The others are its files under other names, in the layout that `proxy/store/disk.py` shows:
hard links where they may all be the same, files of their own where each tag has to have an index of its own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from e2e import wire
from e2e.peers import eventually
from loadtest.images import RULE, VIRTUAL
from loadtest.peers import Peer, Yard
from loadtest.wrk import Failed

LASTING = 'tag_ttl = "4h"'  # longer than any load lasts: known tags are answered without asking


@dataclass(frozen=True, slots=True)
class Seed:
    """What a cache folder holds of one tag.

    Attributes:
        url: Of the upstream, which files are named by.
        entry: The tag's record.
        index: The bytes that it stands for.
        location: The record of where these are.
    """

    folder: Path
    url: str
    entry: bytes
    index: bytes
    location: bytes

    def fill(self, folder: Path, tags: int, *, different: bool) -> None:
        """Make a cache folder that knows the tags 0 and up, the first of them as it was pulled."""
        shutil.copytree(self.folder, folder)
        places = {kind: folder / kind for kind in ("tags", "locations")} | {"content": folder / "content/blobs/sha256"}
        if different:
            for number in range(1, tags):
                self._different(places, number)
        else:
            _link(
                places["tags"] / _name(self.url, ":0"),
                (places["tags"] / _name(self.url, f":{n}") for n in range(1, tags)),
            )

    def _different(self, places: dict[str, Path], number: int) -> None:
        """Write a tag whose index has another first child, and so another digest, but the same size."""
        child = orjson.loads(self.index)["manifests"][0]["digest"].encode()
        index = self.index.replace(child, child[:-8] + f"{number:08x}".encode())
        old, new = (hashlib.sha256(body).hexdigest() for body in (self.index, index))
        (places["content"] / new).write_bytes(index)
        (places["locations"] / _name(self.url, f"@sha256:{new}")).write_bytes(self.location)
        (places["tags"] / _name(self.url, f":{number}")).write_bytes(self.entry.replace(old.encode(), new.encode()))


def seed(yard: Yard, origin: Peer) -> Seed:
    """Pull one tag. Raises `Failed` where the folder isn't laid out as is known here."""
    cache = yard.place("seed") / "cache"
    tag = cache / "tags" / _name(origin.url, ":0")
    with yard.manifuse(origin.address, rule=RULE, of_cache=LASTING, cache=cache) as ours:
        answer = wire.manifest(ours.address, VIRTUAL, "0")
        location = cache / "locations" / _name(origin.url, f"@{answer.digest}")
        eventually(lambda: tag.exists() and location.exists())
    if not tag.exists() or not location.exists():
        raise Failed(f"no files {tag.name} and {location.name} in the cache folder: is its layout another one now?")
    entry = orjson.dumps({**orjson.loads(tag.read_bytes()), "checked_at": time.time()})
    tag.write_bytes(entry)
    return Seed(cache, origin.url, entry, answer.body, location.read_bytes())


def _name(url: str, suffix: str) -> str:
    return hashlib.sha256(f"{url} {VIRTUAL}{suffix}".encode()).hexdigest() + ".json"


def _link(source: Path, targets: Iterator[Path]) -> None:
    """Link *source* to all of *targets*, by way of a copy wherever a file has as many links as it may."""
    for target in targets:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            shutil.copyfile(source, target)
            source = target
