"""A vulnerability fails the audit; an answer that says nothing is told to say nothing."""

from __future__ import annotations

import orjson
import pytest

from supply.advisories import judge

_GOOD = {"name": "yarl", "version": "1.25.1", "vulns": []}
_BAD = {"name": "aiohttp", "version": "3.13.2", "vulns": [{"id": "CVE-2026-34525", "fix_versions": ["3.13.4"]}]}
_UNKNOWN = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("found", "status", "text"),
    [
        ([_GOOD, _GOOD], 0, "2 packages without a known vulnerability"),
        ([_GOOD, _BAD, _UNKNOWN], 1, "aiohttp 3.13.2: CVE-2026-34525, fixed in 3.13.4"),
        ([_GOOD, _UNKNOWN], 0, "WARNING: not checked, as the database doesn't know them: rich"),
        ([_UNKNOWN], 0, "WARNING: the vulnerability database knows none of the packages, nothing was checked"),
        ([], 0, "WARNING: the vulnerability database knows none of the packages, nothing was checked"),
    ],
)
def test_what_was_found(found: list[object], status: int, text: str) -> None:
    """Of packages, those that were looked up count."""
    verdict = judge(orjson.dumps({"dependencies": found, "fixes": []}).decode(), "", 1 if _BAD in found else 0)

    assert (verdict.status, verdict.text) == (status, text)


def test_what_could_not_be_asked() -> None:
    """No connection is a warning, anything else a failure."""
    unreached = "Traceback\nrequests.exceptions.ConnectionError: Failed to resolve 'index.example'"

    assert judge("", unreached, 1).status == 0
    assert judge("", unreached, 1).text.startswith("WARNING: the vulnerability database can't be reached")
    for broken_off in ("SSLError: EOF", "ProxyError: Bad Gateway", "ChunkedEncodingError: Connection broken"):
        assert judge("", f"Traceback\nrequests.exceptions.{broken_off}", 1).status == 0
    assert judge("", "ERROR: invalid requirement", 1) == judge("[]", "ERROR: invalid requirement", 1)
    assert judge("", "ERROR: invalid requirement", 1).status == 2
