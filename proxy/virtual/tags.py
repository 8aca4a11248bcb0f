"""The tags of a virtual repository: the union of what its sources offer, under virtual names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proxy.merge.rule import Rule, find
from proxy.oci.content import TagPage
from proxy.oci.errors import Invalid, NameUnknown, NotFound, Refused
from proxy.oci.reference import Tag
from proxy.oci.registry import Registry
from proxy.store.base import Virtual
from proxy.virtual.budget import Budget
from proxy.virtual.places import Place, Places
from proxy.virtual.together import together


class Tags:
    """Lists of tags."""

    def __init__(
        self, rules: Sequence[Rule], upstreams: Mapping[str, Registry], places: Places, budget: Budget
    ) -> None:
        self._rules = rules
        self._upstreams = upstreams
        self._places = places
        self._budget = budget

    async def page(self, virtual: Virtual, limit: int | None, last: str) -> TagPage:
        """Return a page of the tags of *virtual*, sorted by their bytes. Raises `NameUnknown` or `NoAnswer`."""
        return await self._budget.spend(self._page(virtual, limit, last), f"the tags of {virtual.repository}")

    async def _page(self, virtual: Virtual, limit: int | None, last: str) -> TagPage:
        rule = find(self._rules, virtual.upstream, virtual.repository)
        places = await self._places.of(virtual)
        if places == ((virtual.upstream, virtual.repository),) and not rule.sources and not rule.conventions:
            return await self._upstreams[virtual.upstream].tags(virtual.repository, limit, last)
        lists = await together(self._tags(rule, virtual, place) for place in places)
        if all(tags is None for tags in lists):
            raise NameUnknown(f"no source of {virtual.repository} exists")
        behind = sorted(tag for tag in {tag for tags in lists for tag in tags or ()} if tag > last)
        shown = behind if limit is None else behind[:limit]
        return TagPage(tuple(shown), more=len(shown) < len(behind))

    async def _tags(self, rule: Rule, virtual: Virtual, place: Place) -> set[str] | None:
        """Return the virtual tags that one source's tags may belong to, or None where it doesn't exist."""
        try:
            page = await self._upstreams[place[0]].tags(place[1], None, "")
        except (NotFound, Refused):
            return None
        found: set[str] = set()
        for text in page.tags:
            try:
                found.update(rule.tags(virtual.upstream, virtual.repository, place, Tag.parse(text)))
            except Invalid:
                continue  # a name that no client could ask for
        return found
