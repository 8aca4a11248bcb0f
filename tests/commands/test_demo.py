"""What `manifuse demo` shows."""

from __future__ import annotations

import asyncio
import re
import signal

import aiohttp

from commands.calls import manifuse, started
from patience import HANGING
from proxy import demo


async def test_demo_shows_a_merge() -> None:
    """`demo --once` shows the two images, the index made of them, and the lines to try; it needs nothing."""
    done = await manifuse("demo", "--once")

    assert (done.status, done.err) == (0, "")
    assert done.out.count("linux/amd64") == 2
    assert done.out.count("linux/arm64/v8") == 2
    assert "To try it, run `manifuse demo` without --once:" in done.out
    for line in ("docker run --rm ", "podman pull ", "skopeo inspect ", "curl -s http://"):
        assert f"  {line}" in done.out


async def test_demo_keeps_running_until_it_is_stopped() -> None:
    """The lines it shows work while it runs: the index can be fetched. SIGINT ends it with exit status 0."""
    async with started("demo") as process, asyncio.timeout(HANGING), aiohttp.ClientSession() as session:
        assert process.stdout is not None
        url, said = "", ""
        async for line in process.stdout:
            said += line.decode()
            found = re.search(rf"curl -s (http://\S+/v2/{demo.VIRTUAL}/manifests/{demo.TAG})", line.decode())
            if found:
                url = found[1]
                break
        async with session.get(url) as response:
            index = await response.json(content_type=None)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert [child["platform"]["architecture"] for child in index["manifests"]] == ["amd64", "arm64"]
    assert "Try it, until Ctrl-C ends it:" in said
    assert "--once" not in said
    assert (process.returncode, err) == (0, b"")
