"""What `manifuse explain` and `manifuse inspect` say of a name."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

from commands.calls import CONFIG, Done, called, manifuse, written
from images import push, push_pair, push_referrer
from patience import HANGING
from proxy.oci import mediatype
from proxy.oci.reference import Digest
from scripted import Origin, reset


async def test_explain_says_what_came_of_every_source(origin: Origin, merging: Path) -> None:
    """The rule, each source with what it is, and what is served in the end."""
    push_pair(origin.registry)

    done = await manifuse("explain", "kimoqi/alpine:1.0", "--config", merging)

    assert (done.status, done.err) == (0, "")
    assert "kimoqi/alpine:1.0 on registry: rule[0] (match kimoqi/*)" in done.out
    assert re.search(r"registry/kimoqi/alpine-x86:1.0 +linux/amd64 .*found ", done.out)
    assert re.search(r"registry/kimoqi/alpine-arm:1.0 +linux/arm64/v8 .*found ", done.out)
    assert re.search(r"registry/kimoqi/alpine:1.0 .*absent ", done.out)
    assert mediatype.DOCKER_LIST in done.out


async def test_explain_lets_no_image_write_to_the_terminal(origin: Origin, merging: Path) -> None:
    """What an image says of itself is shown, and is neither markup nor an order to the terminal."""
    push(origin.registry, "kimoqi/alpine-arm", platform="linux/arm64")
    kind = "\x1b[2J[b]x[/] [/y] :bomb:\nserve"
    push_referrer(origin.registry, "kimoqi/alpine-x86", Digest.of(b"image"), kind, "1.0")

    done = await manifuse("explain", "kimoqi/alpine:1.0", "--config", merging)

    assert (done.status, done.err) == (0, "")
    assert "\x1b" not in done.out
    assert r"not a runnable image: \x1b[2J[b]x[/] [/y] :bomb:\nserve" in done.out


async def test_explain_writes_json(origin: Origin, merging: Path) -> None:
    """Programs get the same as JSON."""
    push_pair(origin.registry)

    done = await manifuse("explain", "kimoqi/alpine:1.0", "--config", merging, "--json")
    found = json.loads(done.out)

    assert done.status == 0
    assert found["verdict"] == "serve"
    assert {(question["source"], question["result"]) for question in found["questions"]} == {
        ("registry/kimoqi/alpine-x86:1.0", "found"),
        ("registry/kimoqi/alpine-arm:1.0", "found"),
        ("registry/kimoqi/alpine:1.0", "absent"),
    }


@pytest.mark.parametrize("command", ["explain", "inspect"])
async def test_an_image_may_be_called_as_its_registry_has_it(command: str, origin: Origin, merging: Path) -> None:
    """The registry's host and port in front of a name mean its upstream; another's are nobody's."""
    push_pair(origin.registry)
    host = origin.url.removeprefix("http://")

    done = await manifuse(command, f"{host}/kimoqi/alpine:1.0", "--config", merging)
    strange = await manifuse(command, "registry.example:5000/kimoqi/alpine:1.0", "--config", merging)

    assert (done.status, done.err) == (0, "")
    assert mediatype.DOCKER_LIST in done.out
    assert strange == Done(1, "", "manifuse: no upstream is called 'registry.example:5000'\n")


async def test_explain_fails_where_there_is_nothing(merging: Path) -> None:
    """An image that none of its sources has: the same picture, and exit status 1."""
    done = await manifuse("explain", "kimoqi/none:1.0", "--config", merging)

    assert (done.status, done.err) == (1, "")
    assert "refuse: " in done.out
    assert "kimoqi/none-x86:1.0" in done.out


async def test_inspect_shows_what_clients_get(origin: Origin, merging: Path) -> None:
    """The index byte for byte: its digest is the one that clients see. A newline ends it on the terminal alone."""
    push_pair(origin.registry)

    plain = await manifuse("inspect", "kimoqi/alpine:1.0", "--config", merging)
    described = json.loads((await manifuse("inspect", "kimoqi/alpine:1.0", "--config", merging, "--json")).out)

    assert (plain.status, plain.err) == (0, "")
    assert Digest.of(plain.out.encode()) == described["digest"]
    assert described["manifest"] == json.loads(plain.out)
    assert described["mediaType"] == mediatype.DOCKER_LIST
    assert [child["platform"]["architecture"] for child in described["manifest"]["manifests"]] == ["amd64", "arm64"]


async def test_an_image_may_be_written_as_clients_write_it(origin: Origin, tmp_path: Path) -> None:
    """The proxy's own address in front of a name is taken off."""
    push_pair(origin.registry)
    path = written(tmp_path, CONFIG.replace("URL", origin.url).replace('"127.0.0.1:0"', '"127.0.0.1:5080"', 1))

    for prefix in ("", "127.0.0.1:5080/", "localhost:5080/"):
        done = await manifuse("inspect", f"{prefix}kimoqi/alpine:1.0", "--config", path)

        assert (done.status, done.err) == (0, "")


async def test_a_tag_may_be_a_number(config: Path) -> None:
    """What stands behind a colon is a port only where a slash follows."""
    assert (await manifuse("inspect", "alpine:8", "--config", config)).err.startswith("manifuse: no answer on alpine:8")


@pytest.mark.parametrize("command", [["inspect"], ["explain"], ["explain", "--json"], ["publish", "--dry-run"]])
async def test_an_answer_that_can_not_be_written_is_one_sentence(
    command: list[str], origin: Origin, merging: Path
) -> None:
    """A file that finds no room is a failure without a trace."""
    push_pair(origin.registry)
    arguments = [sys.executable, "-m", "proxy", *command, "kimoqi/alpine:1.0", "--config", str(merging)]
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = await asyncio.create_subprocess_exec(*arguments, stdout=full, stderr=asyncio.subprocess.PIPE)
    finally:
        os.close(full)
    async with asyncio.timeout(HANGING):
        _, err = await process.communicate()

    assert (process.returncode, err) == (1, b"manifuse: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("command", [["inspect"], ["explain"], ["explain", "--json"], ["publish", "--dry-run"]])
async def test_whoever_has_read_enough_hears_nothing(command: list[str], origin: Origin, merging: Path) -> None:
    """As `head` does, which leaves: that is no trouble to be told of."""
    push_pair(origin.registry)
    arguments = [sys.executable, "-m", "proxy", *command, "kimoqi/alpine:1.0", "--config", str(merging)]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = await asyncio.create_subprocess_exec(*arguments, stdout=writer, stderr=asyncio.subprocess.PIPE)
    finally:
        os.close(writer)
    async with asyncio.timeout(HANGING):
        _, err = await process.communicate()

    assert (process.returncode, err) == (1, b"")


@pytest.mark.parametrize("image", ["Kimoqi/Alpine", "kimoqi//alpine", "kimoqi/alpine:-", "", "a@sha256:0", "ü"])
def test_a_name_that_is_none_is_one_sentence(image: str, config: Path) -> None:
    """A malformed image name fails with a sentence and without a trace."""
    done = called("inspect", image, "--config", config)

    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("manifuse: ")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["explain", "inspect"])
async def test_a_registry_that_is_away_is_said_to_be(command: str, config: Path) -> None:
    """Nobody listens there: exit status 1, and the cause in words."""
    done = await manifuse(command, "kimoqi/alpine:1.0", "--config", config)

    assert done.status == 1
    assert "no answer on kimoqi/alpine:1.0" in done.out + done.err
    assert "Traceback" not in done.out + done.err


async def test_a_registry_that_breaks_off_is_said_to(origin: Origin, merging: Path) -> None:
    """A source that fails is shown to have given no answer, not as absent."""
    push_pair(origin.registry)
    origin.fail("alpine-arm", reset())

    done = await manifuse("explain", "kimoqi/alpine:1.0", "--config", merging, "--json")

    assert done.status == 1
    assert {q["source"]: q["result"] for q in json.loads(done.out)["questions"]} == {
        "registry/kimoqi/alpine-x86:1.0": "found",
        "registry/kimoqi/alpine-arm:1.0": "no answer",
        "registry/kimoqi/alpine:1.0": "absent",
    }


async def test_an_unusable_cache_folder_stops_nobody(
    origin: Origin, merging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache folder that can't be made costs a warning, and nothing else."""
    push_pair(origin.registry)
    monkeypatch.setenv("MANIFUSE_CACHE__DIR", "/dev/null/cache")

    done = await manifuse("inspect", "kimoqi/alpine:1.0", "--config", merging, "--json")

    assert done.status == 0
    assert json.loads(done.out)["mediaType"] == mediatype.DOCKER_LIST
