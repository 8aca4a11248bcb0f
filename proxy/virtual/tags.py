"""The tags of a virtual repository: what its sources and the name itself offer, under virtual names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from proxy.merge.listing import listed_tags
from proxy.merge.rule import Base, Rule, find
from proxy.oci.content import TagPage
from proxy.oci.errors import BadAnswer, Invalid, NameUnknown, NoAnswer, NotFound, Refused
from proxy.oci.reference import Tag
from proxy.oci.registry import Registry
from proxy.store.base import Virtual
from proxy.virtual.budget import Budget
from proxy.virtual.lists import Listing, Lists
from proxy.virtual.places import Place, Places
from proxy.virtual.together import together


class Tags:
    """Lists of tags. A merged one is remembered for the rule's `tag_ttl`; one that passes through is paged upstream."""

    def __init__(
        self,
        rules: Sequence[Rule],
        upstreams: Mapping[str, Registry],
        places: Places,
        budget: Budget,
        lists: Lists[Virtual],
    ) -> None:
        """Take what is needed; *budget* is how long a caller waits."""
        self._rules = rules
        self._upstreams = upstreams
        self._places = places
        self._budget = budget
        self._lists = lists

    async def page(self, virtual: Virtual, limit: int | None, last: str) -> TagPage:
        """Return a page of the tags of *virtual*, sorted by their bytes.

        Raises:
            NameUnknown: None of its sources exists.
            NoAnswer, Refused: A source didn't say, so that its tags would silently be missing.
        """
        rule, what = find(self._rules, virtual.upstream, virtual.repository), f"the tags of {virtual.repository}"
        if not rule.merges and rule.base is not Base.IGNORE:
            asking = self._upstreams[virtual.upstream].tags(virtual.repository, limit, last)
            return await self._budget.spend(asking, what)
        seconds = rule.freshness.tag_ttl
        listing = await self._budget.spend(self._lists.of(virtual, seconds, lambda: self._merged(rule, virtual)), what)
        return TagPage(*listing.page(limit, last))

    def forget(self, virtual: Virtual) -> None:
        """Let what was pushed to *virtual*, or to one of its sources, show in the next list."""
        self._lists.forget(virtual)

    async def _merged(self, rule: Rule, virtual: Virtual) -> Listing:
        """Ask every place, whatever was learned: a tag that another convention made can be pulled, too."""
        places = [
            place for place in rule.repositories(virtual.upstream, virtual.repository) if place[0] in self._upstreams
        ]
        answers = dict(zip(places, await together(self._offered(virtual, place) for place in places), strict=True))
        refusals = {place: answer for place, answer in answers.items() if isinstance(answer, Refused)}
        for place, refusal in refusals.items():
            if len(refusals) == len(places) or self._places.is_written(virtual, place):
                raise refusal
        offers = {place: answer for place, answer in answers.items() if isinstance(answer, frozenset)}
        if not offers:
            raise NameUnknown(f"no source of {virtual.repository} exists")
        nothing = dict.fromkeys(places, frozenset[Tag]())
        # In a thread: a hundred thousand tags take seconds, in which others want answers.
        names = await asyncio.to_thread(listed_tags, rule, virtual.upstream, virtual.repository, nothing | offers)
        return Listing(names)

    async def _offered(self, virtual: Virtual, place: Place) -> frozenset[Tag] | NotFound | Refused:
        """Return all tags of one place that a client could ask for, or its no."""
        upstream, repository = place
        try:
            page = await self._upstreams[upstream].tags(repository, None, "")
        except (NotFound, Refused) as no:
            return no
        except NoAnswer as error:
            cause = f"the tags of {virtual.repository} need those of {upstream}/{repository}: {error.message}"
            raise type(error)(cause, retry_after=error.retry_after) from None
        if page.more:
            raise BadAnswer(f"{upstream}/{repository} has more than {len(page.tags)} tags: they can't be merged")
        return frozenset(_valid(page.tags))


def _valid(names: Sequence[str]) -> Iterator[Tag]:
    for name in names:
        try:
            yield Tag.parse(name)
        except Invalid:
            continue  # no client could ask for it
