"""Whether the sources belong to one release. While CI pushes one architecture after the other, they don't."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.merge.entry import Entry
from proxy.merge.outcome import Found, ManyImages, Release, SingleImage
from proxy.merge.rule import Coherence


def incoherence(coherence: Coherence, found: Sequence[Found], previous: Entry | None) -> str:
    """Return a sentence about what doesn't belong together, or an empty one."""
    match coherence:
        case Coherence.OFF:
            return ""
        case Coherence.LABEL:
            return _by_label(found)
        case Coherence.TOGETHER:
            return _by_change(found, previous)


def _by_label(found: Sequence[Found]) -> str:
    """Compare the revisions that the images' configs name, else their versions.

    A word that not every source says proves nothing; sources without either are taken for coherent.
    """
    words: tuple[tuple[str, Callable[[Release], str]], ...] = (
        ("revision", lambda release: release.revision),
        ("version", lambda release: release.version),
    )
    for name, word in words:
        said = {str(each.source): {word(release) for release in _releases(each)} for each in found}
        said = {source: values for source, values in said.items() if values}
        if said and all("" not in values for values in said.values()):
            if len(set().union(*said.values())) == 1:
                return ""
            return "; ".join(f"{source} is of {name} {', '.join(sorted(values))}" for source, values in said.items())
    return ""


def _releases(found: Found) -> tuple[Release, ...]:
    match found.kind:
        case SingleImage(release=release):
            return (release,)
        case ManyImages(releases=releases):
            return releases
        case _:
            return ()


def _by_change(found: Sequence[Found], previous: Entry | None) -> str:
    """Say which sources are as they were while others changed.

    A source that wasn't there before isn't waited for by the others: it completes what is there. A previous
    generation that was a mixture itself is no measure of anything.
    """
    if previous is None or not previous.coherent:
        return ""
    before = previous.digests()
    known = [each for each in found if each.source.place in before]
    same = [str(each.source) for each in known if before[each.source.place] == each.descriptor.digest]
    changed = len(known) - len(same)
    return f"{', '.join(same)} has not changed yet" if changed and same else ""
