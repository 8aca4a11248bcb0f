"""Rules: from a virtual name to the sources that make it up, and from a source back to virtual names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from proxy.merge import convention
from proxy.merge.freshness import Freshness
from proxy.merge.template import Template
from proxy.oci import glob
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository, Tag

AMD64: Final = Platform("linux", "amd64")
DEFAULT_FRESHNESS: Final = Freshness()


class Base(StrEnum):
    """What an image at the virtual name itself means."""

    PASSTHROUGH = "passthrough"
    MERGE = "merge"
    IGNORE = "ignore"


class OnPartial(StrEnum):
    """What is answered when the index isn't complete."""

    SERVE = "serve"
    HOLD = "hold"
    FAIL = "fail"


class Trust(StrEnum):
    """Whose word on a platform counts."""

    AUTO = "auto"
    RULE = "rule"
    CONFIG = "config"
    REJECT = "reject"


class Coherence(StrEnum):
    """What makes sources one release."""

    OFF = "off"
    LABEL = "label"
    TOGETHER = "together"


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


@dataclass(frozen=True, slots=True)
class Learned:
    """Which guess came true for a virtual repository, so that it alone is asked from then on.

    Attributes:
        convention: The convention that won; empty where an index at the name itself made guessing needless.
        tokens: Those of its tokens that brought what they most likely mean. A platform none of whose tokens did
            goes on being asked for with all of them: the other architecture may be pushed later.
        learned_at: Seconds since the epoch.
    """

    convention: str
    tokens: tuple[str, ...]
    learned_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a virtual repository is made of. Either *sources* or *conventions*; neither: the name itself alone.

    Attributes:
        match: Glob over the repository: `*` stays within a component, `**` crosses slashes.
        upstream: Only names on this upstream; empty: on any.
        platforms: What conventions look for; empty: amd64 and arm64, with their best-known tokens.
        require: Platforms without which the index is not complete.
        default_platform: The child for clients that accept no index.
        coherence: When sources count as one release; until they do the last coherent generation is served.
        hide_sources: Whether names of sources are left out of catalogs and lists of tags.
        hold_max: Seconds that an older generation is served instead of an incomplete or incoherent one.
        freshness: How long answers may be reused.
        tag_freshness: The same for tags that a glob matches; the first that fits counts.
        fingerprint: Sixteen hex digits that change when what the rule makes of a name does: kept entries of
            another rule don't count. Computed once, as every request compares it.
    """

    # Not in `repr`, and so not in the fingerprint: what is kept stays true where only these change, and a rule's name
    # is its place among all.
    name: str = field(repr=False)
    match: str = field(repr=False)
    upstream: str = field(default="", repr=False)
    sources: tuple[SourceTemplate, ...] = ()
    conventions: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    base: Base = Base.PASSTHROUGH
    require: tuple[Platform, ...] = ()
    on_partial: OnPartial = OnPartial.SERVE
    trust: Trust = Trust.AUTO
    attestations: Attestations = Attestations.KEEP
    default_platform: Platform = AMD64
    coherence: Coherence = Coherence.OFF
    hold_max: float = 900.0
    # Nor are these: it stays true when only its time or its listing changes.
    hide_sources: bool = field(default=False, repr=False)
    freshness: Freshness = field(default=DEFAULT_FRESHNESS, repr=False)
    tag_freshness: tuple[tuple[str, Freshness], ...] = field(default=(), repr=False)
    fingerprint: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        """Compute the fingerprint."""
        object.__setattr__(self, "fingerprint", hashlib.sha256(repr(self).encode()).hexdigest()[:16])

    @property
    def made_of(self) -> str:
        """What a virtual repository is made of, for people."""
        sources = (f"{each.upstream}: {each.template}".removeprefix(": ") for each in self.sources)
        return ", ".join([*sources, *self.conventions]) or "the name itself"

    def matches(self, upstream: str, repository: Repository) -> bool:
        """Say whether this rule speaks of *repository* on *upstream*."""
        return self.upstream in ("", upstream) and glob.matches(self.match, repository)

    def freshness_of(self, tag: Tag) -> Freshness:
        """Return how long answers for *tag* may be reused."""
        fitting = (freshness for match, freshness in self.tag_freshness if glob.matches(match, tag))
        return next(fitting, self.freshness)

    def repositories(
        self, upstream: str, repository: Repository, learned: Learned | None = None
    ) -> tuple[tuple[str, Repository], ...]:
        """Return every (upstream, repository) that this rule may merge into *repository*, whatever the tag.

        What was *learned* leaves out the guesses that are known to be wrong.
        """
        found = [] if self.base is Base.IGNORE else [(upstream, repository)]
        for source in self.templates(learned):
            expanded = source.template.repository(repository)
            if expanded is not None:
                found.append((source.upstream or upstream, expanded))
        return tuple(dict.fromkeys(found))

    @property
    def merges(self) -> bool:
        """Whether this rule makes anything of names, beside passing them through."""
        return bool(self.sources or self.conventions)

    def tokens_of(self, learned: Learned | None) -> tuple[str, ...]:
        """Return all tokens to try, without those that can bring nothing new: what they may mean was found before.

        A token that comes earlier counts for more, and one that may mean something else, such as `x86` for 386, may
        be pushed beside the others at any time: these go on being asked for, as what was learned changes no answer.
        """
        tokens = convention.tokens_for(self.platforms)
        if learned is None:
            return tokens
        found, wanted = set[Platform](), list[str]()
        for token in tokens:
            meanings = convention.meanings(token, self.platforms)
            if token in learned.tokens:
                found.add(meanings[0])
                wanted.append(token)
            elif not found.issuperset(meanings):
                wanted.append(token)
        return tuple(wanted)

    def platforms_of(self, tokens: Iterable[str]) -> set[Platform]:
        """Return what *tokens* most likely mean here."""
        return {convention.meanings(token, self.platforms)[0] for token in tokens}

    def templates(self, learned: Learned | None) -> Iterable[SourceTemplate]:
        """Return the templates of all sources, or of all guesses that may be right."""
        if self.sources:
            return self.sources
        conventions = (learned.convention,) if learned and learned.convention else self.conventions
        return [
            SourceTemplate(convention.template_for(name, token))
            for name in conventions
            for token in self.tokens_of(learned)
        ]


def default_rule(freshness: Freshness = DEFAULT_FRESHNESS) -> Rule:
    """Return the rule for a configuration without any: the two commonest conventions, everywhere."""
    conventions = convention.DEFAULT_CONVENTIONS
    return Rule(name="the default conventions", match="**", conventions=conventions, freshness=freshness)


def passthrough_rule(freshness: Freshness = DEFAULT_FRESHNESS) -> Rule:
    """Return the rule for names that no other rule speaks of: as they are upstream."""
    return Rule(name="no rule fits", match="**", freshness=freshness)


PASSTHROUGH: Final = passthrough_rule()


def companion_rule(rule: Rule) -> Rule:
    """Return the rule for the companions of images that *rule* merges: as they are, for as long as its images."""
    return Rule(name=rule.name, match=rule.match, freshness=rule.freshness, tag_freshness=rule.tag_freshness)


def find(rules: Sequence[Rule], upstream: str, repository: Repository) -> Rule:
    """Return the first of *rules* that fits, else the one that passes the name through."""
    return next((rule for rule in rules if rule.matches(upstream, repository)), PASSTHROUGH)
