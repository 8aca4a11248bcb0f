"""What a tag or a digest of a virtual repository stands for: fresh from memory, or asked for and decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from proxy.merge.decide import Hold, Keep, Pass, Refuse, Serve, Verdict, decide, part_of_base
from proxy.merge.entry import Entry, Part
from proxy.merge.explain import Explanation, explain
from proxy.merge.freshness import Age, Freshness
from proxy.merge.outcome import Outcome, SingleImage
from proxy.merge.plan import Plan, learn, plan_companion, plan_tag
from proxy.merge.rule import Learned, Rule, companion_rule, find
from proxy.oci.content import CacheResult, Delivery, Descriptor, Manifest
from proxy.oci.document import Artifact, Image, parse
from proxy.oci.errors import ManifestUnknown, NotFound, Refused, RegistryError, TimedOut
from proxy.oci.lease import Lease
from proxy.oci.mediatype import ANYTHING
from proxy.oci.reference import Digest, Repository, Tag
from proxy.oci.referrers import is_companion, subject_of
from proxy.oci.registry import Bringing, Registry
from proxy.store.base import Content, Location, Metadata, Turns, Virtual
from proxy.telemetry import Metrics
from proxy.virtual.budget import Budget
from proxy.virtual.flight import Flights
from proxy.virtual.history import History
from proxy.virtual.leases import Leases
from proxy.virtual.places import Place, Places
from proxy.virtual.recent import Recent
from proxy.virtual.sources import Sources

_MAX_TROUBLES: Final = 10_000  # tags whose last question ended in an error, remembered for `negative_ttl`
_MAX_OUTDATED: Final = 10_000  # tags and repositories that something was pushed to
_MAX_STRETCHED: Final = 10_000  # tags that last longer than `tag_ttl` because a rate limit runs out
_MAX_PAUSE: Final = 120.0  # seconds between questions to a source that goes on giving no answer
_FLIGHT_SECONDS: Final = 60.0  # after which a question is given up, whoever still waits

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
    """Tags and digests of virtual repositories.

    Per tag: a fresh entry is answered without a question; a stale one is answered, too, and asked for behind;
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
        leases: Leases,
        budget: Budget,
        clock: Callable[[], float],
        metrics: Metrics,
        stretch: Mapping[str, Callable[[], float]],
        turns: Turns | None = None,
    ) -> None:
        """Take what is needed.

        Args:
            leases: Say how long an answer from memory may be given again.
            turns: Whose turn it is to ask, where other processes share the cache.
            budget: How long a caller waits; the question itself may go on.
            clock: Seconds since the epoch.
            stretch: By upstream, how many times longer than `tag_ttl` an answer should last that comes now.
        """
        self._rules = rules
        self._upstreams = upstreams
        self._metadata = metadata
        self._content = content
        self._places = places
        self._history = history
        self._leases = leases
        self._budget = budget
        self._flight_budget = Budget(_FLIGHT_SECONDS)
        self._clock = clock
        self._metrics = metrics
        self._stretch = stretch
        self._turns = turns
        self._stretched: Recent[tuple[Virtual, Tag], float] = Recent(_MAX_STRETCHED)
        self._sources = Sources(upstreams, content)
        self._flights: Flights[tuple[Virtual, Tag], Answer] = Flights(metrics.coalesced)
        self._fetches: Flights[tuple[Virtual, Digest], Manifest] = Flights(metrics.coalesced)
        self._outdated: Recent[tuple[Virtual, Tag] | Place, float] = Recent(_MAX_OUTDATED)
        self._trouble: Recent[tuple[Virtual, Tag], _Trouble] = Recent(_MAX_TROUBLES)

    async def close(self) -> None:
        """Stop asking."""
        await self._flights.close()
        await self._fetches.close()

    async def tag(self, virtual: Virtual, tag: Tag) -> Answer:
        """Return what *tag* stands for. Raises `ManifestUnknown`, `Refused` or `NoAnswer`."""
        now = self._clock()
        lease = self._leases.open(virtual, tag)
        entry = await self._entry(virtual, tag)
        if entry and not await self._history.used_tag(virtual, entry):
            entry = None
        age = now - entry.checked_at if entry else 0.0
        judged = self._judged(virtual, tag, entry, now) if entry else Age.EXPIRED
        if entry and judged is Age.FRESH:
            until = self._fresh_until(virtual, tag, entry)
            return _answer(
                entry, CacheResult.HIT, age, self._leases.grant(lease, now, since=entry.checked_at, until=until)
            )
        trouble = self._trouble.get((virtual, tag), now)
        if trouble and isinstance(trouble.error, NotFound):
            raise ManifestUnknown(trouble.error.message)
        if entry and trouble:
            return self._held(entry, trouble.error)
        if entry and judged is Age.STALE:
            self._flights.begin((virtual, tag), lambda: self._refresh(virtual, tag, entry))
            return _answer(entry, CacheResult.STALE, age)
        return await self._asked(virtual, tag, entry)

    async def revalidate(self, virtual: Virtual, tag: Tag) -> None:
        """Ask anew for a tag whose sources are said to have changed. One that nobody pulled is left alone."""
        self._trouble.drop((virtual, tag))
        self._stretched.drop((virtual, tag))
        self._leases.end(virtual, tag)
        entry = await self._entry(virtual, tag)
        if entry is not None:
            self._flights.anew((virtual, tag), lambda: self._refresh(virtual, tag, entry))

    async def outdate(self, virtual: Virtual, tag: Tag) -> None:
        """Answer *tag* from now on only with what was asked for after this moment: something was pushed."""
        self._outdated.put((virtual, tag), self._clock(), math.inf)
        await self.revalidate(virtual, tag)

    def outdate_place(self, place: Place) -> None:
        """The same for all tags that something of *place* is part of: something was deleted there."""
        self._outdated.put(place, self._clock(), math.inf)
        self._leases.end_all()

    async def learn(self, virtual: Virtual, place: Place, manifest: Manifest) -> None:
        """Remember a manifest that was pushed to *place*, which nobody has to fetch to know it."""
        await self._content.remember(manifest.descriptor.digest, manifest.body)
        await self._places.keep_manifest(virtual, manifest.descriptor, place)
        await self._learn_blobs(virtual, *place, manifest)

    async def body(self, virtual: Virtual, entry: Entry) -> Manifest:
        """Return the bytes that *entry* stands for."""
        body = await self._content.get(entry.descriptor.digest)
        if body is None and entry.merged:
            body = await self._history.restore(entry)
        if body is not None:
            return Manifest(entry.descriptor, body)
        return await self.digest(virtual, entry.descriptor.digest)

    async def digest(self, virtual: Virtual, digest: Digest) -> Manifest:
        """Return a manifest by digest, from where it was seen or from any source of *virtual* (law 8)."""
        lease = self._leases.open(virtual, digest)
        location = await self._places.manifest(virtual, digest)
        body = await self._content.get(digest) if location else None
        if location is not None and body is not None:
            manifest = Manifest(Descriptor(media_type=location.media_type, digest=digest, size=len(body)), body)
            await self._learn_blobs(virtual, location.upstream, location.repository, manifest)
            await self._history.used_digest(virtual, manifest)
            self._leases.grant(lease, self._clock(), since=None, until=math.inf)
            return replace(manifest, delivery=Delivery(CacheResult.HIT, lease=lease))
        fetch = self._fetches.join((virtual, digest), lambda: self._fetch(virtual, digest, location))
        return await self._budget.spend(fetch, f"{virtual.repository}@{digest}")

    async def _fetch(self, virtual: Virtual, digest: Digest, location: Location | None) -> Manifest:
        """Fetch a manifest from where it was last found, else from wherever it is."""
        if location is not None and location.upstream:
            try:
                return await self._take(virtual, (location.upstream, location.repository), digest)
            except NotFound:
                _log.info("manifest moved", image=str(virtual), digest=digest, was_in=str(location.repository))
        return await self._take(virtual, await self._search(virtual, digest), digest)

    async def explain(self, virtual: Virtual, tag: Tag) -> Explanation:
        """Ask everything anew and say why *tag* is what it is. Changes nothing that is served."""
        previous = await self._entry(virtual, tag)
        for plan in await self._plans(virtual, tag):
            asked = await self._sources.ask(plan, {})
            outcomes = asked.outcomes or ()
            verdict = self._decide(plan, outcomes, previous)
            if not _not_found(verdict):
                break
        return explain(plan, asked.probes, outcomes, verdict)

    def _rule(self, virtual: Virtual, tag: Tag) -> Rule:
        """Return the rule that speaks of *tag*."""
        rule = find(self._rules, virtual.upstream, virtual.repository)
        return companion_rule(rule) if is_companion(tag) else rule

    def _freshness(self, virtual: Virtual, tag: Tag) -> Freshness:
        return self._rule(virtual, tag).freshness_of(tag)

    def _judged(self, virtual: Virtual, tag: Tag, entry: Entry, now: float) -> Age:
        """Judge *entry* by its age, or by what was settled when it was confirmed."""
        if self._is_outdated(virtual, tag, entry):
            return Age.EXPIRED
        if now >= entry.checked_at == self._stretched.get((virtual, tag), now):
            return Age.FRESH
        return self._freshness(virtual, tag).judge(now - entry.checked_at)

    def _fresh_until(self, virtual: Virtual, tag: Tag, entry: Entry) -> float:
        """Return until when *entry*, which is fresh, stays so if nothing happens."""
        until = entry.checked_at + self._freshness(virtual, tag).tag_ttl
        settled = self._stretched.last((virtual, tag)) == entry.checked_at
        return max(until, self._stretched.until((virtual, tag))) if settled else until

    def _is_outdated(self, virtual: Virtual, tag: Tag, entry: Entry) -> bool:
        """Whether *entry* was confirmed before something it is made of was pushed or deleted through us."""
        keys: list[tuple[Virtual, Tag] | Place] = [(virtual, tag), (virtual.upstream, virtual.repository)]
        keys += [(part.upstream, part.repository) for part in entry.parts]
        return any((since := self._outdated.last(key)) is not None and entry.checked_at <= since for key in keys)

    def _stretch_ttl(self, virtual: Virtual, tag: Tag, entry: Entry) -> None:
        """Let *entry*, just confirmed, last longer while the upstream's rate limit runs out.

        It is settled now and never later: a limit that shrinks makes nothing fresh that wasn't.
        """
        ask = self._stretch.get(virtual.upstream)
        stretch = ask() if ask else 1.0
        if stretch > 1:
            until = entry.checked_at + stretch * self._freshness(virtual, tag).tag_ttl
            self._stretched.put((virtual, tag), entry.checked_at, until)

    async def _entry(self, virtual: Virtual, tag: Tag) -> Entry | None:
        """Return the kept entry, unless another rule made it."""
        entry = await self._metadata.entry(virtual, tag)
        if entry is None:
            return None
        return entry if entry.fingerprint == self._rule(virtual, tag).fingerprint else None

    async def _asked(self, virtual: Virtual, tag: Tag, previous: Entry | None) -> Answer:
        """Wait for the flight of *tag*, but never longer than the budget (law 11)."""
        flight = self._flights.join((virtual, tag), lambda: self._refresh(virtual, tag, previous))
        try:
            return await self._budget.spend(flight, f"{virtual.repository}:{tag}")
        except TimedOut as error:
            age = self._clock() - previous.checked_at if previous else 0.0
            if previous is None or not self._freshness(virtual, tag).may_hold(age, error):
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
            self._stretch_ttl(virtual, tag, answer.entry)
        return answer

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
        if entry is None or entry.fingerprint != self._rule(virtual, tag).fingerprint:
            return None
        return entry if self._judged(virtual, tag, entry, self._clock()) is Age.FRESH else None

    async def _attempt(self, virtual: Virtual, tag: Tag, previous: Entry | None) -> Answer:
        known = previous.digests() if previous else {}
        for plan in await self._plans(virtual, tag):
            asked = await self._sources.ask(plan, known)
            now = self._clock()
            if asked.outcomes is None and previous is not None:
                return await self._confirm(virtual, tag, previous, now)
            verdict = self._decide(plan, asked.outcomes or (), previous)
            if not _not_found(verdict):
                break
        answer = await self._act(virtual, plan, verdict, previous, now)
        await self._learn(virtual, plan, verdict, now)
        return answer

    async def _plans(self, virtual: Virtual, tag: Tag) -> tuple[Plan, ...]:
        """Return what to ask, and what to ask after that if it finds nothing.

        What was learned from other tags is tried alone first. A repository that uses one convention for some
        tags and another for others costs a second round, never a 404.
        """
        if is_companion(tag):
            return await self._companion_plans(virtual, tag)
        rule = find(self._rules, virtual.upstream, virtual.repository)
        learned = await self._metadata.learned(virtual) if rule.conventions else None
        now = self._clock()
        first = plan_tag(rule, virtual.upstream, virtual.repository, tag, learned, now)
        full = plan_tag(rule, virtual.upstream, virtual.repository, tag, None, now)
        return (first,) if first == full else (first, full)

    async def _companion_plans(self, virtual: Virtual, tag: Tag) -> tuple[Plan, ...]:
        """Return where to look for a signature, an attestation or a list of referrers, one place after the other."""
        rule = find(self._rules, virtual.upstream, virtual.repository)
        places = await self._places.about(virtual, subject_of(tag))
        return tuple(
            plan_companion(rule, virtual.upstream, virtual.repository, tag, place, conjecture=conjecture)
            for place, conjecture in places.items()
        )

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
                self._report(virtual, plan, verdict)
                entry = _entry_of(plan, verdict, previous, now)
                await self._history.publish(virtual, plan.tag, entry, verdict.manifest.body)
            case Pass():
                entry = _passed_entry(plan, verdict, previous, now)
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

    async def _learn(self, virtual: Virtual, plan: Plan, verdict: Verdict, now: float) -> None:
        """Remember which guesses came true, so that the next tag of this repository costs no guessing."""
        if not plan.guessing:
            return
        match verdict:
            case Serve(parts=parts):
                places = {part.place for part in parts}
                learned = learn([source for source in plan.sources if source.place in places], now)
            case Pass(found=found) if not isinstance(found.kind, SingleImage):
                learned = Learned("", (), now)  # its author merged it; a lone image may get company any time
            case _:
                return
        if learned is not None:
            await self._metadata.keep_learned(virtual, learned)

    async def _search(self, virtual: Virtual, digest: Digest) -> tuple[str, Repository]:
        async def look(registry: Registry, repository: Repository) -> Descriptor:
            return (await registry.resolve(repository, digest, ANYTHING)).descriptor

        missing = ManifestUnknown(f"no source of {virtual.repository} has the manifest {digest}")
        return (await self._places.search(virtual, look, missing)).place

    async def _take(self, virtual: Virtual, place: tuple[str, Repository], digest: Digest) -> Manifest:
        """Fetch a manifest from a known place and remember it with what it names."""
        manifest = await self._upstreams[place[0]].manifest(place[1], digest, ANYTHING)
        await self._content.remember(digest, manifest.body)
        await self._places.keep_manifest(virtual, manifest.descriptor, place)
        await self._learn_blobs(virtual, *place, manifest)
        return replace(manifest, delivery=Delivery(CacheResult.MISS))

    async def _learn_blobs(self, virtual: Virtual, upstream: str, repository: Repository, manifest: Manifest) -> None:
        """A manifest that passes by says where its blobs are; the client asks for them next."""
        if not upstream:
            return
        document = parse(manifest.body, manifest.descriptor.media_type)
        if isinstance(document, Image | Artifact):
            blobs = [blob.digest for blob in document.blobs]
            await self._places.keep_blobs(virtual, blobs, (upstream, repository))

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
        self._trouble.put((virtual, plan.tag), _Trouble(error, pause), now + pause)

    async def _refused(self, virtual: Virtual, plan: Plan, error: RegistryError, now: float) -> None:
        """Let an authoritative no count: the tag is forgotten, and not asked for again at once."""
        if isinstance(error, NotFound):
            self._pause(virtual, plan, error, now)
        else:
            _log.warning("no answer", image=str(plan), upstream=virtual.upstream, reason=error.message)
        if isinstance(error, NotFound | Refused):
            await self._metadata.drop_entry(virtual, plan.tag)


def _answer(entry: Entry, cache: CacheResult, age: float, lease: Lease | None = None) -> Answer:
    """Return *entry* with what a client should know of it; one that is held says so for as long as it is."""
    held = (f"held: {entry.held}",) if entry.held else ()
    return Answer(entry, Delivery(cache, age, (*held, *entry.warnings), lease))


def _not_found(verdict: Verdict) -> bool:
    return isinstance(verdict, Refuse) and isinstance(verdict.error, NotFound)


def _entry_of(plan: Plan, verdict: Serve, previous: Entry | None, now: float) -> Entry:
    return _entry(
        plan,
        verdict.manifest.descriptor,
        previous,
        now,
        merged=True,
        default_child=verdict.default_child,
        parts=verdict.parts,
        warnings=verdict.warnings,
        complete=not verdict.missing,
        coherent=not verdict.incoherence,
    )


def _passed_entry(plan: Plan, verdict: Pass, previous: Entry | None, now: float) -> Entry:
    found = verdict.found
    part = part_of_base(found)
    return _entry(
        plan, found.descriptor, previous, now, merged=False, default_child=verdict.default_child, parts=(part,)
    )


def _entry(
    plan: Plan,
    descriptor: Descriptor,
    previous: Entry | None,
    now: float,
    *,
    merged: bool,
    default_child: Descriptor | None,
    parts: tuple[Part, ...],
    warnings: tuple[str, ...] = (),
    complete: bool = True,
    coherent: bool = True,
) -> Entry:
    same = previous is not None and previous.descriptor.digest == descriptor.digest
    return Entry(
        descriptor=descriptor,
        merged=merged,
        default_child=default_child,
        parts=parts,
        warnings=warnings,
        fingerprint=plan.rule.fingerprint,
        checked_at=now,
        changed_at=previous.changed_at if previous is not None and same else now,
        complete=complete,
        coherent=coherent,
    )
