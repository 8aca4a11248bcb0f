"""The registry in a dictionary, and the demo's images in it."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import orjson
import pytest

from images import push, push_referrer
from proxy import demo
from proxy.memory import MemoryRegistry
from proxy.oci.byterange import ByteRange, Nothing, SuffixRange, Whole
from proxy.oci.document import Image, parse, parse_platform
from proxy.oci.errors import BlobUnknown, ManifestUnknown, NameUnknown, RangeInvalid
from proxy.oci.mediatype import ANYTHING
from proxy.oci.platform import normalize
from proxy.oci.reference import Digest, Repository, Tag

TEAM = Repository("team/app")


async def test_what_was_pushed_is_pulled() -> None:
    """A manifest is found by tag and by digest, its blobs by digest."""
    registry = MemoryRegistry()
    pushed = push(registry, TEAM)

    by_tag = await registry.manifest(TEAM, Tag("1.0"), ANYTHING)
    by_digest = await registry.resolve(TEAM, pushed.digest, ANYTHING)

    assert by_tag.descriptor == by_digest.descriptor == pushed
    assert isinstance(parse(by_tag.body, pushed.media_type), Image)


async def test_what_was_not_pushed_is_unknown() -> None:
    """Missing manifests, blobs and repositories are told apart."""
    registry = MemoryRegistry()

    with pytest.raises(ManifestUnknown):
        await registry.manifest(TEAM, Tag("1.0"), ANYTHING)
    with pytest.raises(NameUnknown):
        await registry.tags(TEAM, None, "")
    with pytest.raises(BlobUnknown):
        async with registry.blob(TEAM, Digest.of(b""), Whole()):
            pass


@pytest.mark.parametrize(
    ("part", "expected"), [(Whole(), b"hello"), (Nothing(), b""), (ByteRange(1, 2), b"el"), (SuffixRange(2), b"lo")]
)
async def test_parts_of_blobs(part: Whole | Nothing | ByteRange | SuffixRange, expected: bytes) -> None:
    """A blob is read whole, in part or not at all; its size is always known."""
    registry = MemoryRegistry()
    digest = registry.add_blob(TEAM, b"hello")

    async with registry.blob(TEAM, digest, part) as blob:
        data = b"".join([chunk async for chunk in blob.chunks])

    assert (data, blob.size) == (expected, 5)


async def test_a_range_behind_the_end() -> None:
    """A range that holds nothing is refused."""
    registry = MemoryRegistry()
    digest = registry.add_blob(TEAM, b"hello")

    with pytest.raises(RangeInvalid):
        async with registry.blob(TEAM, digest, ByteRange(5)):
            pass


async def test_tags_are_paged() -> None:
    """Tags come sorted, behind the last one, as many as wanted."""
    registry = MemoryRegistry()
    for tag in ("b", "a", "c"):
        push(registry, TEAM, tag)

    page = await registry.tags(TEAM, 1, "a")

    assert (page.tags, page.more) == (("b",), True)


async def test_referrers_name_their_subject() -> None:
    """What has a digest for its subject refers to it, in its own repository."""
    registry = MemoryRegistry()
    pushed = push(registry, TEAM)
    sbom = push_referrer(registry, TEAM, pushed.digest, tag="sbom")
    push_referrer(registry, "team/other", pushed.digest)

    assert await registry.referrers(TEAM, pushed.digest) == (sbom,)
    assert await registry.referrers(TEAM, sbom.digest) == ()


async def test_repositories_are_paged() -> None:
    """Repositories come sorted, behind the last one, as many as wanted."""
    registry = MemoryRegistry()
    for name in ("b", "a", "c"):
        push(registry, name)

    page = await registry.catalog(1, "a")

    assert (page.repositories, page.more) == (("b",), True)
    assert (await registry.catalog(None, "")).repositories == ("a", "b", "c")


def test_the_demo_is_the_same_every_time() -> None:
    """The demo's images have the same digests on every machine."""
    first, second = demo.fill(MemoryRegistry()), demo.fill(MemoryRegistry())

    assert first == second
    assert [str(repository) for repository, _, _ in first] == ["kimoqi/alpine-x86", "kimoqi/alpine-arm"]


async def test_the_demos_configs_tell_the_truth() -> None:
    """Each image's config names the platform that its program is for."""
    registry = MemoryRegistry()
    for repository, platform, _ in demo.fill(registry):
        manifest = await registry.manifest(repository, demo.TAG, ANYTHING)
        config = Digest.parse(orjson.loads(manifest.body)["config"]["digest"])
        async with registry.blob(repository, config, Whole()) as blob:
            data = b"".join([chunk async for chunk in blob.chunks])

        written = parse_platform(data)
        assert written is not None
        assert normalize(written) == normalize(platform)


@pytest.mark.parametrize("machine", [machine for _, machine in demo.machines()], ids=["amd64", "arm64"])
def test_the_demos_programs_say_hello(machine: demo.Machine, tmp_path: Path) -> None:
    """The program in each image's layer runs and says where, natively or emulated."""
    packed, diff_id = demo.layer(machine)
    plain = gzip.decompress(packed)
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        archive.extractall(tmp_path, filter="data")
    runner = shutil.which(f"qemu-{ {62: 'x86_64', 183: 'aarch64'}[machine.elf] }-static")
    if runner is None:
        pytest.skip("no qemu-user-static to run it with")

    said = subprocess.run([runner, tmp_path / "hello"], capture_output=True, check=True, timeout=30)

    assert said.stdout == machine.message
    assert Digest.of(plain) == diff_id
