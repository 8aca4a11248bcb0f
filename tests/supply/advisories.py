"""Known vulnerabilities of what is locked: pip-audit, and what its answer is worth.

pip-audit ends well, too, when its database knew none of the packages, as behind an index that has files alone. Here
that is said: `python -m supply.advisories LOCK…` ends with 1 where a package has a known vulnerability, with 2 where
pip-audit itself failed, and with 0 and a warning where the database wasn't reached.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

_UNREACHED = (
    *("ConnectionError", "ConnectTimeout", "ReadTimeout", "NameResolutionError", "ServiceError", "HTTPError"),
    *("SSLError", "ProxyError", "ChunkedEncodingError"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said, and the exit status."""

    text: str
    status: int


def judge(output: str, errors: str, status: int) -> Verdict:
    """Judge what pip-audit wrote with `--format json`, and the exit status that it ended with."""
    try:
        found: list[dict[str, Any]] = orjson.loads(output)["dependencies"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        last = (errors.strip().splitlines() or [f"it ended with {status}"])[-1]
        if any(word in errors for word in _UNREACHED):
            return Verdict(f"WARNING: the vulnerability database can't be reached, nothing was checked: {last}", 0)
        return Verdict(f"pip-audit failed: {last}", 2)
    vulnerable = [(each, flaw) for each in found for flaw in each.get("vulns", ())]
    if vulnerable:
        return Verdict("\n".join(_line(each, flaw) for each, flaw in vulnerable), 1)
    skipped = sorted(each["name"] for each in found if "skip_reason" in each)
    if len(skipped) == len(found):
        return Verdict("WARNING: the vulnerability database knows none of the packages, nothing was checked", 0)
    if skipped:
        return Verdict(f"WARNING: not checked, as the database doesn't know them: {', '.join(skipped)}", 0)
    return Verdict(f"{len(found)} packages without a known vulnerability", 0 if status == 0 else 2)


def _line(package: dict[str, Any], flaw: dict[str, Any]) -> str:
    fixed = ", ".join(flaw.get("fix_versions") or ()) or "no version"
    return f"{package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}"


def main() -> None:
    """Audit the locks that are named."""
    status = 0
    for lock in map(Path, sys.argv[1:]):
        command: list[str | Path] = [
            Path(sys.executable).with_name("pip-audit"),
            "--requirement",
            lock,
            "--require-hashes",
            "--disable-pip",
        ]
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True, check=False
        )
        verdict = judge(done.stdout, done.stderr, done.returncode)
        sys.stderr.write(f"{lock}: {verdict.text}\n")
        status = max(status, verdict.status)
    sys.exit(status)


if __name__ == "__main__":
    main()
