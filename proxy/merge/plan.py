"""What will be asked for a virtual tag, and from whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from proxy.merge import convention
from proxy.merge.rule import Base, Learned, Rule, companion_rule
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository, Tag
from proxy.oci.referrers import is_companion

# How long "its author merges here" is believed. An image whose own index is served shouldn't cost a dozen guesses
# for each of its tags.
LEARNED_NOTHING_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Written:
    """The platform stands in the configuration: an annotation, as with `docker manifest annotate`."""

    platform: Platform


@dataclass(frozen=True, slots=True)
class Guessed:
    """The platform follows from a naming convention's token: a hint.

    Attributes:
        convention: Its name.
        token: The word that was found in the name, such as `arm`.
        platforms: What the word may mean, likeliest first.
    """

    convention: str
    token: str
    platforms: tuple[Platform, ...]


Hint = Written | Guessed | None


@dataclass(frozen=True, slots=True)
class Source:
    """One image that a rule may merge. A *hint* of None leaves the platform to the image's config."""

    upstream: str
    repository: Repository
    tag: Tag
    hint: Hint = None

    def __str__(self) -> str:
        """Name it as people do, with its upstream in front."""
        return f"{self.upstream}/{self.repository}:{self.tag}"

    @property
    def place(self) -> tuple[str, Repository, Tag]:
        """Where it is, whatever it is believed to be."""
        return (self.upstream, self.repository, self.tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is asked for one virtual tag.

    Attributes:
        base: The virtual name itself, or None where the rule ignores it.
        guessing: Whether *sources* has candidates, most of which don't exist: these are asked with HEAD first.
        conjecture: Whether it is a mere conjecture that *base* exists, so that being refused it means that it doesn't.
        learned: What came true for other tags of this repository and narrows *sources*: their repositories exist.
        impossible: Sentences about sources whose names would break the grammar.
    """

    rule: Rule
    upstream: str
    repository: Repository
    tag: Tag
    sources: tuple[Source, ...]
    base: Source | None
    guessing: bool = False
    conjecture: bool = False
    learned: Learned | None = None
    impossible: tuple[str, ...] = ()

    @property
    def passes_through(self) -> bool:
        """Whether the name itself is all there should be, so that nobody needs to know what it is made of."""
        return not self.sources and not self.impossible and not self.rule.require

    def is_guess(self, source: Source) -> bool:
        """Whether *source* follows from a word that came true for no other tag."""
        hint = source.hint
        return isinstance(hint, Guessed) and not (self.learned and hint.token in self.learned.tokens)

    def __str__(self) -> str:
        """Name the virtual tag as people do."""
        return f"{self.repository}:{self.tag}"


def plan_tag(rule: Rule, upstream: str, repository: Repository, tag: Tag, learned: Learned | None, now: float) -> Plan:
    """Return what to ask for `repository:tag`, given what was *learned* about the repository.

    Args:
        now: Seconds since the epoch.
    """
    if is_companion(tag):
        return plan_companion(rule, upstream, repository, tag, (upstream, repository), conjecture=rule.merges)
    base = None if rule.base is Base.IGNORE else Source(upstream, repository, tag)
    if rule.sources:
        return _explicit(rule, upstream, repository, tag, base)
    learned = _still_true(learned, rule, now)
    sources = _guesses(rule, upstream, repository, tag, learned)
    return Plan(
        rule=rule,
        upstream=upstream,
        repository=repository,
        tag=tag,
        sources=tuple(source for source in sources if base is None or source.place != base.place),
        base=base,
        guessing=not _certain(rule, learned),
        learned=learned,
    )


def plan_companion(
    rule: Rule, upstream: str, repository: Repository, tag: Tag, place: tuple[str, Repository], *, conjecture: bool
) -> Plan:
    """Return what to ask for the signature, attestation or list of referrers `repository:tag`: *place* alone.

    Such a tag belongs to one digest and is passed through as it is, whatever the rule says of images.
    """
    return Plan(
        rule=companion_rule(rule),
        upstream=upstream,
        repository=repository,
        tag=tag,
        sources=(),
        base=Source(*place, tag),
        conjecture=conjecture,
    )


def _explicit(rule: Rule, upstream: str, repository: Repository, tag: Tag, base: Source | None) -> Plan:
    sources, impossible = [], []
    for each in rule.sources:
        expanded = each.template.expand(repository, tag)
        if expanded is None:
            impossible.append(f"{each.template} makes no valid image name of {repository}:{tag}")
            continue
        hint = Written(each.platform) if each.platform else None
        sources.append(Source(each.upstream or upstream, *expanded, hint))
    places = {source.place for source in sources}
    return Plan(
        rule=rule,
        upstream=upstream,
        repository=repository,
        tag=tag,
        sources=tuple(dict.fromkeys(sources)),
        base=None if base is None or base.place in places else base,
        impossible=tuple(impossible),
    )


def _guesses(rule: Rule, upstream: str, repository: Repository, tag: Tag, learned: Learned | None) -> list[Source]:
    if learned is not None and not learned.convention:
        return []
    conventions = (learned.convention,) if learned else rule.conventions
    sources = []
    for name in conventions:
        for token in rule.tokens_of(learned):
            expanded = convention.template_for(name, token).expand(repository, tag)
            if expanded is not None:
                hint = Guessed(name, token, convention.meanings(token, rule.platforms))
                sources.append(Source(upstream, *expanded, hint))
    return sources


def _certain(rule: Rule, learned: Learned | None) -> bool:
    """Whether what was learned names every source, so that they can be asked for outright."""
    if learned is None:
        return not rule.conventions
    return not learned.convention or set(rule.tokens_of(learned)) == set(learned.tokens)


def _still_true(learned: Learned | None, rule: Rule, now: float) -> Learned | None:
    """Return what of *learned* holds under *rule*, which may have been another one then."""
    if learned is None:
        return None
    if not learned.convention:
        return learned if now - learned.learned_at <= LEARNED_NOTHING_SECONDS else None
    known = rule.tokens_of(None)
    tokens = tuple(token for token in learned.tokens if token in known)
    return replace(learned, tokens=tokens) if tokens and learned.convention in rule.conventions else None
