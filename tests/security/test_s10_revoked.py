"""S10: a refusal is no trouble that an old answer could stand in for.

Timeouts, 5xx and 429 may be answered with what was before, for `stale_if_error`; 401 and 403 for `stale_if_refused` at
most, which may be nothing; a 404 never.
"""

from __future__ import annotations

import asyncio

import pytest

from images import push_pair
from scripted import Origin, hang, reset, status
from security.conftest import StartProcess

TAG = "/v2/kimoqi/alpine/manifests/1.0"
_TTL = 0.002  # seconds: longer than what was found counts where that is "1ms"; an answer may take less
CONFIG = """
[[upstream]]
name = "registry"
url = "{url}"
retries = 0
breaker = 0
timeouts = {{ header = "2s" }}
[[rule]]
match = "kimoqi/alpine"
base = "ignore"
sources = [{{ image = "{{repository}}-x86:{{tag}}" }}, {{ image = "{{repository}}-arm:{{tag}}" }}]
[cache]
dir = "{dir}"
tag_ttl = "1ms"
stale_while_revalidate = "0s"
stale_if_error = "{error}"
stale_if_refused = "0s"
negative_ttl = "0s"
"""


@pytest.mark.parametrize("code", [401, 403, 404])
async def test_no_is_no(launch: StartProcess, origin: Origin, tmp_path: object, code: int) -> None:
    """Both sources say it; nothing that was before is answered, and what comes back is."""
    push_pair(origin.registry)
    process = await launch(CONFIG.format(url=origin.url, dir=f"{tmp_path}/cache", error="24h"))
    before = await process.get(TAG)
    origin.fail("manifests", status(code))
    await asyncio.sleep(_TTL)
    refused = await process.get(TAG)
    assert (before.status, refused.status) == (200, 404 if code == 404 else 403)
    assert before.headers["Docker-Content-Digest"] not in refused.body.decode()
    origin.heal()
    assert (await process.get(TAG)).body == before.body


@pytest.mark.parametrize("fault", [status(500), status(503), status(429), hang(), reset()])
async def test_no_answer_is_bounded(launch: StartProcess, origin: Origin, tmp_path: object, fault: object) -> None:
    """What was before stands in for it, and says so, until `stale_if_error` is over."""
    push_pair(origin.registry)
    process = await launch(CONFIG.format(url=origin.url, dir=f"{tmp_path}/cache", error="24h"))
    before = await process.get(TAG)
    origin.fail("manifests", fault)  # type: ignore[arg-type]  # parametrized
    await asyncio.sleep(_TTL)
    stale = await process.get(TAG)
    assert (stale.status, stale.body) == (200, before.body)
    assert stale.headers["X-Manifuse-Cache"] == "stale"
    assert "Warning" in stale.headers


async def test_an_old_answer_ends(launch: StartProcess, origin: Origin, tmp_path: object) -> None:
    """Without `stale_if_error` nothing stands in."""
    push_pair(origin.registry)
    process = await launch(CONFIG.format(url=origin.url, dir=f"{tmp_path}/cache", error="0s"))
    assert (await process.get(TAG)).status == 200
    origin.fail("manifests", status(503))
    await asyncio.sleep(_TTL)
    assert (await process.get(TAG)).status == 503
