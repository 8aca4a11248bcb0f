"""What came of asking one source. "No" (Absent) and "no answer" (Failed) are different things throughout."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.merge.plan import Guessed, Source
from proxy.oci.content import Descriptor
from proxy.oci.errors import Refused, RegistryError
from proxy.oci.platform import Platform
from proxy.oci.reference import Repository, Tag


@dataclass(frozen=True, slots=True)
class Release:
    """What an image's labels say it was built from: `org.opencontainers.image.revision` and `.version`."""

    revision: str = ""
    version: str = ""


UNNAMED: Final = Release()


@dataclass(frozen=True, slots=True)
class SingleImage:
    """The source is one image; *platform* and *release* are its config's words, None where it names no platform.

    Attributes:
        unread: Why its config couldn't be read; None where it could. Only of what is at the virtual name itself.
    """

    platform: Platform | None
    release: Release = UNNAMED
    children: tuple[Descriptor, ...] = ()
    unread: RegistryError | None = None


@dataclass(frozen=True, slots=True)
class ManyImages:
    """The source is an index, flattened: every entry is an image with a platform, or an attestation.

    *releases* are those of the images that the source brings, where anybody wants to know.
    """

    children: tuple[Descriptor, ...]
    releases: tuple[Release, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherArtifact:
    """The source is no runnable image: a Helm chart, a signature, a model."""

    artifact_type: str
    children: tuple[Descriptor, ...] = ()


Kind = SingleImage | ManyImages | OtherArtifact


@dataclass(frozen=True, slots=True)
class Found:
    """The source exists.

    Attributes:
        descriptor: Media type, digest and size of what its tag stands for.
        seconds: How long it took to learn all this.
    """

    source: Source
    descriptor: Descriptor
    kind: Kind
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Present:
    """The source exists; nothing but its descriptor was asked for yet."""

    source: Source
    descriptor: Descriptor
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Absent:
    """The upstream says that it doesn't exist."""

    source: Source
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing was learned: `NoAnswer`, or `Refused`."""

    source: Source
    error: RegistryError
    seconds: float = 0.0


Outcome = Found | Absent | Failed
Probe = Present | Absent | Failed
Place = tuple[str, Repository, Tag]


def winners(probes: Sequence[Probe], seen: Container[Place] = ()) -> tuple[Probe, ...]:
    """Return what became of the candidates of the convention that won: the first one that isn't all absent.

    A candidate that gave no answer may exist, so it wins, too: merging what another convention finds could
    serve a different image. A refusal of a name that was only guessed tells nothing: some registries refuse
    what doesn't exist. One that was *seen* before, as a part of the last generation, is no guess any more.
    """
    believed = [Absent(p.source, p.seconds) if _refused_guess(p, seen) else p for p in probes]
    for name in dict.fromkeys(_convention(probe.source) for probe in believed):
        mine = tuple(probe for probe in believed if _convention(probe.source) == name)
        if any(not isinstance(probe, Absent) for probe in mine):
            return mine
    return tuple(believed)


def _refused_guess(probe: Probe, seen: Container[Place]) -> bool:
    return isinstance(probe, Failed) and isinstance(probe.error, Refused) and probe.source.place not in seen


def _convention(source: Source) -> str:
    return source.hint.convention if isinstance(source.hint, Guessed) else ""
