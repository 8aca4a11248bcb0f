"""One fault from beginning to end: everything works, one registry fails, both fail, they are well again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chaos.client import PATIENCE, Client, Seen, Verdict
from chaos.faults import ClosedPort, Fault, NoSuchHost
from chaos.relay import Relay, limited, relay
from chaos.world import APP, FREE, World
from conftest import settled
from e2e import peers
from e2e.manifuse import Proxy
from proxy.oci.reference import Digest

_TRIES: Final = 10
TTL: Final = 1.0  # seconds, of tags that have to be confirmed
HEALING: Final = 60.0  # seconds that may pass until a well registry is believed to be well again

CONFIGURATION: Final = """\
request_budget = "2s"
drain = "1s"

[[upstream]]
name = "main"
url = "{main}"
default = true
timeouts = {{ connect = "500ms", header = "1s", total = "1500ms", idle = "1s" }}

[[upstream]]
name = "arm-site"
url = "{arm}"
timeouts = {{ connect = "500ms", header = "1s", total = "1500ms", idle = "1s" }}

[[rule]]
match = "team/app"
sources = [
  {{ image = "{{repository}}-x86:{{tag}}", platform = "linux/amd64" }},
  {{ image = "{{repository}}-arm:{{tag}}", platform = "linux/arm64", upstream = "arm-site" }},
]
tag_ttl = "1s"
stale_while_revalidate = "0s"
negative_ttl = "200ms"

[[rule.tags]]
match = "hot"
tag_ttl = "10m"

[[rule.tags]]
match = "soft"
stale_while_revalidate = "10m"

[[rule]]
match = "team/free"
conventions = ["repository-suffix"]
platforms = ["linux/amd64", "linux/arm64"]
tag_ttl = "1s"
stale_while_revalidate = "0s"
negative_ttl = "200ms"
"""


@dataclass
class Record:
    """What was seen of one fault."""

    fault: Fault
    cold: list[Seen] = field(default_factory=list)
    known: list[Seen] = field(default_factory=list)
    kept: list[Seen] = field(default_factory=list)
    blobs: list[Seen] = field(default_factory=list)
    half: list[Seen] = field(default_factory=list)
    after: list[Seen] = field(default_factory=list)
    at_once: bool = True
    healed_in: float = 0.0
    strangers: list[str] = field(default_factory=list)
    skopeo: dict[str, str] = field(default_factory=dict)

    @property
    def served(self) -> list[Seen]:
        """The answers that had to be right."""
        return [*self.known, *self.kept]

    @property
    def during(self) -> list[Seen]:
        """Every answer while something failed."""
        return [*self.half, *self.cold, *self.served, *self.blobs]

    @property
    def row(self) -> str:
        """This fault's line of the table."""
        cold = _words(self.cold)
        if any(seen.retry_after for seen in self.cold):
            cold += ", with `Retry-After`"
        ways = sorted({seen.cache for seen in self.known})
        soon = f"fresh within {_bucket(self.healed_in)}"
        afterwards = f"right at once, {soon}" if self.at_once else soon
        return f"| {self.fault.name} | {cold} | served: {', '.join(ways)} | {_words(self.blobs)} | {afterwards} |"


def _words(seen: Iterable[Seen]) -> str:
    found = sorted({"whole" if each.verdict is Verdict.RIGHT else each.words for each in seen})
    return " or ".join(found).replace("whole", "served" if any("manifests" in each.what for each in seen) else "whole")


def _bucket(seconds: float) -> str:
    return next(f"{limit} s" for limit in (1, 2, 5, 10, 20, 30, 60, 1000) if seconds <= limit)


class Scenario:
    """A proxy of its own in front of two relays to one registry."""

    def __init__(self, world: World, folder: Path, main: Relay, arm: Relay) -> None:
        self._world = world
        self._folder = folder
        self.main = main
        self.arm = arm
        self._started = 0
        self.proxy = self._start(arm.url)

    def stop(self) -> int:
        """Stop the proxy and return its exit status."""
        return self.proxy.stop()

    async def warm(self, client: Client) -> bool:
        """Pull what is to be known when things fail; again where a busy machine has taken longer than may be."""
        tags = ((APP, "hot"), (APP, "soft"), (APP, "known"), (APP, "half-known"), (FREE, "known"), (FREE, "half-known"))
        for _ in range(_TRIES):
            pulled = await asyncio.gather(*(self.tag(client, *each) for each in tags))
            if all(seen.is_fresh for seen in (*pulled, *await self.layers(client, "known"))):
                return True
        return False

    async def break_arm(self, fault: Fault) -> None:
        """Let the second upstream fail, and the first one where it has something for ARM."""
        match fault.does:
            case ClosedPort():
                await self.arm.close()
            case NoSuchHost():
                await self._restart("http://registry.invalid")
            case answer:
                self.arm.answer = answer
                self.main.answer = limited(answer, "-arm/")

    async def break_all(self, fault: Fault) -> None:
        """Let both fail; a name that can't be resolved is the second one's alone."""
        match fault.does:
            case ClosedPort():
                await self.main.close()
            case NoSuchHost():
                pass
            case answer:
                self.main.answer = answer

    async def heal(self, fault: Fault) -> None:
        """Let both be well again."""
        await self.main.heal()
        await self.arm.heal()
        if isinstance(fault.does, NoSuchHost):
            await self._restart(self.arm.url)

    async def tag(self, client: Client, repository: str, tag: str, method: str = "GET") -> Seen:
        """Ask for a tag."""
        return await client.manifest(repository, tag, self._world.indexes[repository, tag], method)

    async def known(self, client: Client) -> list[Seen]:
        """Ask for the tags that were pulled before."""
        asked = ((APP, "hot"), (APP, "soft"), (APP, "known"), (FREE, "known"))
        got = [self.tag(client, *each) for each in asked]
        return list(await asyncio.gather(*got, self.tag(client, APP, "known", "HEAD")))

    async def kept(self, client: Client) -> list[Seen]:
        """Ask by digest for an index, its children and then their configs, as a client does that has the index."""
        index = self._world.indexes[APP, "known"]
        halves = self._world.halves[APP, "known"].values()
        children = [client.manifest(APP, half.manifest, half.manifest_bytes) for half in halves]
        manifests = await asyncio.gather(client.manifest(APP, Digest.of(index), index), *children)
        configs = await asyncio.gather(*(client.blob(APP, half.config, half.config_bytes) for half in halves))
        return [*manifests, *configs]

    async def cold(self, client: Client) -> list[Seen]:
        """Ask for names and digests that nobody asked for before."""
        half = self._world.halves[APP, "cold"]["arm"]
        return list(
            await asyncio.gather(
                self.tag(client, APP, "cold"),
                self.tag(client, APP, "cold-head", "HEAD"),
                client.manifest(APP, half.manifest, half.manifest_bytes),
                self.tag(client, FREE, "cold"),
            )
        )

    async def layers(self, client: Client, tag: str) -> list[Seen]:
        """Ask for the layers of an image, and for a part of one."""
        halves = self._world.halves[APP, tag]
        arm = halves["arm"]
        whole = [client.blob(APP, half.layer, half.layer_bytes) for half in halves.values()]
        return list(await asyncio.gather(*whole, client.part(APP, arm.layer, arm.layer_bytes)))

    async def arm_layers(self, client: Client, tag: str) -> list[Seen]:
        """Ask for the layer that is on the second upstream, and for a part of it."""
        arm = self._world.halves[APP, tag]["arm"]
        asked = client.blob(APP, arm.layer, arm.layer_bytes), client.part(APP, arm.layer, arm.layer_bytes)
        return list(await asyncio.gather(*asked))

    async def half(self, client: Client) -> list[Seen]:
        """Ask for names of which one half can be had: known and cold, by rule and by convention."""
        asked = [(name, tag) for name in (APP, FREE) for tag in ("half-known", "half-cold")]
        return list(await asyncio.gather(*(self.tag(client, *each) for each in asked)))

    async def strangers(self) -> list[str]:
        """Return the files of the cache that hold anything else than what was pushed or merged of it."""
        await settled(self._folder / "cache")
        files = [path for path in (self._folder / "cache").rglob("*") if path.is_file()]
        return [str(path.relative_to(self._folder)) for path in files if not _right(path, self._world.kept)]

    async def _restart(self, arm: str) -> None:
        await asyncio.to_thread(self.proxy.stop)
        self.proxy = await asyncio.to_thread(self._start, arm)

    def _start(self, arm: str) -> Proxy:
        self._started += 1
        configuration = CONFIGURATION.format(main=self.main.url, arm=arm)
        return Proxy.start(configuration, self._folder / str(self._started), self._folder / "cache")


def _right(path: Path, kept: frozenset[str]) -> bool:
    """Whether a file of the cache has nothing strange: content as it is named, records of what there is."""
    data = path.read_bytes()
    if re.fullmatch(r"[0-9a-f]{64}", path.name):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return digest == f"sha256:{path.name}" and digest in kept
    named = set(re.findall(r"sha256:[0-9a-f]{64}", data.decode()))
    return bool(json.loads(data)) and named <= kept


@asynccontextmanager
async def started(world: World, registry: str, folder: Path) -> AsyncIterator[Scenario]:
    """Run a proxy with an empty cache in front of two relays while the block lasts."""
    async with relay(registry) as main, relay(registry) as arm:
        scenario = await asyncio.to_thread(Scenario, world, folder, main, arm)
        try:
            yield scenario
        finally:
            status = await asyncio.to_thread(scenario.stop)
        assert status == 0, scenario.proxy.daemon.tail()


async def play(fault: Fault, scenario: Scenario, skopeo: peers.Client) -> Record:
    """Let *fault* happen and return what was seen; asserts nothing but that everything worked before it."""
    record = Record(fault)
    async with Client(scenario.proxy.url) as client:
        assert await scenario.warm(client)
    await asyncio.sleep(TTL + 0.1)
    await scenario.break_arm(fault)
    async with Client(scenario.proxy.url) as client:
        record.half = await scenario.half(client)
        await scenario.break_all(fault)
        alone = isinstance(fault.does, NoSuchHost)
        for _ in range(2):  # the second time a circuit breaker may answer in the registry's place
            record.cold += await scenario.cold(client)
            record.known += await scenario.known(client)
            record.kept += await scenario.kept(client)
            record.blobs += await (scenario.arm_layers if alone else scenario.layers)(client, "known")
    for tag in ("hot", "known"):
        record.skopeo[tag] = await asyncio.to_thread(_inspect, skopeo, scenario.proxy.address, tag)
    record.strangers = await scenario.strangers()
    await scenario.heal(fault)
    async with Client(scenario.proxy.url) as client:
        await _heal(record, scenario, client)
    record.strangers += await scenario.strangers()
    return record


def _inspect(skopeo: peers.Client, proxy: str, tag: str) -> str:
    return skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{proxy}/{APP}:{tag}", seconds=PATIENCE)


async def _heal(record: Record, scenario: Scenario, client: Client) -> None:
    """Ask for everything again and again until all of it is fresh and right, for `HEALING` at most."""
    began = time.monotonic()
    checks: tuple[Callable[[Client], Awaitable[list[Seen]]], ...] = (
        scenario.cold,
        scenario.known,
        scenario.kept,
        scenario.half,
        lambda client: scenario.layers(client, "known"),
        lambda client: _late(scenario, client),
    )
    for check in checks:
        seen = await check(client)
        while not all(each.is_fresh for each in seen) and time.monotonic() - began < HEALING:
            # A stale answer with a refresh behind it is what stale-while-revalidate means.
            record.at_once &= all(each.verdict is Verdict.RIGHT for each in seen)
            await asyncio.sleep(0.2)
            seen = await check(client)
        record.after += seen
    record.healed_in = time.monotonic() - began


async def _late(scenario: Scenario, client: Client) -> list[Seen]:
    """Ask for what was never asked for, now that everything is well."""
    return [await scenario.tag(client, APP, "late"), *await scenario.layers(client, "late")]
