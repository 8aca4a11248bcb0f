"""Random histories against a model of the laws: pushes, deletions, outages, time, restarts, and pulls between them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from conftest import RULE, Clock
from images import ARM, V1, VIRTUAL, X86, push
from proxy.app import Running, serve
from proxy.oci.content import Manifest
from proxy.oci.errors import NotFound, RegistryError
from proxy.oci.reference import Digest, Repository
from proxy.settings.keys import Settings
from scripted import Origin, running, status

PLATFORMS = {X86: "linux/amd64", ARM: "linux/arm64"}
OUTAGES = {"down": 503, "refused": 403}
TTL, NEGATIVE, STALE_IF_ERROR = 60.0, 10.0, 86_400.0

State = frozenset[Digest]


class Laws(RuleBasedStateMachine):
    """The service, its upstream, and what is true of them."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.service = AsyncExitStack()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.origin = Origin()
        self.pushed: dict[Repository, Digest] = {}
        self.outages: dict[Repository, str] = {}
        self.count = 0
        # What existed together, and from when on.
        self.history: list[tuple[float, State]] = [(self.clock.now, frozenset())]
        self.advertised: dict[Digest, bytes] = {}
        self.confirmed_at: float | None = None  # when the last good answer was last known to be right

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the machine's event loop."""
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        """Let upstream and service listen."""
        self.run(self._start(with_origin=True))

    async def _start(self, *, with_origin: bool) -> None:
        if with_origin:
            await self.stack.enter_async_context(running(self.origin))
        loaded = Settings.model_validate(
            {
                "listen": "127.0.0.1:0",
                "admin_listen": "127.0.0.1:0",
                "drain": "1s",
                "upstream": [{"name": "hub", "url": self.origin.url, "retries": 0, "breaker": 0}],
                "rule": [RULE],
                "cache": {"dir": self.folder.name, "stale_while_revalidate": "0s"},
            }
        )
        self.serving: Running = await self.service.enter_async_context(serve(loaded, self.clock))

    def teardown(self) -> None:
        """Stop everything."""
        self.run(self.service.aclose())
        self.run(self.stack.aclose())
        self.runner.close()
        self.folder.cleanup()

    @rule(repository=st.sampled_from([X86, ARM]))
    def push(self, repository: Repository) -> None:
        """A build pushes an image."""
        self.count += 1
        image = push(self.origin.registry, repository, V1, PLATFORMS[repository], text=str(self.count))
        self.pushed[repository] = image.digest
        self._remember()

    @rule(repository=st.sampled_from([X86, ARM]))
    def delete(self, repository: Repository) -> None:
        """Somebody deletes a tag."""
        if self.pushed.pop(repository, None) is not None:
            self.origin.registry.remove(repository, V1)
            self._remember()

    @rule(repository=st.sampled_from([X86, ARM]), kind=st.sampled_from([*OUTAGES, ""]))
    def outage(self, repository: Repository, kind: str) -> None:
        """A source's registry goes down, refuses, or comes back."""
        self.outages.pop(repository, None)
        if kind:
            self.outages[repository] = kind
        self.origin.heal()
        for broken, how in self.outages.items():
            self.origin.fail(f"/v2/{broken}/", status(OUTAGES[how]))

    @rule(seconds=st.sampled_from([1.0, 11.0, 61.0, 400.0, 4000.0, 90_000.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @rule()
    def restart(self) -> None:
        """The service stops and starts again on the same folder."""
        self.run(self.service.aclose())
        self.service = AsyncExitStack()
        self.run(self._start(with_origin=False))

    @rule()
    def pull(self) -> None:
        """A client pulls the virtual tag, and gets what the laws allow."""
        try:
            manifest: Manifest = self.run(self.serving.site.manifest(f"{VIRTUAL}:{V1}"))
        except RegistryError as error:
            self._check_error(error)
        else:
            self._check_index(manifest)

    def _check_index(self, manifest: Manifest) -> None:
        served = frozenset(Digest.parse(each["digest"]) for each in orjson.loads(manifest.body)["manifests"])
        now = self.clock.now

        assert served in {state for _, state in self.history}, "these manifests never existed together"
        if manifest.delivery.cache in ("miss", "revalidated"):
            assert not self.outages
            assert served == self._state()
            self.confirmed_at = now
        elif manifest.delivery.cache == "hit":
            assert served in self._states_since(now - TTL)
        else:
            assert self.outages or self._states_since(now - 240.0) != {self._state()} or manifest.delivery.warnings
            assert manifest.delivery.warnings
        self.advertised[manifest.descriptor.digest] = manifest.body

    def _check_error(self, error: RegistryError) -> None:
        now = self.clock.now
        if isinstance(error, NotFound):
            assert frozenset() in self._states_since(now - NEGATIVE)
            self.confirmed_at = None
            return
        kinds = set(self.outages.values())
        assert kinds, f"{error} without an outage"
        assert error.status == (403 if "refused" in kinds else 503)
        if "refused" in kinds:
            self.confirmed_at = None
        held = self.confirmed_at is not None and now - self.confirmed_at <= TTL + STALE_IF_ERROR
        assert not held, "the last good index wasn't served while its registry was down"

    @invariant()
    def what_was_advertised_is_pullable(self) -> None:
        """Every digest that was ever sent is served by digest, whatever has happened since."""
        for digest, body in self.advertised.items():
            found = self.run(self.serving.site.manifest(f"{VIRTUAL}@{digest}"))
            assert found.body == body

    def _state(self) -> State:
        return frozenset(self.pushed.values())

    def _remember(self) -> None:
        self.history.append((self.clock.now, self._state()))

    def _states_since(self, moment: float) -> set[State]:
        """Return what existed together at some time since *moment*."""
        before = [state for since, state in self.history if since < moment][-1:]
        return {*before, *(state for since, state in self.history if since >= moment)}


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
