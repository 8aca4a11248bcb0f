"""The Dockerfile, read: the steps of its stages and what they set."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dockerfile_parse import DockerfileParser  # type: ignore[import-untyped]

_ROOT: Final = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a stage, its words taken apart where it is a list."""

    instruction: str
    value: str

    @property
    def words(self) -> list[str]:
        """The words of a list in JSON or of a line."""
        found: list[str] = json.loads(self.value) if self.value.startswith("[") else shlex.split(self.value)
        return found


def stages() -> list[list[Step]]:
    """Return the steps of each stage, the first of them its FROM."""
    with (_ROOT / "Dockerfile").open("rb") as file:
        parsed = DockerfileParser(fileobj=file).structure
    found: list[list[Step]] = []
    for each in parsed:
        if each["instruction"] == "FROM":
            found.append([])
        if each["instruction"] != "COMMENT":
            found[-1].append(Step(each["instruction"], each["value"]))
    return found


BUILD, FINAL = stages()


def told(instruction: str, stage: list[Step] = FINAL) -> list[Step]:
    """Return the steps of one kind."""
    return [step for step in stage if step.instruction == instruction]


def pairs(instruction: str) -> dict[str, str]:
    """Return what all steps of one kind set."""
    return dict(word.split("=", 1) for step in told(instruction) for word in shlex.split(step.value))
