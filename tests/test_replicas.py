"""Replicas that saw different tags of one repository make the same bytes (law 2): what is learned changes no answer."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Clock
from images import VIRTUAL, entry, push, push_attestation, push_index
from proxy.app import Running, serve
from proxy.merge.convention import meanings
from proxy.oci.errors import NotFound
from proxy.settings.keys import Settings
from scripted import Origin, running

Image = tuple[str, str]
"""The word behind the repository's name, if there is one, and the platform that the image is made for."""

TAGS = ("1.0", "2.0")
WORDS = ("x86", "amd64", "x86_64", "arm", "arm64", "aarch64")
# Each word with every platform that it may mean: builds don't lie here.
NAMED = [(word, str(platform)) for word in WORDS for platform in meanings(word, ())]
UNNAMED = [("", platform) for platform in ("linux/amd64", "linux/s390x")]
RULES = {"match": "**", "conventions": ["repository-suffix"]}

releases = st.lists(st.sampled_from(NAMED + UNNAMED), max_size=3, unique_by=lambda image: image[0])


@settings(max_examples=40, deadline=None)
@given(st.tuples(releases, releases), st.booleans(), st.sampled_from(TAGS), st.sampled_from(NAMED + UNNAMED))
def test_what_was_learned_changes_no_answer(
    pushed: tuple[list[Image], list[Image]], wrapped: bool, tag: str, late: Image
) -> None:
    """Whichever tag was pulled first, also after another image came; and it is explained as it is served."""
    asyncio.run(_compared(dict(zip(TAGS, pushed, strict=True)), wrapped, tag, late))


async def _compared(pushed: dict[str, list[Image]], wrapped: bool, tag: str, late: Image) -> None:
    origin, clock = Origin(), Clock()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        await stack.enter_async_context(running(origin))
        replicas = [
            await stack.enter_async_context(serve(_settings(origin, folder / name), clock)) for name in ("one", "other")
        ]
        for name, images in pushed.items():
            for image in images:
                _push(origin, image, name, wrapped=wrapped)
        for replica, order in zip(replicas, (TAGS, TAGS[::-1]), strict=True):
            for name in order:
                await _served(replica, name)
        await _agree(replicas)
        _push(origin, late, tag, wrapped=False)
        clock.advance(61)
        await _agree(replicas)


async def _agree(replicas: list[Running]) -> None:
    for tag in TAGS:
        served = [await _served(replica, tag) for replica in replicas]
        told = [(await replica.site.explain(f"{VIRTUAL}:{tag}")).digest for replica in replicas]
        assert served == told
        assert len(set(served)) == 1


async def _served(replica: Running, tag: str) -> str:
    """Return the digest that a client gets, or nothing where it is told that there is none."""
    try:
        return (await replica.site.manifest(f"{VIRTUAL}:{tag}")).descriptor.digest
    except NotFound:
        return ""


def _push(origin: Origin, image: Image, tag: str, *, wrapped: bool) -> None:
    """Push an image, as it is or in an index with its provenance."""
    word, platform = image
    repository = f"{VIRTUAL}-{word}" if word else VIRTUAL
    pushed = push(origin.registry, repository, tag, platform)
    if wrapped:
        provenance = push_attestation(origin.registry, repository, pushed)
        push_index(origin.registry, repository, tag, [entry(pushed, platform), provenance])


def _settings(origin: Origin, folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "drain": "1s",
            "upstream": [{"name": "hub", "url": origin.url, "retries": 0, "breaker": 0}],
            "rule": [RULES],
            "cache": {"dir": folder, "stale_while_revalidate": "0s"},
        }
    )
