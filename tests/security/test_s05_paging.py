"""S5: `n` and `last` of lists, however large or wrong (CVE-2023-2253)."""

from __future__ import annotations

import orjson

from images import push
from process import Process
from scripted import Origin
from security.conftest import StartProcess

_MOST = 5 << 20  # bytes that the process may have grown by
_NAMES = 1200
_QUERIES = [
    *(
        f"n={n}"
        for n in ("2147483647", "-1", "1e9", "1000000000", "", "abc", "1.5", "0x10", "9" * 5000, "%31%30", "+1")
    ),
    *("n", "n=1&n=2147483647", "n=2147483647&last=", f"n=5&last={'a' * 50_000}", "n=5&last=%00%ff", "n=1001"),
]


async def test_a_page_is_refused_or_capped(launch: StartProcess, origin: Origin) -> None:
    """A 4xx, or 1000 names at most; memory stays flat, and the next page is there."""
    for number in range(_NAMES):
        push(origin.registry, "kimoqi/alpine", str(number))
        push(origin.registry, f"kimoqi/r{number}")
    process = await launch(f'[[upstream]]\nname = "registry"\nurl = "{origin.url}"\n')
    for path in ("/v2/_catalog", "/v2/kimoqi/alpine/tags/list"):
        await _pages(process, path)


async def _pages(process: Process, path: str) -> None:
    assert (await process.get(f"{path}?n=10")).status == 200
    before = process.resident
    for query in _QUERIES * 3:
        answer = await process.get(f"{path}?{query}")
        assert answer.status in (200, 400, 414, 431), (query, answer)
        if answer.status == 200:
            document = orjson.loads(answer.body)
            assert len(document.get("tags", document.get("repositories"))) <= 1000, query
        else:
            assert orjson.loads(answer.body)["errors"], query
    for _ in range(3):
        assert (await process.get(f"{path}?n=5&last={'a' * (1 << 20)}")).status == 431
    assert process.resident - before < _MOST
    page = await process.get(f"{path}?n=10")
    assert (page.status, f"{path}?n=10&last=" in page.headers["Link"]) == (200, True)
