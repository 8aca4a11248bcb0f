"""Which virtual names are listed, as far as the names of sources can tell. What a pull would find is another matter."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from proxy.merge import convention
from proxy.merge.inverse import merging
from proxy.merge.rule import Base, OnPartial, Rule, find
from proxy.merge.template import Template
from proxy.oci.platform import Platform, covers
from proxy.oci.reference import Repository, Tag
from proxy.oci.referrers import is_companion

Offers = Mapping[tuple[str, Repository], Collection[Tag]]
"""The tags of each place that was asked."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A source of a rule, and the platforms that its name may stand for; none: any."""

    template: Template
    upstream: str
    platforms: tuple[Platform, ...]

    def virtual(self, repository: Repository, place: tuple[str, Repository], tag: Tag) -> Tag | None:
        """Return the tag of virtual *repository* that the *tag* of *place* belongs to by this source."""
        return self.template.tag(repository, place[1], tag) if self.upstream == place[0] else None

    def offers(self, repository: Repository, tag: Tag, offers: Offers) -> bool:
        """Say whether this source may have its share of *tag*: nobody knows of a place that wasn't asked."""
        source = self.template.expand(repository, tag)
        if source is None:
            return False
        found = offers.get((self.upstream, source[0]))
        return found is None or source[1] in found

    def may_bring(self, wanted: Platform) -> bool:
        """Say whether this source's name can stand for *wanted*."""
        return not self.platforms or any(covers(wanted, each) or covers(each, wanted) for each in self.platforms)


def listed_tags(rule: Rule, upstream: str, repository: Repository, offers: Offers) -> tuple[Tag, ...]:
    """Return the tags of virtual *repository* on *upstream*, sorted by their bytes.

    Those of the name itself are its own, signatures and lists of referrers included; a source's companions
    belong to its images. What sources offer is confirmed forward (law 12), and has to be complete where the
    rule doesn't serve anything less.
    """
    home = (upstream, repository)
    own = set(offers.get(home, ()) if rule.base is not Base.IGNORE else ())
    groups = [list(group) for group in _groups(rule, upstream)]
    leading = list(_leading([part for group in groups for part in group], repository, offers))
    offered = {virtual for _, _, virtual in leading if not is_companion(virtual)}
    shown = {tag for tag in offered - own if _is_complete(rule, groups, repository, tag, offers)}
    if rule.hide_sources:
        own -= {tag for place, tag, virtual in leading if place == home and tag != virtual}
    return tuple(sorted(shown | own))


def listed_repositories(
    rules: Sequence[Rule], upstreams: Sequence[str], upstream: str, places: Collection[tuple[str, Repository]]
) -> set[Repository]:
    """Return the repositories of *upstream* that *places* bring: themselves, and those that are merged from them.

    A source that its rule hides is left out, but never one that is merged from others.
    """
    shown, merged = set[Repository](), set[Repository]()
    for place in places:
        virtual = merging(rules, upstreams, place)
        merged |= {repository for name, repository in virtual if name == upstream}
        if place[0] == upstream and not any(find(rules, *each).hide_sources for each in virtual):
            shown.add(place[1])
    return shown | merged


def _groups(rule: Rule, upstream: str) -> Iterator[Iterator[_Part]]:
    """Return the sources of *rule*, those of each convention apart: the first that has an image wins."""
    if rule.sources:
        yield (
            _Part(each.template, each.upstream or upstream, (each.platform,) if each.platform else ())
            for each in rule.sources
        )
        return
    for name in rule.conventions:
        yield (
            _Part(convention.template_for(name, token), upstream, convention.meanings(token, rule.platforms))
            for token in rule.tokens_of(None)
        )


def _leading(
    parts: Sequence[_Part], repository: Repository, offers: Offers
) -> Iterator[tuple[tuple[str, Repository], Tag, Tag]]:
    """Return each tag that belongs to one of the virtual *repository*: where it is, itself, and that."""
    for place, tags in offers.items():
        fitting = [part for part in parts if part.template.repository(repository) in (place[1], None)]
        for tag in tags:
            for part in () if is_companion(tag) else fitting:
                virtual = part.virtual(repository, place, tag)
                if virtual is not None:
                    yield place, tag, virtual


def _is_complete(
    rule: Rule, groups: Sequence[Sequence[_Part]], repository: Repository, tag: Tag, offers: Offers
) -> bool:
    if rule.on_partial is OnPartial.SERVE:
        return True
    offering = ([part for part in group if part.offers(repository, tag, offers)] for group in groups)
    first = next((group for group in offering if group), [])
    if rule.require:
        return all(any(part.may_bring(wanted) for part in first) for wanted in rule.require)
    return not rule.sources or len(first) == len(rule.sources)
