"""Reading `requirements/*.lock`, and what a package asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).parents[2]
_HASH: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock: the version that is installed, and how many files may be it."""

    version: Version
    hashes: int


def read(name: str) -> dict[NormalizedName, Pin]:
    """Read a lock. Raises `ValueError` for a line that pins nothing."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    pins = {}
    for line in text.replace("\\\n", " ").splitlines():
        requirement = Requirement(_HASH.sub("", line).strip())
        (pin,) = requirement.specifier
        if pin.operator != "==":
            raise ValueError(f"{line} pins nothing")
        pins[canonicalize_name(requirement.name)] = Pin(Version(pin.version), len(_HASH.findall(line)))
    return pins


def needed(wanted: Iterable[str]) -> Iterator[Requirement]:
    """Yield *wanted* and what that asks for, as far as it is installed here, for the Python that runs this."""
    left, seen = [(Requirement(text), "") for text in wanted], set[str]()
    while left:
        requirement, extra = left.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        yield requirement
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            further = requires(requirement.name) or ()
        except PackageNotFoundError:
            continue  # of the build alone
        left += [(Requirement(text), each) for text in further for each in ("", *requirement.extras)]
