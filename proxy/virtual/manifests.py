"""What a tag of a virtual repository stands for: fresh from memory, or asked for and decided."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Final

import structlog

from proxy.merge import generation
from proxy.merge.decide import Hold, Keep, Pass, Refuse, Serve, Verdict, decide
from proxy.merge.entry import Entry
from proxy.merge.explain import Explanation, explain
from proxy.merge.freshness import Age
from proxy.merge.learning import widen, widen_unchanged
from proxy.merge.outcome import Outcome
from proxy.merge.plan import Plan
from proxy.merge.rule import Rule
from proxy.oci.content import CacheResult, Delivery, Manifest
from proxy.oci.errors import ManifestUnknown, NoAnswer, NotFound, Refused, RegistryError, TimedOut
from proxy.oci.lease import Lease
from proxy.oci.reference import Tag
from proxy.oci.registry import Bringing
from proxy.store.base import Content, Metadata, Turns, Virtual
from proxy.telemetry import Metrics
from proxy.virtual.budget import Budget, Left
from proxy.virtual.digests import Digests
from proxy.virtual.flight import Flights
from proxy.virtual.history import History
from proxy.virtual.holdings import Holdings
from proxy.virtual.leases import Leases
from proxy.virtual.permissions import Permissions
from proxy.virtual.places import Place, Places
from proxy.virtual.plans import Plans
from proxy.virtual.recent import Recent
from proxy.virtual.sources import NOTHING, Asked, Known, Sources
from proxy.virtual.standing import Standing

_MAX_TROUBLES: Final = 10_000  # tags whose last question ended in an error, remembered for `negative_ttl`
_MAX_PAUSE: Final = 120.0  # seconds between questions to a source that goes on giving no answer
_FLIGHT_SECONDS: Final = 60.0  # after which a question is given up, whoever still waits

_CONFIRMED: Final = (CacheResult.MISS, CacheResult.REVALIDATED)

_log: Final = structlog.get_logger("merge")


@dataclass(frozen=True, slots=True)
class Answer:
    """A tag's entry and how it came about."""

    entry: Entry
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why the last question ended in an error, and for how many seconds it isn't asked again."""

    error: RegistryError
    pause: float


class Manifests:
    """Tags of virtual repositories.

    A fresh entry is answered without a question; a stale one is answered, too, and asked for behind;
    else one flight asks for everybody. What comes of it is kept content and locations first, the tag last, so
    that nobody is ever told a digest that can't be fetched.
    """

    def __init__(
        self,
        *,
        rules: Sequence[Rule],
        upstreams: Mapping[str, Bringing],
        metadata: Metadata,
        content: Content,
        places: Places,
        history: History,
        standing: Standing,
        digests: Digests,
        leases: Leases,
        permissions: Permissions,
        holdings: Holdings,
        budget: Budget,
        clock: Callable[[], float],
        metrics: Metrics,
        turns: Turns | None = None,
    ) -> None:
        """Take what is needed.

        Args:
            leases: Say how long an answer from memory may be given again.
            permissions: Say whether the caller may have it.
            holdings: What places were seen to hold.
            turns: Whose turn it is to ask, where other processes share the cache.
            budget: How long a caller waits; the question itself may go on.
            clock: Seconds since the epoch.
        """
        self._metadata = metadata
        self._content = content
        self._history = history
        self._leases = leases
        self._permissions = permissions
        self._budget = budget
        self._flight_budget = Budget(_FLIGHT_SECONDS)
        self._clock = clock
        self._metrics = metrics
        self._standing = standing
        self._digests = digests
        self._turns = turns
        self._plans = Plans(rules, metadata, places, clock)
        self._sources = Sources(upstreams, content, holdings)
        self._flights: Flights[tuple[Virtual, Tag], Answer] = Flights(metrics.coalesced)
        self._trouble: Recent[tuple[Virtual, Tag], _Trouble] = Recent(_MAX_TROUBLES)

    async def close(self) -> None:
        """Stop asking."""
        await self._flights.close()

    async def tag(self, virtual: Virtual, tag: Tag, left: Left | None = None) -> Answer:
        """Return what *tag* stands for, within what is *left*. Raises `ManifestUnknown`, `Refused` or `NoAnswer`."""
        now, left = self._clock(), left or self._budget.begin()
        lease = self._leases.open(virtual, tag)
        entry = await self._entry(virtual, tag)
        if entry and not await self._history.used_tag(virtual, entry):
            entry = None
        age = now - entry.checked_at if entry else 0.0
        judged = self._standing.judged(virtual, tag, entry, now) if entry else Age.EXPIRED
        if entry and judged is Age.FRESH:
            until = min(self._standing.fresh_until(virtual, tag, entry), await self._proof(entry, left))
            return _answer(
                entry, CacheResult.HIT, age, self._leases.grant(lease, now, since=entry.checked_at, until=until)
            )
        trouble = self._trouble.get((virtual, tag), self._clock())
        if trouble and isinstance(trouble.error, NotFound):
            raise ManifestUnknown(trouble.error.message)
        if entry and trouble:
            return await self._permitted(self._held(entry, trouble.error), left)
        if entry and judged is Age.STALE:
            self._flights.begin((virtual, tag), lambda: self._refresh(virtual, tag, entry))
            return await self._permitted(_answer(entry, CacheResult.STALE, age), left)
        return await self._permitted(await self._asked(virtual, tag, entry, left), left)

    async def _permitted(self, answer: Answer, left: Left) -> Answer:
        """Return *answer* if the caller may have it: also what was asked for with what they may do may be held."""
        until, lease = await self._proof(answer.entry, left), answer.delivery.lease
        if lease is not None:
            lease.until = min(lease.until, until)
        return answer

    async def _proof(self, entry: Entry, left: Left) -> float:
        """Return until when the caller may have *entry*."""
        return await left.spend(self._permissions.entry(entry), "the right to read it")

    async def revalidate(self, virtual: Virtual, tag: Tag) -> None:
        """Ask anew for a tag whose sources are said to have changed. One that nobody pulled is left alone."""
        self._trouble.drop((virtual, tag))
        self._standing.unstretch(virtual, tag)
        self._leases.end(virtual, tag)
        entry = await self._entry(virtual, tag)
        if entry is not None:
            self._flights.anew((virtual, tag), lambda: self._refresh(virtual, tag, entry))

    async def outdate(self, virtual: Virtual, tag: Tag) -> None:
        """Answer *tag* from now on only with what was asked for after this moment: something was pushed."""
        self._standing.outdate((virtual, tag))
        await self.revalidate(virtual, tag)

    def outdate_place(self, place: Place) -> None:
        """The same for all tags that something of *place* is part of: something was deleted there."""
        self._standing.outdate(place)
        self._leases.end_all()

    async def body(self, virtual: Virtual, entry: Entry, left: Left | None = None) -> Manifest:
        """Return the bytes that *entry* stands for, within what is *left*."""
        body = await self._content.get(entry.descriptor.digest)
        if body is None and entry.merged:
            body = await self._history.restore(entry)
        if body is not None:
            return Manifest(entry.descriptor, body)
        return await self._digests.manifest(virtual, entry.descriptor.digest, left)

    async def explain(self, virtual: Virtual, tag: Tag) -> Explanation:
        """Ask everything anew and say why *tag* is what it is. Changes nothing that is served."""
        previous = await self._entry(virtual, tag)
        plan, asked, verdict = await self._question(virtual, tag, {}, previous)
        return explain(plan, asked.probes, asked.outcomes or (), verdict)

    async def _entry(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the kept entry, unless another rule made it."""
        entry = await self._metadata.entry(virtual, tag)
        if entry is None:
            return None
        return entry if entry.fingerprint == self._standing.rule(virtual, tag).fingerprint else None

    async def _asked(self, virtual: Virtual, tag: Tag, previous: Entry | None, left: Left) -> Answer:
        """Wait for the flight of *tag*, but never longer than the budget (law 11)."""
        flight = self._flights.join((virtual, tag), lambda: self._refresh(virtual, tag, previous))
        try:
            return await left.spend(flight, f"{virtual.repository}:{tag}")
        except TimedOut as error:
            age = self._clock() - previous.checked_at if previous else 0.0
            if previous is None or not self._standing.freshness(virtual, tag).may_hold(age, error):
                raise
            return self._held(previous, error)

    async def _refresh(self, virtual: Virtual, tag: Tag, previous: Entry | None) -> Answer:
        """Ask, decide, keep. Runs in a flight: once for all callers, and for all processes that share the cache."""
        attempt = self._in_turn(virtual, tag, previous)
        try:
            answer = await self._flight_budget.spend(attempt, f"{virtual.repository}:{tag}")
        finally:
            self._leases.end(virtual, tag)
        if previous is None or answer.entry.checked_at > previous.checked_at:
            self._standing.stretch(virtual, tag, answer.entry)
        return self._leased(virtual, tag, answer) if answer.delivery.cache in _CONFIRMED else answer

    def _leased(self, virtual: Virtual, tag: Tag, answer: Answer) -> Answer:
        """Let an answer just confirmed be given again, unless something was pushed or deleted meanwhile.

        Nothing is awaited from here on to where the flight ends, so that whatever changes later ends this lease.
        """
        lease, now = self._leases.open(virtual, tag), self._clock()
        if self._standing.judged(virtual, tag, answer.entry, now) is not Age.FRESH:
            return answer
        until = self._standing.fresh_until(virtual, tag, answer.entry)
        lease = self._leases.grant(lease, now, since=answer.entry.checked_at, until=until)
        return replace(answer, delivery=replace(answer.delivery, lease=lease))

    async def _in_turn(self, virtual: Virtual, tag: Tag, previous: Entry | None) -> Answer:
        """Ask, unless another process did so while we waited for our turn."""
        if self._turns is None:
            return await self._attempt(virtual, tag, previous)
        async with self._turns.turn(f"{virtual}:{tag}") as waited:
            theirs = await self._theirs(virtual, tag) if waited else None
            if theirs is not None:
                return _answer(theirs, CacheResult.MISS, max(0.0, self._clock() - theirs.checked_at))
            answer = await self._attempt(virtual, tag, previous)
            await self._metadata.settle(virtual, tag)
            return answer

    async def _theirs(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return what another process has just kept of *tag*, if it is as good as asking."""
        entry = await self._metadata.reread(virtual, tag)
        if entry is None or entry.fingerprint != self._standing.rule(virtual, tag).fingerprint:
            return None
        return entry if self._standing.judged(virtual, tag, entry, self._clock()) is Age.FRESH else None

    async def _attempt(self, virtual: Virtual, tag: Tag, previous: Entry | None) -> Answer:
        known = previous.digests() if previous else {}
        plan, asked, verdict = await self._question(virtual, tag, known, previous)
        now = self._clock()
        if asked.outcomes is None and previous is not None:
            return await self._confirm(virtual, tag, previous, now)
        answer = await self._act(virtual, plan, verdict, previous, now)
        await self._plans.learn(virtual, plan, verdict, now)
        return answer

    async def _question(
        self, virtual: Virtual, tag: Tag, known: Known, previous: Entry | None
    ) -> tuple[Plan, Asked, Verdict]:
        """Ask what is planned, and then what else there is where that finds too little.

        What was learned from other tags is tried alone first. A repository that uses other words for some tags than
        for others costs a second round, never a 404 or an architecture.
        """
        plans, asked = deque(await self._plans.of(virtual, tag)), NOTHING
        while True:
            plan = plans.popleft()
            asked = await self._sources.ask(plan, known, asked)
            verdict = self._decide(plan, asked.outcomes or (), previous)
            unchanged = previous if asked.outcomes is None else None
            wider = widen_unchanged(plan, unchanged) if unchanged else widen(plan, verdict)
            if wider is not None:
                plans.append(wider)
            elif unchanged or not plans or not _not_found(verdict):
                return plan, asked, verdict

    async def _confirm(self, virtual: Virtual, tag: Tag, previous: Entry, now: float) -> Answer:
        """Nothing changed: the same answer, as fresh as new."""
        entry = replace(previous, checked_at=now, held="", held_since=0.0)
        await self._metadata.keep_entry(virtual, tag, entry)
        self._trouble.drop((virtual, tag))
        return _answer(entry, CacheResult.REVALIDATED, 0.0)

    def _decide(self, plan: Plan, outcomes: Sequence[Outcome], previous: Entry | None) -> Verdict:
        now = self._clock()
        age = now - previous.checked_at if previous else 0.0
        held = now - previous.held_since if previous and previous.held else 0.0
        return decide(plan, outcomes, previous, age=age, freshness=plan.rule.freshness_of(plan.tag), held=held)

    async def _act(self, virtual: Virtual, plan: Plan, verdict: Verdict, previous: Entry | None, now: float) -> Answer:
        """Do what was decided."""
        match verdict:
            case Serve():
                # The lines are written while the disk is.
                asyncio.get_running_loop().call_soon(self._report, virtual, plan, verdict)
                entry = generation.merged(plan, verdict, previous, now)
                await self._history.publish(virtual, plan.tag, entry, verdict.manifest.body)
            case Pass():
                entry = generation.passed(plan, verdict, previous, now)
                await self._history.publish(virtual, plan.tag, entry, None)
            case Hold(entry=held, error=error):
                self._pause(virtual, plan, error, now)
                _log.warning("held", image=str(plan), upstream=virtual.upstream, reason=error.message)
                return self._held(held, error)
            case Keep(entry=kept, reason=reason):
                return await self._keep(virtual, plan, kept, reason, now)
            case Refuse(error=error):
                await self._refused(virtual, plan, error, now)
                raise error
        self._trouble.drop((virtual, plan.tag))
        return _answer(entry, CacheResult.MISS, 0.0)

    async def _keep(self, virtual: Virtual, plan: Plan, entry: Entry, reason: str, now: float) -> Answer:
        """Serve the older generation on purpose, and say so. The check itself succeeded: its clock starts anew."""
        if not entry.held:
            _log.warning("kept", image=str(plan), upstream=virtual.upstream, reason=reason)
        self._metrics.held.labels("incomplete release").inc()
        kept = replace(entry, checked_at=now, held=reason, held_since=entry.held_since if entry.held else now)
        await self._metadata.keep_entry(virtual, plan.tag, kept)
        self._trouble.drop((virtual, plan.tag))
        return _answer(kept, CacheResult.STALE, now - entry.checked_at)

    def _held(self, entry: Entry, error: RegistryError) -> Answer:
        self._metrics.held.labels(error.code).inc()
        age = max(0.0, self._clock() - entry.checked_at)
        warning = f"stale for {age:.0f} s: {error.message}"
        return Answer(entry, Delivery(CacheResult.STALE, age, (warning, *entry.warnings)))

    def _report(self, virtual: Virtual, plan: Plan, verdict: Serve) -> None:
        """Tell operators what was merged and what is odd about it."""
        self._metrics.merges.inc()
        self._metrics.partial_merges.inc(bool(verdict.missing))
        self._metrics.platform_mismatches.inc(len(verdict.mismatches))
        self._metrics.platform_clashes.inc(len(verdict.clashes))
        where = {"image": str(plan), "upstream": virtual.upstream}
        platforms = [platform for part in verdict.parts for platform in part.platforms]
        _log.info("merged", **where, digest=verdict.manifest.descriptor.digest, platforms=platforms)
        for event, sentences in (
            ("partial", verdict.missing),
            ("platform mismatch", verdict.mismatches),
            ("platform clash", verdict.clashes),
            ("source left out", verdict.omissions),
        ):
            for sentence in sentences:
                _log.warning(event, **where, detail=sentence)

    def _pause(self, virtual: Virtual, plan: Plan, error: RegistryError, now: float) -> None:
        """Let nobody ask again for a moment; for trouble that goes on, a longer moment each time."""
        pause = plan.rule.freshness_of(plan.tag).negative_ttl
        before = self._trouble.last((virtual, plan.tag))
        if before is not None and not isinstance(error, NotFound):
            pause = max(pause, min(before.pause * 2, _MAX_PAUSE))
        # A copy: the error itself is raised, and its traceback would keep every request alive that ended with it.
        self._trouble.put((virtual, plan.tag), _Trouble(copy(error), pause), now + pause, since=now)

    async def _refused(self, virtual: Virtual, plan: Plan, error: RegistryError, now: float) -> None:
        """Let an authoritative no count: the tag is forgotten, and not asked for again at once."""
        told = {"image": str(plan), "upstream": virtual.upstream, "reason": error.message}
        match error:
            case NotFound():
                self._pause(virtual, plan, error, now)
            case Refused():
                _log.warning("refused", **told)
            case _:
                _log.warning("no answer", **told)
                if isinstance(error, NoAnswer):
                    error.told = True
        if isinstance(error, NotFound | Refused):
            await self._metadata.drop_entry(virtual, plan.tag)


def _answer(entry: Entry, cache: CacheResult, age: float, lease: Lease | None = None) -> Answer:
    """Return *entry* with what a client should know of it; one that is held says so for as long as it is."""
    held = (f"held: {entry.held}",) if entry.held else ()
    return Answer(entry, Delivery(cache, age, (*held, *entry.warnings), lease))


def _not_found(verdict: Verdict) -> bool:
    return isinstance(verdict, Refuse) and isinstance(verdict.error, NotFound)
