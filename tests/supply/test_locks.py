"""The image holds what `pyproject.toml` asks for, each file known by its hash; and the tests run with the same."""

from __future__ import annotations

import tomllib

import pytest
from packaging.utils import canonicalize_name

from supply.locks import ROOT, needed, read

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
_RUN, _DEV = _PROJECT["project"]["dependencies"], _PROJECT["project"]["optional-dependencies"]["dev"]
_WANTED = {"run": _RUN, "build": _PROJECT["build-system"]["requires"], "dev": [*_RUN, *_DEV]}
_INSTALLER = "pip"  # is there before a lock is read

each_lock = pytest.mark.parametrize("name", list(_WANTED))


@each_lock
def test_the_lock_satisfies_the_project(name: str) -> None:
    """All that is asked for is there, in a version that will do; `make lock` writes it anew."""
    pins = read(name)
    wrong = [
        str(requirement)
        for requirement in needed(_WANTED[name])
        if requirement.name != _INSTALLER
        and ((pin := pins.get(canonicalize_name(requirement.name))) is None or pin.version not in requirement.specifier)
    ]
    assert not wrong, f"requirements/{name}.lock lacks {wrong}: run `make lock`"


@pytest.mark.parametrize("name", ["run", "build"])
def test_every_file_of_the_image_is_known(name: str) -> None:
    """No package comes without the hashes of its files."""
    assert all(pin.hashes for pin in read(name).values())


def test_what_is_tested_is_what_the_image_holds() -> None:
    """In the same versions."""
    tested = read("dev")
    assert {name: tested[name].version for name in read("run")} == {name: p.version for name, p in read("run").items()}


def test_the_image_is_made_of_the_locks() -> None:
    """Whatever is installed from an index is installed by a lock, with its hashes, and nothing is built for it."""
    steps = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("RUN ")]
    installs = [step for step in steps if " install " in step and "--no-index" not in step]
    assert {step.rpartition("requirements/")[2] for step in installs} == {"run.lock", "build.lock"}
    assert all("--require-hashes" in step and "--only-binary :all:" in step for step in installs)
    assert all("--no-build-isolation" in step and "--no-deps" in step for step in steps if " wheel " in step)
