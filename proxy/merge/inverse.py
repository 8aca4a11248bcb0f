"""From a source to the virtual names that it may belong to; confirmed forward, as names are never parsed backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proxy.merge.plan import plan_tag
from proxy.merge.rule import Rule, find
from proxy.oci.reference import Repository, Tag
from proxy.oci.referrers import is_companion


@dataclass(frozen=True, slots=True)
class VirtualTag:
    """A tag that clients may pull, and the upstream whose namespace it is in."""

    upstream: str
    repository: Repository
    tag: Tag


def affected(
    rules: Sequence[Rule], upstreams: Sequence[str], place: tuple[str, Repository, Tag]
) -> tuple[VirtualTag, ...]:
    """Return the virtual tags of *upstreams* whose plan asks for *place*: itself first, where it is one.

    A template that leaves a part of the virtual name open (`arm64/{name}`) has no inverse: its tags are found when
    their time is over.
    """
    candidates = dict.fromkeys((VirtualTag(*place), *_candidates(rules, upstreams, place)))
    return tuple(candidate for candidate in candidates if _asks_for(rules, candidate, place))


def merging(
    rules: Sequence[Rule], upstreams: Sequence[str], place: tuple[str, Repository]
) -> tuple[tuple[str, Repository], ...]:
    """Return the virtual repositories of *upstreams*, whatever the tag, whose rule has *place* for a source.

    *place* itself isn't one of them.
    """
    candidates = dict.fromkeys(_merging(rules, upstreams, place))
    return tuple(each for each in candidates if each != place and place in find(rules, *each).repositories(*each))


def _merging(
    rules: Sequence[Rule], upstreams: Sequence[str], place: tuple[str, Repository]
) -> Iterator[tuple[str, Repository]]:
    for rule in rules:
        for source in rule.templates(None):
            virtual = source.template.match_repository(place[1])
            if virtual is not None:
                yield from ((name, virtual) for name in upstreams if (source.upstream or name) == place[0])


def _candidates(
    rules: Sequence[Rule], upstreams: Sequence[str], place: tuple[str, Repository, Tag]
) -> Iterator[VirtualTag]:
    upstream, repository, tag = place
    if is_companion(tag):
        yield from (VirtualTag(*each, tag) for each in merging(rules, upstreams, (upstream, repository)))
        return
    for rule in rules:
        for source in rule.templates(None):
            virtual = source.template.match(repository, tag)
            if virtual is not None:
                namespaces = [name for name in upstreams if (source.upstream or name) == upstream]
                yield from (VirtualTag(name, *virtual) for name in namespaces)


def _asks_for(rules: Sequence[Rule], candidate: VirtualTag, place: tuple[str, Repository, Tag]) -> bool:
    rule = find(rules, candidate.upstream, candidate.repository)
    if is_companion(candidate.tag):
        return True  # looked for wherever its digest may be
    plan = plan_tag(rule, candidate.upstream, candidate.repository, candidate.tag, None, 0.0)
    asked = {source.place for source in plan.sources}
    return place in asked or (plan.base is not None and plan.base.place == place)
