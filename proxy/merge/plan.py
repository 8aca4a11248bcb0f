"""What will be asked for a virtual tag, and from whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.oci.platform import Platform
from proxy.oci.reference import Repository, Tag

if TYPE_CHECKING:
    from proxy.merge.rule import Rule


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


@dataclass(frozen=True, slots=True)
class Learned:
    """Which guess came true for a virtual repository, so that it alone is asked from then on.

    Attributes:
        convention: The convention that won; empty where an index at the name itself made guessing needless.
        tokens: Its tokens that were found. A platform none of whose tokens was found goes on being asked
            for with all of them: the other architecture may be pushed later.
        learned_at: Seconds since the epoch.
    """

    convention: str
    tokens: tuple[str, ...]
    learned_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is asked for one virtual tag.

    Attributes:
        base: The virtual name itself, or None where the rule ignores it.
        guessing: Whether *sources* are candidates, most of which don't exist: they are asked with HEAD first.
        impossible: Sentences about sources whose names would break the grammar.
    """

    rule: Rule
    upstream: str
    repository: Repository
    tag: Tag
    sources: tuple[Source, ...]
    base: Source | None
    guessing: bool = False
    impossible: tuple[str, ...] = ()

    @property
    def passes_through(self) -> bool:
        """Whether the name itself is all there is, so that nobody needs to know what it is made of."""
        return not self.sources and not self.rule.require

    def __str__(self) -> str:
        """Name the virtual tag as people do."""
        return f"{self.repository}:{self.tag}"
