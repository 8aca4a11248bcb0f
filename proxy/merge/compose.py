"""Which of the found images become children of the index, and as what platform."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from proxy.merge.outcome import Found, ManyImages, SingleImage
from proxy.merge.plan import Guessed, Hint, Source, Written
from proxy.merge.rule import Attestations, Rule, Trust
from proxy.oci.content import Descriptor
from proxy.oci.platform import UNKNOWN, Platform, complete, covers, normalize
from proxy.oci.reference import Digest


@dataclass(frozen=True, slots=True)
class Child:
    """One entry of the index and the source it came from."""

    source: Source
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Composition:
    """What the sources make together.

    Attributes:
        mismatches: Sentences about platforms that a source claims and its config denies.
        clashes: Sentences about sources that lost a platform to an earlier one.
        omissions: Sentences about found sources that bring nothing into the index.
    """

    children: tuple[Child, ...]
    mismatches: tuple[str, ...]
    clashes: tuple[str, ...]
    omissions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An image, the platform it says itself it is for (*own*), and what the rule says of it (*hint*)."""

    source: Source
    descriptor: Descriptor
    own: Platform | None
    hint: Hint


@dataclass(frozen=True, slots=True)
class _Placed:
    """A candidate with the platform it gets.

    Attributes:
        fallback: What a guess would make of it instead.
        intrudes: Whether the platform is its own word against the rule's: then it takes nobody else's place (S18).
    """

    candidate: _Candidate
    platform: Platform
    fallback: Platform | None = None
    intrudes: bool = False


def compose(rule: Rule, found: Sequence[Found]) -> Composition:
    """Put the images of *found*, in the order of the rule, together by the rule's `trust`."""
    candidates = [candidate for each in found for candidate in _candidates(each)]
    mismatches = [sentence for candidate in candidates if (sentence := _mismatch(candidate))]
    placed = [spot for candidate in candidates if (spot := _place(candidate, rule.trust))]
    images, clashes = _first_wins(_spread(placed))
    attestations = _attestations(found, images) if rule.attestations is Attestations.KEEP else []
    children = (*images, *attestations)
    contributing = {child.source for child in children}
    losers = {spot.candidate.source for spot in placed}
    omissions = [
        _omission(each, rule) for each in found if each.source not in contributing and each.source not in losers
    ]
    return Composition(children, tuple(mismatches), tuple(clashes), tuple(omissions))


def select(source: Source, children: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Return those images of an index that *source* brings: the ones its platform selects, by their own words.

    A lone image is always brought: buildx wraps one in an index for its provenance, and its label may lie like
    any other. Where a mere guess selects nothing, all are brought, for they say themselves what they are.
    """
    images = tuple(child for child in children if child.attests is None and _known(child.platform))
    chosen = tuple(image for image in images if image.platform and _agrees(source.hint, image.platform))
    if chosen or (len(images) > 1 and isinstance(source.hint, Written)):
        return chosen
    return images


def _candidates(found: Found) -> list[_Candidate]:
    source = found.source
    match found.kind:
        case SingleImage(platform=own):
            return [_Candidate(source, found.descriptor, own, source.hint)]
        case ManyImages(children=children):
            images = select(source, children)
            hint = source.hint if len(images) == 1 else None
            return [_Candidate(source, image, image.platform, hint) for image in images]
        case _:
            return []


def _place(candidate: _Candidate, trust: Trust) -> _Placed | None:
    """Give *candidate* its platform, or None to leave it out."""
    own, hint = candidate.own, candidate.hint
    if hint is None:
        return _Placed(candidate, normalize(own)) if own else None
    claimed = _claim(hint, own)
    if own is None or _agrees(hint, own):
        return _Placed(candidate, claimed)
    if trust is Trust.REJECT:
        return None
    if trust is Trust.CONFIG or (trust is Trust.AUTO and isinstance(hint, Guessed)):
        return _Placed(candidate, normalize(own), claimed if trust is Trust.AUTO else None, intrudes=True)
    return _Placed(candidate, claimed)


def _claim(hint: Written | Guessed, own: Platform | None) -> Platform:
    """Return the platform that the rule claims, completed from the image's own word where both agree."""
    if isinstance(hint, Written):
        return complete(hint.platform, own) if own else normalize(hint.platform)
    if own is not None and _agrees(hint, own):
        return normalize(own)
    return complete(hint.platforms[0], own) if own else normalize(hint.platforms[0])


def _agrees(hint: Hint, own: Platform) -> bool:
    match hint:
        case None:
            return True
        case Written(platform=platform):
            return covers(platform, own)
        case Guessed(platforms=platforms):
            return any(covers(platform, own) for platform in platforms)


def _spread(placed: Sequence[_Placed]) -> list[_Placed]:
    """Let a guess count after all where the images' own words make two entries of one platform.

    The case is a careless cross build: both images say amd64, one of them is called `-arm`.
    """
    taken = [spot.platform.key for spot in placed]
    spread = []
    for spot in placed:
        if spot.fallback and spot.fallback.key not in taken and _rivals(spot, placed):
            taken.remove(spot.platform.key)
            taken.append(spot.fallback.key)
            spread.append(replace(spot, platform=spot.fallback, intrudes=False))
        else:
            spread.append(spot)
    return spread


def _rivals(spot: _Placed, placed: Sequence[_Placed]) -> bool:
    """Whether another image has the same platform. The same image under two names is no rival of itself."""
    mine = spot.candidate.descriptor.digest
    return any(o.platform.key == spot.platform.key and o.candidate.descriptor.digest != mine for o in placed)


def _first_wins(placed: Sequence[_Placed]) -> tuple[list[Child], list[str]]:
    """Keep one image per platform, the first source's of those that the rule doesn't speak against."""
    by_platform: dict[tuple[object, ...], Child] = {}
    lost = []
    for spot in sorted(placed, key=lambda spot: spot.intrudes):
        child = Child(spot.candidate.source, replace(spot.candidate.descriptor, platform=spot.platform))
        winner = by_platform.setdefault(spot.platform.key, child)
        if winner is not child and winner.descriptor.digest != child.descriptor.digest:
            lost.append((child, winner, "the rule says so" if spot.intrudes else "comes first"))
    images = list(by_platform.values())
    contributing = {image.source for image in images}
    return images, [_clash(loser, winner, reason, contributing) for loser, winner, reason in lost]


def _clash(loser: Child, winner: Child, reason: str, contributing: Collection[Source]) -> str:
    """Say who lost to whom: a source, or an image of one that brings others."""
    left_out = _image(loser) if loser.source in contributing else loser.source
    instead = _image(winner) if winner.source == loser.source else winner.source
    return f"{left_out} is left out: {instead} is {loser.descriptor.platform}, too, and {reason}"


def _image(child: Child) -> str:
    return f"{child.descriptor.digest} of {child.source}"


def _attestations(found: Sequence[Found], images: Sequence[Child]) -> list[Child]:
    """Return the attestation entries of those images that survived, each once.

    A source's entries count for what it brings: the others weren't fetched, as nobody may be told of them (law 9).
    """
    surviving = {image.descriptor.digest for image in images}
    kept: dict[tuple[Digest, Digest], Child] = {}
    for each in found:
        entries = each.kind.children if isinstance(each.kind, ManyImages) else ()
        brought = surviving & {image.digest for image in select(each.source, entries)}
        for entry in entries:
            subject = entry.attests
            if subject is not None and subject in brought:
                unknown = replace(entry, platform=Platform(UNKNOWN, UNKNOWN))
                kept.setdefault((entry.digest, subject), Child(each.source, unknown))
    return list(kept.values())


def _mismatch(candidate: _Candidate) -> str:
    own, hint = candidate.own, candidate.hint
    if own is None or hint is None or _agrees(hint, own):
        return ""
    if isinstance(hint, Written):
        return f"{candidate.source} says it is {normalize(own)}, the rule says {normalize(hint.platform)}"
    return f"{candidate.source} says it is {normalize(own)}, its name says {hint.token}"


def _omission(found: Found, rule: Rule) -> str:
    match found.kind:
        case SingleImage(platform=None):
            return f"{found.source} is left out: its config names no platform and the rule gives none"
        case SingleImage() if rule.trust is Trust.REJECT:
            return f"{found.source} is left out: its config contradicts the rule, and trust is reject"
        case ManyImages():
            return f"{found.source} is left out: it is an index without an entry for the rule's platform"
        case _:
            return f"{found.source} is left out: it is not a runnable image"


def _known(platform: Platform | None) -> bool:
    return platform is not None and not platform.is_unknown
