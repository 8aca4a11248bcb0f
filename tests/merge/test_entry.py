from dataclasses import replace

from merge.builders import BASE, attestation, entry, image, single, written
from proxy.merge.entry import Part
from proxy.oci.reference import Digest

X86, ARM = written("x86", "linux/amd64"), written("arm", "linux/arm64")


def test_entry_knows_what_each_source_stood_for() -> None:
    """Asking again is comparing these digests."""
    found = [single(X86, "linux/amd64"), single(ARM, "linux/arm64")]

    assert entry(*found).digests() == {each.source.place: each.descriptor.digest for each in found}


def test_part_is_where_its_source_is() -> None:
    """Place is upstream, repository and tag, whatever platform the rule claims now."""
    part = Part("hub", BASE.repository, BASE.tag, Digest("sha256:" + "a" * 64), ())

    assert part.place == BASE.place == replace(BASE, hint=X86.hint).place


def test_part_names_the_platforms_it_brings() -> None:
    """Attestations and entries without a platform aren't shown."""
    arm = image("arm", "linux/arm64/v8")
    part = Part("hub", *BASE.place[1:], arm.digest, (arm, image("x"), attestation(arm)))

    assert part.platforms == ("linux/arm64/v8",)
