"""What `manifuse publish` makes of a name."""

from __future__ import annotations

import json
from pathlib import Path

from commands.calls import manifuse
from images import push, push_pair
from scripted import Origin


async def test_publish_freezes_what_clients_get(origin: Origin, merging: Path) -> None:
    """A dry run shows and writes nothing; the run pushes; a second one finds everything there."""
    push_pair(origin.registry)
    served = await manifuse("inspect", "kimoqi/alpine:1.0", "--config", merging)
    dry = await manifuse("publish", "kimoqi/alpine:1.0", "--config", merging, "--dry-run")
    wrote = [request for request in origin.requests if request.method not in ("GET", "HEAD")]
    done = await manifuse("publish", "kimoqi/alpine:1.0", "--to", "releases/alpine:v1", "--config", merging)
    again = await manifuse("publish", "kimoqi/alpine:1.0", "--to", "releases/alpine:v1", "--config", merging, "--json")
    frozen = await manifuse("inspect", "releases/alpine:v1", "--config", merging)

    assert (dry.status, done.status, again.status, wrote) == (0, 0, 0, [])
    assert "4 mount" in dry.out
    assert "releases/alpine:v1" in done.out
    assert frozen.out == served.out
    described = json.loads(again.out)
    assert described["published"] is True
    assert {step["how"] for step in described["steps"]} == {"there"}


async def test_publish_merges_anew_when_asked(origin: Origin, merging: Path) -> None:
    """An index at the name itself is what the name is; `--remerge` makes it anew from its sources."""
    push_pair(origin.registry)
    await manifuse("publish", "kimoqi/alpine:1.0", "--config", merging)
    push(origin.registry, "kimoqi/alpine-arm", "1.0", "linux/arm64", text="rebuilt")
    frozen = json.loads((await manifuse("publish", "kimoqi/alpine:1.0", "--config", merging, "--json")).out)
    anew = json.loads((await manifuse("publish", "kimoqi/alpine:1.0", "--remerge", "--config", merging, "--json")).out)
    served = json.loads((await manifuse("inspect", "kimoqi/alpine:1.0", "--config", merging, "--json")).out)

    assert frozen["digest"] != anew["digest"]
    assert served["digest"] == anew["digest"]


async def test_publish_says_why_not(origin: Origin, merging: Path) -> None:
    """What doesn't exist can't be published: one sentence, exit status 1."""
    done = await manifuse("publish", "kimoqi/alpine:1.0", "--config", merging)

    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("manifuse: ")
