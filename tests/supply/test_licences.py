"""What is installed with manifuse may be used, changed and passed on with it."""

from __future__ import annotations

import re
from importlib.metadata import metadata

import pytest

from supply.locks import read

# As packages write them: SPDX expressions, the older `License` field, or the last part of a classifier.
_PERMISSIVE = {
    "0BSD",
    "Apache 2.0",
    "Apache-2.0",
    "Apache Software License",
    "BSD License",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT License",
    "MIT-0",
    "PSF-2.0",
    "Python Software Foundation License",
    "Unlicense",
    "Zlib",
}
# The Mozilla licence asks to pass on changes of its own files. These are installed as their authors built them.
_UNCHANGED = {"publicsuffixlist": {"MPL-2.0"}, "orjson": {"MPL-2.0"}}


def licences(name: str) -> set[str]:
    """Return the names of a package's licences, those between which one may choose included."""
    found = metadata(name)
    said = [text for field in ("License-Expression", "License") for text in found.get_all(field, [])]
    text = said[0] if said else ""
    if not text or "\n" in text:
        classifiers = [each for each in found.get_all("Classifier", []) if each.startswith("License :: ")]
        return {each.rpartition(" :: ")[2] for each in classifiers}
    return {word.strip("() ") for word in re.split(r"\s(?:AND|OR)\s", text)}


@pytest.mark.parametrize("name", list(read("run")))
def test_a_licence_is_permissive(name: str) -> None:
    """Every package of the image says its licence, and it is one of these."""
    found = licences(name)
    assert found
    assert found <= _PERMISSIVE | _UNCHANGED.get(name, set())


def test_exceptions_are_needed() -> None:
    """No exception outlives its reason."""
    assert set(_UNCHANGED) <= set(read("run"))
    assert all(wanted <= licences(name) for name, wanted in _UNCHANGED.items())
