"""Rules: from a virtual name to the sources that make it up, and from a source back to virtual names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from proxy.merge import convention
from proxy.merge.plan import Guessed, Learned, Plan, Source, Written
from proxy.merge.template import Template
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository, Tag

AMD64: Final = Platform("linux", "amd64")

# How long "its author merges here" is believed. An image whose own index is served shouldn't cost a dozen guesses
# for each of its tags.
LEARNED_NOTHING_SECONDS: Final = 600.0

# Tags of signatures and referrers are routed to their subject, never merged.
_NEVER_MERGED: Final = re.compile(r"sha(?:256|512)-[0-9a-f]+(?:\.(?:sig|att|sbom))?", re.ASCII)


class Base(StrEnum):
    """What an image at the virtual name itself means."""

    PASSTHROUGH = "passthrough"
    MERGE = "merge"
    IGNORE = "ignore"


class OnPartial(StrEnum):
    """What is answered when the index isn't complete."""

    SERVE = "serve"
    FAIL = "fail"


class Trust(StrEnum):
    """Whose word on a platform counts."""

    AUTO = "auto"
    RULE = "rule"
    CONFIG = "config"
    REJECT = "reject"


class Attestations(StrEnum):
    """What becomes of buildx's attestation entries."""

    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class SourceTemplate:
    """One explicit source. An empty *upstream* means the one the virtual name is on."""

    template: Template
    platform: Platform | None = None
    upstream: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a virtual repository is made of. Either *sources* or *conventions*; neither: the name itself alone.

    Attributes:
        match: Glob over the repository: `*` stays within a component, `**` crosses slashes.
        upstream: Only names on this upstream; empty: on any.
        platforms: What conventions look for; empty: amd64 and arm64, with their best-known tokens.
        require: Platforms without which the index is not complete.
        default_platform: The child for clients that accept no index.
    """

    name: str
    match: str
    upstream: str = ""
    sources: tuple[SourceTemplate, ...] = ()
    conventions: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    base: Base = Base.PASSTHROUGH
    require: tuple[Platform, ...] = ()
    on_partial: OnPartial = OnPartial.SERVE
    trust: Trust = Trust.AUTO
    attestations: Attestations = Attestations.KEEP
    default_platform: Platform = AMD64

    def matches(self, upstream: str, repository: Repository) -> bool:
        """Say whether this rule speaks of *repository* on *upstream*."""
        return self.upstream in ("", upstream) and _glob(self.match).fullmatch(repository) is not None

    def plan(self, upstream: str, repository: Repository, tag: Tag, learned: Learned | None, now: float) -> Plan:
        """Return what to ask for `repository:tag`, given what was *learned* about the repository.

        Args:
            now: Seconds since the epoch.
        """
        base = None if self.base is Base.IGNORE else Source(upstream, repository, tag)
        if _NEVER_MERGED.fullmatch(tag):
            return Plan(rule=self, upstream=upstream, repository=repository, tag=tag, sources=(), base=base)
        if self.sources:
            return self._explicit(upstream, repository, tag, base)
        learned = _still_true(learned, self.conventions, now)
        sources = self._guesses(upstream, repository, tag, learned)
        return Plan(
            rule=self,
            upstream=upstream,
            repository=repository,
            tag=tag,
            sources=tuple(source for source in sources if base is None or source.place != base.place),
            base=base,
            guessing=not self._certain(learned),
        )

    def repositories(
        self, upstream: str, repository: Repository, learned: Learned | None = None
    ) -> tuple[tuple[str, Repository], ...]:
        """Return every (upstream, repository) that this rule may merge into *repository*, whatever the tag.

        What was *learned* leaves out the guesses that are known to be wrong.
        """
        found = [] if self.base is Base.IGNORE else [(upstream, repository)]
        for source in self._templates(learned):
            expanded = source.template.repository(repository)
            if expanded is not None:
                found.append((source.upstream or upstream, expanded))
        return tuple(dict.fromkeys(found))

    def tags(self, upstream: str, repository: Repository, source: tuple[str, Repository], tag: Tag) -> tuple[Tag, ...]:
        """Return the tags of virtual *repository* that the source's *tag* may belong to, confirmed forward."""
        found = [tag] if source == (upstream, repository) and self.base is not Base.IGNORE else []
        for each in self._templates(None):
            virtual = (
                each.template.tag(repository, source[1], tag) if (each.upstream or upstream) == source[0] else None
            )
            if virtual is not None:
                found.append(virtual)
        return tuple(dict.fromkeys(found))

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when the rule's meaning does: kept entries of another rule don't count."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def _explicit(self, upstream: str, repository: Repository, tag: Tag, base: Source | None) -> Plan:
        sources, impossible = [], []
        for each in self.sources:
            expanded = each.template.expand(repository, tag)
            if expanded is None:
                impossible.append(f"{each.template} makes no valid image name of {repository}:{tag}")
                continue
            hint = Written(each.platform) if each.platform else None
            sources.append(Source(each.upstream or upstream, *expanded, hint))
        places = {source.place for source in sources}
        return Plan(
            rule=self,
            upstream=upstream,
            repository=repository,
            tag=tag,
            sources=tuple(sources),
            base=None if base is None or base.place in places else base,
            impossible=tuple(impossible),
        )

    def _guesses(self, upstream: str, repository: Repository, tag: Tag, learned: Learned | None) -> list[Source]:
        if learned is not None and not learned.convention:
            return []
        conventions = (learned.convention,) if learned else self.conventions
        sources = []
        for name in conventions:
            for token in self._tokens(learned):
                expanded = convention.template_for(name, token).expand(repository, tag)
                if expanded is not None:
                    hint = Guessed(name, token, convention.meanings(token, self.platforms))
                    sources.append(Source(upstream, *expanded, hint))
        return sources

    def _tokens(self, learned: Learned | None) -> tuple[str, ...]:
        """All tokens, without those whose platform was already found by another name."""
        tokens = convention.tokens_for(self.platforms)
        if learned is None:
            return tokens
        found = {convention.meanings(token, self.platforms)[0] for token in learned.tokens}
        return tuple(
            token
            for token in tokens
            if token in learned.tokens or convention.meanings(token, self.platforms)[0] not in found
        )

    def _certain(self, learned: Learned | None) -> bool:
        """Whether what was learned names every source, so that they can be asked for outright."""
        if learned is None:
            return not self.conventions
        return not learned.convention or set(self._tokens(learned)) == set(learned.tokens)

    def _templates(self, learned: Learned | None) -> Iterable[SourceTemplate]:
        """Return the templates of all sources, or of all guesses that may be right."""
        if self.sources:
            return self.sources
        conventions = (learned.convention,) if learned and learned.convention else self.conventions
        return [
            SourceTemplate(convention.template_for(name, token))
            for name in conventions
            for token in self._tokens(learned)
        ]


def default_rule() -> Rule:
    """Return the rule for a configuration without any: the two commonest conventions, everywhere."""
    return Rule(name="the default conventions", match="**", conventions=convention.DEFAULT_CONVENTIONS)


def passthrough_rule() -> Rule:
    """Return the rule for names that no configured rule speaks of: as they are upstream."""
    return Rule(name="no rule", match="**")


def find(rules: Sequence[Rule], upstream: str, repository: Repository) -> Rule:
    """Return the first of *rules* that fits, else the one that passes the name through."""
    return next((rule for rule in rules if rule.matches(upstream, repository)), passthrough_rule())


def learn(found: Sequence[Source], now: float) -> Learned | None:
    """Return what to remember after the guesses *found* came true, or None where none of them was a guess."""
    hints = [source.hint for source in found if isinstance(source.hint, Guessed)]
    return Learned(hints[0].convention, tuple(sorted({hint.token for hint in hints})), now) if hints else None


def _still_true(learned: Learned | None, conventions: Sequence[str], now: float) -> Learned | None:
    if learned is None or (learned.convention and learned.convention not in conventions):
        return None
    if not learned.convention and now - learned.learned_at > LEARNED_NOTHING_SECONDS:
        return None
    return learned


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    words = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(words.get(part) or re.escape(part) for part in parts))
