"""Whatever a registry does, no pull gets worse than it must, and none is wrong."""

import asyncio
from pathlib import Path

import pytest

from chaos.client import Client, Seen, Verdict
from chaos.faults import FAULTS, Fault, html, status
from chaos.report import Records
from chaos.scenario import HEALING, play, started
from chaos.world import APP, World
from e2e import peers
from e2e.peers import Registry, Workshop

SMOKE = "refuses connections"  # the only one that `make test` plays
NO_ANSWER = {403, 429, 502, 503, 504}  # a 404 would be an answer


def _params() -> list[object]:
    return [
        pytest.param(fault, id=str(fault), marks=() if fault.name == SMOKE else pytest.mark.slow) for fault in FAULTS
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", _params())
async def test_a_fault(
    fault: Fault,
    truth: World,
    registry: Registry,
    workshop: Workshop,
    skopeo: peers.Client,
    records: Records,
    tmp_path: Path,
) -> None:
    """Nothing wrong, shrunken or hung; all that is known is served; nothing bad is kept; everything heals."""
    async with started(truth, registry.address, workshop("proxy")) as scenario:
        record = await play(fault, scenario, skopeo)
        copied = await asyncio.to_thread(_copied, skopeo, scenario.proxy.address, tmp_path)

    assert _with(record.during, Verdict.WRONG, Verdict.SHRUNKEN, Verdict.HUNG) == []
    assert [seen for seen in record.during if seen.verdict is Verdict.ERROR and not _says_nothing(seen)] == []
    assert [seen for seen in record.served if seen.verdict is not Verdict.RIGHT] == []
    assert [seen for seen in record.half if "half-known" in seen.what and seen.verdict is not Verdict.RIGHT] == []
    assert record.skopeo == {tag: truth.indexes[APP, tag].decode() for tag in ("hot", "known")}
    assert record.strangers == []
    assert [seen for seen in record.after if not seen.is_fresh] == []
    assert record.healed_in < HEALING
    assert copied == truth.indexes[APP, "copied"]
    records[fault.name] = record


@pytest.mark.slow
async def test_a_login_page_is_no_short_blob(truth: World, registry: Registry, workshop: Workshop) -> None:
    """A part of a blob isn't refused as being behind its end because a login page is short."""
    async with started(truth, registry.address, workshop("proxy")) as scenario:
        scenario.main.answer = html
        async with Client(scenario.proxy.url) as client:
            half = truth.halves[APP, "known"]["x86"]
            seen = await client.part(APP, half.layer, half.layer_bytes)

    assert seen.status in NO_ANSWER, seen


@pytest.mark.slow
async def test_a_refused_digest_is_not_missing(truth: World, registry: Registry, workshop: Workshop) -> None:
    """A manifest that only a refusing source can have is refused, not unknown: that would be an answer."""
    async with started(truth, registry.address, workshop("proxy")) as scenario:
        scenario.arm.answer = status(401, b'WWW-Authenticate: Basic realm="registry"')
        async with Client(scenario.proxy.url) as client:
            half = truth.halves[APP, "cold"]["arm"]
            seen = await client.manifest(APP, half.manifest, half.manifest_bytes)

    assert seen.status in NO_ANSWER, seen


def _says_nothing(seen: Seen) -> bool:
    """Whether an error claims nothing about what exists."""
    return seen.status in NO_ANSWER


def _with(seen: list[Seen], *verdicts: Verdict) -> list[Seen]:
    return [each for each in seen if each.verdict in verdicts]


def _copied(skopeo: peers.Client, proxy: str, folder: Path) -> bytes:
    """Copy a cold image with all that is in it, and return its index; skopeo checks every digest."""
    source = f"docker://{proxy}/{APP}:copied"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"dir:{folder}/copy")
    return (folder / "copy" / "manifest.json").read_bytes()
