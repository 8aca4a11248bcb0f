"""A cache folder full of tags that nobody has pulled."""

from __future__ import annotations

import hashlib
from pathlib import Path

import orjson
import pytest

from loadtest.images import VIRTUAL, release
from loadtest.known import Seed

URL = "http://127.0.0.1:1"
INDEX = release("0", 1, 10).ready


def seed(folder: Path) -> Seed:
    """Lay out a folder as the cache does."""
    digest = INDEX.descriptor.digest
    entry = orjson.dumps({"descriptor": {"digest": digest, "size": len(INDEX.body)}, "checked_at": 1.0})
    tag, location = (hashlib.sha256(f"{URL} {VIRTUAL}{name}".encode()).hexdigest() for name in (":0", f"@{digest}"))
    files = {
        f"tags/{tag}.json": entry,
        f"locations/{location}.json": b"{}",
        f"content/blobs/sha256/{digest.hex}": INDEX.body,
    }
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(data)
    return Seed(folder, URL, entry, INDEX.body, b"{}")


@pytest.mark.parametrize(("different", "indexes"), [(False, 1), (True, 5)])
def test_tags_are_known_by_their_names(tmp_path: Path, *, different: bool, indexes: int) -> None:
    """Tags are known by their names."""
    seed(tmp_path / "seed").fill(tmp_path / "full", 5, different=different)

    for number in range(5):
        name = hashlib.sha256(f"{URL} {VIRTUAL}:{number}".encode()).hexdigest()
        digest = orjson.loads((tmp_path / "full" / "tags" / f"{name}.json").read_bytes())["descriptor"]["digest"]
        body = (tmp_path / "full" / "content/blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()
        assert hashlib.sha256(body).hexdigest() == digest.removeprefix("sha256:")
        assert len(body) == len(INDEX.body)
    assert len(list((tmp_path / "full" / "content/blobs/sha256").iterdir())) == indexes
