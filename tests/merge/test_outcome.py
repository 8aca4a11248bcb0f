from merge.builders import image, source
from proxy.merge.outcome import Absent, Failed, Present, Probe, winners
from proxy.merge.plan import Guessed, Source
from proxy.oci.errors import Refused, TimedOut
from proxy.oci.platform import Platform


def guess(convention: str, token: str) -> Source:
    """Return a guess of *convention*."""
    return source(f"{convention}-{token}", Guessed(convention, token, (Platform("linux", "amd64"),)))


def there(of: Source) -> Probe:
    """Return the probe of something that exists."""
    return Present(of, image("x"))


REPOSITORY_X86, REPOSITORY_ARM = guess("repository-suffix", "x86"), guess("repository-suffix", "arm")
TAG_X86, TAG_ARM = guess("tag-suffix", "x86"), guess("tag-suffix", "arm")


def test_first_convention_that_found_something_wins() -> None:
    """Its candidates count, the absent ones too; the other conventions' don't."""
    probes = [Absent(REPOSITORY_X86), Absent(REPOSITORY_ARM), there(TAG_X86), Absent(TAG_ARM)]

    assert winners(probes) == (there(TAG_X86), Absent(TAG_ARM))


def test_earlier_convention_wins_over_a_fuller_one() -> None:
    """The rule's order decides, not the number of finds: it is the same for every tag."""
    probes = [there(REPOSITORY_X86), Absent(REPOSITORY_ARM), there(TAG_X86), there(TAG_ARM)]

    assert winners(probes) == (there(REPOSITORY_X86), Absent(REPOSITORY_ARM))


def test_convention_without_an_answer_wins_over_a_later_find() -> None:
    """What gave no answer may exist: merging another convention's finds could serve a different image."""
    broken = Failed(REPOSITORY_X86, TimedOut("slow"))

    assert winners([broken, Absent(REPOSITORY_ARM), there(TAG_X86)]) == (broken, Absent(REPOSITORY_ARM))


def test_refused_guess_is_no_answer_to_wait_for() -> None:
    """Some registries refuse what doesn't exist; a guess that is refused is as good as absent."""
    refused = Failed(REPOSITORY_X86, Refused("denied"), 0.5)

    assert winners([refused, there(TAG_X86)]) == (there(TAG_X86),)
    assert winners([refused, there(REPOSITORY_ARM)]) == (Absent(REPOSITORY_X86, 0.5), there(REPOSITORY_ARM))


def test_nothing_found_is_all_absent() -> None:
    """Where no convention wins, every candidate is reported as absent, refused ones too."""
    probes: list[Probe] = [Absent(REPOSITORY_X86), Failed(TAG_X86, Refused("denied"))]

    assert winners(probes) == (Absent(REPOSITORY_X86), Absent(TAG_X86))
    assert winners([]) == ()


def test_refusal_of_what_was_part_of_the_index_counts() -> None:
    """A source of the last generation is no guess any more: its refusal must not shrink the index (law 4)."""
    refused = Failed(REPOSITORY_X86, Refused("denied"))
    probes: list[Probe] = [refused, Absent(REPOSITORY_ARM), there(TAG_X86)]

    assert winners(probes, {REPOSITORY_X86.place}) == (refused, Absent(REPOSITORY_ARM))
    assert winners(probes, {REPOSITORY_ARM.place}) == (there(TAG_X86),)
