"""The OCI conformance suite: run against one address, and what it found there."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from e2e.peers import ClientFailed, command

Settings = Mapping[str, str]  # by variable, without `OCI_`
Results = Mapping[str, Counter[str]]  # by test, how often it passed, was skipped, or not; some run many times

_RESULT: Final = re.compile(r"^ +OCI Conformance Test/(.+): (Pass|Skip|Disabled|FAIL|Error)$", re.MULTILINE)
_WORDS: Final = {"Pass": "pass", "Skip": "skip", "Disabled": "off", "FAIL": "fail", "Error": "fail"}
# Everything that version 1.1 of the specification has; what it only recommends stays optional, as the suite has it.
_ALWAYS: Final[Settings] = {"TLS": "disabled", "VERSION": "1.1", "LOG": "error"}


def run(address: str, folder: Path, settings: Settings) -> Results:
    """Run the suite against what listens on *address*; its own report is kept in *folder*."""
    settings = {**_ALWAYS, **settings, "REGISTRY": address, "RESULTS_DIR": str(folder)}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}
    done = subprocess.run(
        [command("conformance")],
        stdin=subprocess.DEVNULL,
        env=clean | {f"OCI_{name}": value for name, value in settings.items()},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,  # it fails where any test does, as one does with every registry
    )
    results = read(done.stdout)
    if not results:
        raise ClientFailed(f"conformance has no results\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return results


def read(printed: str) -> Results:
    """Read the results that the suite has printed.

    Its files say the same, but there are none after a run that only reads: it panics before it has written them.
    """
    results: dict[str, Counter[str]] = {}
    found = _RESULT.findall(printed)
    for (name, status), (following, _) in pairwise([*found, ("", "")]):
        if not following.startswith(f"{name}/"):  # else it is the sum of those
            results.setdefault(name, Counter())[_WORDS[status]] += 1
    return results


@dataclass(frozen=True, slots=True)
class Difference:
    """What one test found at the registry, and at manifuse in front of it."""

    test: str
    alone: Counter[str]
    through: Counter[str]

    @property
    def worse(self) -> bool:
        """Whether manifuse has added a failure, or turned a pass into anything else."""
        return self.through["fail"] > self.alone["fail"] or self.through["pass"] < self.alone["pass"]

    @property
    def plain(self) -> bool:
        """Whether there is nothing to be said: all of it passes on both sides, or was turned off for both."""
        return set(self.alone) == set(self.through) and set(self.alone) in ({"pass"}, {"off"})


def compare(alone: Results, through: Results) -> list[Difference]:
    """Put the results side by side, in the suite's order."""
    names = dict.fromkeys([*alone, *through])
    nothing: Counter[str] = Counter()
    return [Difference(name, alone.get(name, nothing), through.get(name, nothing)) for name in names]
