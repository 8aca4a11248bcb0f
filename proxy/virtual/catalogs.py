"""What there is in an upstream's namespace: its own repositories, and those that rules merge there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from proxy.merge.listing import listed_repositories
from proxy.merge.rule import Rule
from proxy.oci.content import RepositoryPage
from proxy.oci.errors import Invalid, NoAnswer, NoCatalog, Refused
from proxy.oci.reference import Repository
from proxy.oci.registry import Catalogue
from proxy.virtual.budget import Budget
from proxy.virtual.lists import Listing, Lists
from proxy.virtual.places import Place
from proxy.virtual.together import together


class Catalogs:
    """The catalogs of all upstreams' namespaces, each remembered for a while."""

    def __init__(
        self,
        rules: Sequence[Rule],
        upstreams: Mapping[str, Catalogue],
        budget: Budget,
        lists: Lists[str],
        seconds: float,
    ) -> None:
        """Take what is needed.

        Args:
            budget: How long a caller waits.
            seconds: How long a catalog is remembered.
        """
        self._rules = rules
        self._upstreams = upstreams
        self._budget = budget
        self._lists = lists
        self._seconds = seconds

    async def page(self, upstream: str, limit: int | None, last: str) -> RepositoryPage:
        """Return a page of the repositories in the namespace of *upstream*, sorted by their bytes.

        Raises:
            NoCatalog: Nobody who would have to be asked tells.
            NoAnswer: Somebody didn't say, so that repositories would silently be missing.
        """
        asking = self._lists.of(upstream, self._seconds, lambda: self._merged(upstream))
        listing = await self._budget.spend(asking, f"the catalog of {upstream}")
        return RepositoryPage(*listing.page(limit, last), warnings=listing.warnings)

    def forget(self) -> None:
        """Let a repository that was pushed to show in the next catalog."""
        for upstream in self._upstreams:
            self._lists.forget(upstream)

    async def _merged(self, upstream: str) -> Listing:
        asked = self._asked(upstream)
        answers = dict(zip(asked, await together(self._all(name) for name in asked), strict=True))
        silent = [answer.message for answer in answers.values() if not isinstance(answer, RepositoryPage)]
        told = {name: answer for name, answer in answers.items() if isinstance(answer, RepositoryPage)}
        if not told:
            raise NoCatalog("; ".join(silent))
        cut = [
            f"{name} has more than {len(page.repositories)} repositories" for name, page in told.items() if page.more
        ]
        places = [place for name, page in told.items() for place in _places(name, page.repositories)]
        # In a thread: a hundred thousand names take seconds, in which others want answers.
        shown = await asyncio.to_thread(listed_repositories, self._rules, list(self._upstreams), upstream, places)
        return Listing(tuple(sorted(shown)), tuple(f"not all repositories are listed: {why}" for why in silent + cut))

    def _asked(self, upstream: str) -> tuple[str, ...]:
        """Return the upstreams that names of *upstream* may be merged from, itself first."""
        rules = [rule for rule in self._rules if rule.upstream in ("", upstream)]
        others = [source.upstream for rule in rules for source in rule.sources if source.upstream in self._upstreams]
        return tuple(dict.fromkeys((upstream, *others)))

    async def _all(self, upstream: str) -> RepositoryPage | NoCatalog | Refused:
        try:
            return await self._upstreams[upstream].catalog(None, "")
        except (NoCatalog, Refused) as no:
            return no
        except NoAnswer as error:
            raise type(error)(f"no answer on the catalog: {error.message}", retry_after=error.retry_after) from None


def _places(upstream: str, names: Sequence[str]) -> Iterator[Place]:
    for name in names:
        try:
            yield upstream, Repository.parse(name)
        except Invalid:
            continue  # no client could ask for it
