"""S18: a source brings what its rule says, and can't take another one's place, whatever its config claims."""

from __future__ import annotations

from itertools import product

from images import ARM, X86, entry, push, push_index
from process import Process
from proxy.oci import mediatype
from proxy.oci.content import Descriptor
from scripted import Origin
from security.conftest import StartProcess
from security.upstreams import TAG, children, no_error_of_ours, pair

_AMD64, _ARM64 = "linux/amd64", "linux/arm64"
_X86 = f'{{ image = "{{repository}}-x86:{{tag}}", platform = "{_AMD64}" }}'
_ARM = f'{{ image = "{{repository}}-arm:{{tag}}", platform = "{_ARM64}" }}'
_TRUST = ["auto", "rule", "config", "reject"]
_WAYS = {  # how a rule names its sources, those of the repository that lies last, or in front, where it has precedence
    "last": f"sources = [{_X86}, {_ARM}]",
    "first": f"sources = [{_ARM}, {_X86}]",
    "guessed": f'conventions = ["repository-suffix"]\nplatforms = ["{_ARM64}", "{_AMD64}"]',
}
_CASES = list(product(_TRUST, _WAYS))


def _config(origin: Origin) -> str:
    """Write a configuration with a rule for every case."""
    rules = [f'[[rule]]\nmatch = "{t}/{w}"\ntrust = "{t}"\n{_WAYS[w]}\n' for t, w in _CASES]
    return f'[[upstream]]\nname = "registry"\nurl = "{origin.url}"\n' + "".join(rules)


async def _merged(process: Process, trust: str, way: str) -> dict[str, str]:
    return children((await process.get(f"/v2/{trust}/{way}/manifests/1.0")).body)


async def test_a_source_that_claims_anothers_platform(launch: StartProcess, origin: Origin) -> None:
    """The image of the arm repository says amd64. The amd64 one's is amd64 all the same; the lie is told."""
    process = await launch(_config(origin))
    for trust, way in _CASES:
        x86 = push(origin.registry, f"{trust}/{way}-x86", "1.0", _AMD64)
        liar = push(origin.registry, f"{trust}/{way}-arm", "1.0", _AMD64)
        expected = {_AMD64: x86.digest} | ({_ARM64: liar.digest} if trust in ("auto", "rule") else {})
        assert await _merged(process, trust, way) == expected, (trust, way)
        told = (await process.page(f"/explain/{trust}/{way}:1.0")).body.decode()
        assert f"registry/{trust}/{way}-arm:1.0 says it is linux/amd64" in told
    metrics = (await process.page("/metrics")).body.decode()
    assert f"manifuse_platform_mismatches_total {len(_CASES)}.0" in metrics
    await no_error_of_ours(process)


def _inner(origin: Origin, repository: str, *platforms: str) -> list[Descriptor]:
    """Push an image of each platform, and an index of them as tag 1.0."""
    images = [
        push(origin.registry, repository, f"inner-{n}", platform, text=str(n), media_type=mediatype.OCI_MANIFEST)
        for n, platform in enumerate(platforms)
    ]
    push_index(origin.registry, repository, "1.0", [entry(*each) for each in zip(images, platforms, strict=True)])
    return images


async def test_a_source_that_brings_more_than_its_own(launch: StartProcess, origin: Origin) -> None:
    """Its index holds amd64 twice, and arm64 twice: it gets its own platform, once, and the first of the two."""
    process = await launch(_config(origin))
    for trust, way in _CASES:
        x86 = push(origin.registry, f"{trust}/{way}-x86", "1.0", _AMD64, media_type=mediatype.OCI_MANIFEST)
        images = _inner(origin, f"{trust}/{way}-arm", _AMD64, _ARM64, _AMD64, _ARM64)
        assert await _merged(process, trust, way) == {_AMD64: x86.digest, _ARM64: images[1].digest}, (trust, way)
    await no_error_of_ours(process)


async def test_sources_without_a_written_platform(launch: StartProcess, origin: Origin) -> None:
    """Where the rule writes none, the config counts, and the first source of a platform keeps it."""
    x86 = push(origin.registry, X86, "1.0", _AMD64)
    push(origin.registry, ARM, "1.0", _AMD64)
    config = pair(origin).replace(f', platform = "{_AMD64}"', "").replace(f', platform = "{_ARM64}"', "")
    process = await launch(config)
    assert children((await process.get(TAG)).body) == {_AMD64: x86.digest}
