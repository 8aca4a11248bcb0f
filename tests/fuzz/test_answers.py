"""The running process, and a registry that answers as none should: never a 500, never a hang, and then right again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import orjson
import pytest

from fuzz.answers import Answers, relaying
from fuzz.engine import found, keep, report
from fuzz.plan import SECONDS, SEED
from fuzz.pushing import Push
from fuzz.wire import Stream, statuses
from images import ARM, VIRTUAL, push_pair
from process import Process, running_process
from proxy.oci.reference import Digest
from scripted import Origin

_ROUNDS = 12  # where nobody asked for more
_WARM = 6
_GROWTH = 32 << 20  # bytes
_NAME = "answers"

_CONFIG = """
request_budget = "9s"
[cache]
dir = "{folder}"
memory = "4MiB"
tag_ttl = "1ms"  # a manifest that lies is one: it counts until the registry is asked again
stale_while_revalidate = "0s"
negative_ttl = "0s"
[[upstream]]
name = "registry"
url = "http://127.0.0.1:{port}"
push = true
credentials = {{ username = "u", password = "p" }}
retries = 0
breaker = 0
blobs = "{blobs}"
timeouts = {{ connect = "3s", header = "3s", total = "6s", idle = "3s" }}
[[rule]]
match = "kimoqi/*"
sources = [
  {{ image = "{{repository}}-x86:{{tag}}", platform = "linux/amd64" }},
  {{ image = "{{repository}}-arm:{{tag}}", platform = "linux/arm64" }},
]
require = ["linux/amd64", "linux/arm64"]
on_partial = "fail"  # a 404 counts, also one that lies: without this the index of the rest would be right for a while
"""


@dataclass
class Behind:
    """A process, the relay that it takes for a registry, and the registry behind that."""

    process: Process
    answers: Answers
    origin: Origin

    async def ask_for(self, tag: str) -> list[int]:
        """Push an image as *tag*, ask for all of it and push another one at once, changed; return the statuses.

        Then both are right.
        """
        x86, arm = push_pair(self.origin.registry, tag)
        body = (await self.origin.registry.manifest(ARM, arm.digest, None)).body  # type: ignore[arg-type]
        config = orjson.loads(body)["config"]["digest"]
        paths = [
            f"/v2/{VIRTUAL}/manifests/{tag}",
            f"/v2/{ARM}/manifests/{tag}",
            f"/v2/{ARM}/manifests/{arm.digest}",
            f"/v2/{ARM}/blobs/{config}",
            f"/v2/{ARM}/referrers/{arm.digest}",
            f"/v2/t{tag}/none/tags/list",
            "/v2/_catalog",
        ]
        self.answers.changing = True
        heads = [f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode() for path in paths]
        pushing = asyncio.create_task(self._pushed(tag, config).run())
        got = await asyncio.gather(*(self.process.raw(head) for head in heads))
        pushed = await pushing
        self.answers.changing = False
        assert all(got), [path for path, answer in zip(paths, got, strict=True) if not answer]
        assert all(pushed), pushed
        answer = await self.process.get(paths[0])
        digests = [entry["digest"] for entry in orjson.loads(answer.body).get("manifests", [])]
        assert (answer.status, digests) == (200, [x86.digest, arm.digest]), answer
        again = self._pushed(f"{tag}-again", config)
        await again.run()
        assert again.went_well, again.answers
        self._check_log()
        return [status for answer in (*got, *pushed) for status in statuses(answer)[:1]]

    def _pushed(self, tag: str, config: Digest) -> Push:
        return Push(self.process.raw, f"t{tag}/pushed", (ARM, config))

    async def culprits(self, said: list[Stream]) -> list[Stream]:
        """Return those answers that are wrong alone; all of them where none is."""
        self.process.lines.clear()
        wrong = []
        for number, stream in enumerate(said):
            self.answers.answer_with(stream)
            try:
                assert 500 not in await self.ask_for(f"again-{number}")
            except AssertionError:
                wrong.append(stream)
                self.process.lines.clear()
        return wrong or said

    def _check_log(self) -> None:
        bad = [line for line in self.process.lines if b'"level": "error"' in line or not line.startswith(b"{")]
        assert not bad, b"".join(bad[:60]).decode()
        self.process.lines.clear()


@pytest.fixture(params=["stream", "cache", "redirect"])
async def behind(request: pytest.FixtureRequest, tmp_path: Path, origin: Origin) -> AsyncIterator[Behind]:
    """The process behind the relay, in each way of serving blobs."""
    async with relaying(origin.address, f"{SEED}:{request.param}") as answers:
        config = _CONFIG.format(port=answers.port, folder=tmp_path / "cache", blobs=request.param)
        async with running_process(tmp_path, config) as process:
            yield Behind(process, answers, origin)


@pytest.mark.timeout(0)
async def test_whatever_is_answered(behind: Behind) -> None:
    """No crash, no hang, no 500; memory doesn't grow; and when the registry is itself again, so is the index.

    What found something once comes first.
    """
    for number, path in enumerate(found(_NAME)):
        behind.answers.answer_with(Stream.read(path.read_bytes()))
        assert 500 not in await behind.ask_for(f"found-{number}"), path
    behind.answers.fixed = {}
    end, rounds, warm = monotonic() + SECONDS / 9, 0, 0
    while rounds < _ROUNDS or monotonic() < end:
        behind.answers.said.clear()
        try:
            assert 500 not in await behind.ask_for(str(rounds)), "an answer of 500"
        except AssertionError as error:
            findings = [(stream.write(), error) for stream in await behind.culprits(list(behind.answers.said))]
            for data, _ in findings:
                keep(_NAME, data)
            raise AssertionError(report(_NAME, SEED, findings)) from error
        rounds += 1
        warm = behind.process.resident if rounds == _WARM else warm
    grown = behind.process.resident - warm
    assert grown < _GROWTH, f"{grown >> 10} KiB more after {rounds} rounds than after {_WARM}, seed {SEED}"
