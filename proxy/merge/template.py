"""Image templates such as `{repository}-x86:{tag}`: forward from a virtual name, and back.

Forward is the truth (law 12 of the design). Back gives the one virtual name that may have led to a source,
and is confirmed by going forward again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import Final, Self

from proxy.oci.errors import Invalid
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository, Tag

FIELDS: Final = ("repository", "namespace", "name", "tag")

_PATTERNS: Final = {
    "repository": r"[a-z0-9._/-]+",
    "namespace": r"[a-z0-9._/-]*",
    "name": r"[a-z0-9._-]+",
    "tag": r"[a-zA-Z0-9_][a-zA-Z0-9._-]*",
}


@dataclass(frozen=True, slots=True)
class Template:
    """An image name with fields in braces, checked when it was made."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check *text*; without a tag, `:{tag}` is meant. Raises `ValueError` with what was expected."""
        head, slash, last = text.rpartition("/")
        whole = text if ":" in last else f"{head}{slash}{last}:{{tag}}"
        try:
            fields = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(whole)]
        except ValueError as error:
            raise ValueError(f"{text!r} is not an image template: {error}") from None
        for name, spec, conversion in fields:
            if name is not None and (name not in FIELDS or spec or conversion):
                raise ValueError(
                    f"{text!r} has an unknown field {{{name}}}: {', '.join(f'{{{f}}}' for f in FIELDS)} are known"
                )
        template = cls(whole)
        if template.expand(Repository("team/app"), Tag("1.0")) is None:
            raise ValueError(f"{text!r} is not an image template: it doesn't make an image name of team/app:1.0")
        return template

    def __str__(self) -> str:
        """Return the template as it is used."""
        return self.text

    def expand(self, repository: Repository, tag: Tag) -> tuple[Repository, Tag] | None:
        """Return the source's name, or None where it would break the grammar: such an image can't exist."""
        path, _, name = self._fill(repository, tag).rpartition(":")
        try:
            return Repository.parse(path), Tag.parse(name)
        except Invalid:
            return None

    def match(self, repository: Repository, tag: Tag) -> tuple[Repository, Tag] | None:
        """Return the virtual name that expands to this source, or None.

        None also where the template leaves a part of the virtual name open (no `{tag}`, or `{name}` alone).
        """
        found = _pattern(self.text).fullmatch(f"{repository}:{tag}")
        path = _virtual_path(found) if found else None
        if found is None or path is None or "tag" not in found.groupdict():
            return None
        try:
            virtual = Repository.parse(path), Tag.parse(found["tag"])
        except Invalid:
            return None
        return virtual if self.expand(*virtual) == (repository, tag) else None

    def match_repository(self, repository: Repository) -> Repository | None:
        """Return the virtual repository whose tags expand to this source's, or None.

        None also where the tag is a part of the source's repository, or a part of the virtual name is left open.
        """
        found = _pattern(self.text.rpartition(":")[0]).fullmatch(repository)
        path = _virtual_path(found) if found else None
        try:
            virtual = Repository.parse(path) if path is not None else None
        except Invalid:
            return None
        return virtual if virtual is not None and self.repository(virtual) == repository else None

    def tag(self, virtual: Repository, repository: Repository, tag: Tag) -> Tag | None:
        """Return the tag of *virtual* that expands to this source, or None where none does, or any.

        Knowing the virtual repository, it finds what `match` can't: `arm64v8/{name}`, `{namespace}-{name}`.
        """
        filled, wanted = self._fill(virtual, "\0"), f"{repository}:{tag}"
        head, *others = filled.split("\0")
        if not others or not (wanted.startswith(head) and wanted.endswith(others[-1])):
            return None
        length = (len(wanted) - len(filled) + len(others)) // len(others)
        try:
            found = Tag.parse(wanted[len(head) : len(head) + length])
        except Invalid:
            return None
        return found if self.expand(virtual, found) == (repository, tag) else None

    def repository(self, repository: Repository) -> Repository | None:
        """Return the source's repository where it doesn't depend on the tag, else None."""
        if "{tag}" in self.text.rpartition(":")[0]:
            return None
        expanded = self.expand(repository, Tag("tag"))
        return expanded and expanded[0]

    def _fill(self, repository: Repository, tag: str) -> str:
        filled = self.text.format(repository=repository, namespace=repository.namespace, name=repository.name, tag=tag)
        return filled.removeprefix("/")  # an empty namespace leaves its slash behind


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    """Return what the names look like that a template's *text*, or the part of it before the tag, makes."""
    pattern, seen = "", set[str]()
    source = text.removeprefix("{namespace}/")
    if source != text:
        pattern, seen = rf"(?:(?P<namespace>{_PATTERNS['namespace']})/)?", {"namespace"}
    for literal, name, _, _ in Formatter().parse(source):
        pattern += re.escape(literal)
        if name is not None:
            pattern += f"(?P={name})" if name in seen else f"(?P<{name}>{_PATTERNS[name]})"
            seen.add(name)
    return re.compile(pattern, re.ASCII)


def _virtual_path(found: re.Match[str]) -> str | None:
    """Return the virtual repository that a match tells, or None where it leaves a part open."""
    groups = found.groupdict()
    if "repository" in groups:
        return groups["repository"]
    if "namespace" in groups and "name" in groups:
        return f"{groups['namespace'] or ''}/{groups['name']}".removeprefix("/")
    return None


def manifest_tool(text: str, platform: Platform) -> Template:
    """Fill manifest-tool's `foo/bar-ARCH:v1`: OS, ARCH and VARIANT, each once, as its `--template` does.

    Raises `ValueError` where the outcome is no template.
    """
    for word, value in (("ARCH", platform.architecture), ("OS", platform.os), ("VARIANT", platform.variant)):
        text = text.replace(word, value, 1)
    return Template.parse(text)
