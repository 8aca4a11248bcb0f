"""The table of docs/clients.md: which client can do what, as a run of these tests saw it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from e2e.peers import BIN, installed

BEGIN: Final = "<!-- clients: begin (`make clients` writes what is between these lines) -->"
END: Final = "<!-- clients: end -->"
_HEAD: Final = "| client | operation | result |\n|---|---|---|\n"
CLIENTS: Final = (
    *("docker", "containerd", "podman", "buildah", "skopeo"),
    *("buildx", "crane", "regctl", "oras", "helm", "cosign"),
)
_WORDS: Final = {"passed": "works", "failed": "fails", "skipped": "not run"}
_BAD_FIRST: Final = ("failed", "skipped", "passed")

Operation = tuple[str, str]  # a client and what it does
Outcomes = dict[Operation, set[str]]  # of all tests of it


def table(outcomes: Outcomes) -> str:
    """Return the table; an operation works if it does in every test of it."""
    return _HEAD + "".join(_rows(client, outcomes) for client in CLIENTS)


def write(page: Path, outcomes: Outcomes) -> None:
    """Write the table into the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{table(outcomes)}\n{END}{after}")


def _rows(client: str, outcomes: Outcomes) -> str:
    lines = []
    name = f"{client} {_version(client)}".strip()
    for (owner, operation), seen in sorted(outcomes.items()):
        if owner == client:
            result = next(_WORDS[outcome] for outcome in _BAD_FIRST if outcome in seen)
            lines.append(f"| {name} | `{operation}` | {result} |\n")
            name = ""
    return "".join(lines)


def _version(client: str) -> str:
    """Return the version of a client: the one that `.ci/peers` has pinned, or what it says itself."""
    pinned = BIN / "versions"
    text = pinned.read_text() if pinned.exists() else ""
    if found := re.search(rf"^{client}=.*@v(.+)$", text, re.MULTILINE):
        return found[1]
    path = installed(client)
    if path is None:
        return ""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"\d+(?:\.\d+)+", said.stdout)
    return found[0] if found else ""
