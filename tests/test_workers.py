"""Several workers behind one port: real processes, started by the real command."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import pytest

from conftest import until
from images import push, push_pair
from proxy.supervisor import Post
from scripted import Origin

WORKERS = 2
TAG = "/v2/kimoqi/alpine/manifests/1.0"
CONFIG = """
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
drain = "2s"
workers = 2

[[upstream]]
name = "registry"
url = "{url}"
push = true

[[rule]]
match = "kimoqi/*"
sources = [
  {{ image = "{{repository}}-x86:{{tag}}", platform = "linux/amd64" }},
  {{ image = "{{repository}}-arm:{{tag}}", platform = "linux/arm64" }},
]

[hooks]
secret = "secret"

[cache]
dir = "{cache}"
"""


@dataclass
class Service:
    """A supervisor and its workers."""

    process: asyncio.subprocess.Process
    log: Path
    configuration: Path
    registry: str
    admin: str

    def lines(self, event: str) -> list[dict[str, object]]:
        """Return what the log says of *event*."""
        found = [orjson.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        return [line for line in found if line["event"] == event]

    def workers(self) -> set[int]:
        """Return the processes of the workers that run now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(child) for child in children.read_text().split()}

    async def get(self, path: str, *, admin: bool = False) -> tuple[int, bytes]:
        """Ask on a new connection: any worker may answer."""
        async with aiohttp.ClientSession() as session:
            url = (self.admin if admin else self.registry) + path
            async with session.get(url) as response:
                return response.status, await response.read()

    async def everyone(self, path: str, times: int = 40) -> set[tuple[int, bytes]]:
        """Ask so often that every worker is among those who answer."""
        return set(await asyncio.gather(*(self.get(path) for _ in range(times))))


@asynccontextmanager
async def service(origin: Origin, folder: Path) -> AsyncIterator[Service]:
    """Run the command until the block ends."""
    configuration, log = folder / "manifuse.toml", folder / "log"
    configuration.write_text(CONFIG.format(url=origin.url, cache=folder / "cache"))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "serve", "--config", str(configuration), stderr=output
        )
    started = Service(process, log, configuration, "", "")
    try:
        await until(lambda: len(started.lines("listening")) == WORKERS)
        supervising = started.lines("supervising")[0]
        started.registry, started.admin = str(supervising["registry"]), str(supervising["admin"])
        yield started
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _gone(pid: int) -> Callable[[], bool]:
    return lambda: not Path(f"/proc/{pid}").exists()


async def test_a_cold_tag_is_asked_for_once(origin: Origin, tmp_path: Path) -> None:
    """Clients of all workers together cost the upstream what one client costs."""
    push_pair(origin.registry)
    async with service(origin, tmp_path) as running:
        answers = await running.everyone(TAG)

    workers = {line["worker"] for line in running.lines("request")}
    assert (len(answers), workers) == (1, {0, 1})
    assert sorted(request.method for request in origin.requests) == ["GET"] * 4 + ["HEAD"]


async def test_a_push_is_seen_by_all(origin: Origin, tmp_path: Path) -> None:
    """After a push through one worker none answers with what was before."""
    push_pair(origin.registry)
    image = push(origin.registry, "kimoqi/alpine-arm", "new", "linux/arm64", text="new")
    async with service(origin, tmp_path) as running:
        before = await running.everyone(TAG)
        body = (await running.get(f"/v2/kimoqi/alpine-arm/manifests/{image.digest}"))[1]
        async with aiohttp.ClientSession() as session:
            url = f"{running.registry}/v2/kimoqi/alpine-arm/manifests/1.0"
            async with session.put(url, data=body, headers={"Content-Type": image.media_type}) as response:
                assert response.status == 201
        after = await running.everyone(TAG)

    assert (len(before), len(after)) == (1, 1)
    assert before != after


async def test_an_event_reaches_all(origin: Origin, tmp_path: Path) -> None:
    """A notification is heard by one worker, and told to the others."""
    push_pair(origin.registry)
    async with service(origin, tmp_path) as running:
        before = await running.everyone(TAG)
        push(origin.registry, "kimoqi/alpine-arm", "1.0", "linux/arm64", text="rebuilt")
        async with aiohttp.ClientSession() as session:
            event = {"repository": "kimoqi/alpine-arm", "tag": "1.0"}
            headers = {"Authorization": "Bearer secret"}
            async with session.post(f"{running.admin}/hooks/registry", json=event, headers=headers) as response:
                assert response.status == 202
        for _ in range(100):
            after = await running.everyone(TAG)
            if not after & before:
                break

    assert len(after) == 1
    assert not after & before


async def test_a_worker_that_dies_is_replaced(origin: Origin, tmp_path: Path) -> None:
    """Nobody is refused meanwhile: a connection waits for the next worker. Counters forget nothing."""
    async with service(origin, tmp_path) as running:
        await running.everyone("/v2/")
        os.kill(min(running.workers()), signal.SIGKILL)
        during = await running.everyone("/v2/")
        metrics = (await running.get("/metrics", admin=True))[1].decode()
        died = running.lines("worker died")

    counted = re.findall(r'^manifuse_requests_total\{.*route="ping".*\} (\S+)$', metrics, re.MULTILINE)
    assert during == {(200, b"{}")}
    assert sum(map(float, counted)) == 80
    assert [line["status"] for line in died] == [-9]


async def test_a_configuration_reaches_all(origin: Origin, tmp_path: Path) -> None:
    """SIGHUP to the supervisor is one to every worker."""
    push_pair(origin.registry)
    async with service(origin, tmp_path) as running:
        before = await running.everyone(TAG)
        text = running.configuration.read_text().replace("kimoqi/*", "other/*")
        running.configuration.write_text(text)
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: len(running.lines("configuration loaded")) == WORKERS)
        after = await running.everyone(TAG)

    assert {status for status, _ in before} == {200}
    assert {status for status, _ in after} == {404}


async def test_all_leave_together(origin: Origin, tmp_path: Path) -> None:
    """SIGTERM ends the workers and then the supervisor, with exit status 0, and leaves nothing behind."""
    async with service(origin, tmp_path) as running:
        workers = running.workers()
        running.process.terminate()
        status = await asyncio.wait_for(running.process.wait(), 20)

    assert (len(workers), status) == (WORKERS, 0)
    assert all(_gone(worker)() for worker in workers)


async def test_workers_dont_outlive_their_supervisor(origin: Origin, tmp_path: Path) -> None:
    """However the supervisor ends, its workers leave, too."""
    async with service(origin, tmp_path) as running:
        workers = running.workers()
        running.process.kill()
        await running.process.wait()
        for worker in workers:
            await until(_gone(worker))

    assert len(workers) == WORKERS


async def test_an_address_that_is_taken_is_told(origin: Origin, tmp_path: Path) -> None:
    """One sentence and exit status 1, as with one process."""
    async with service(origin, tmp_path) as running:
        other = tmp_path / "other.toml"
        text = running.configuration.read_text().replace("workers = 2", "workers = 1")
        other.write_text(
            text.replace('listen = "127.0.0.1:0"', f'listen = "{running.registry.removeprefix("http://")}"', 1)
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "serve", "--config", str(other), stderr=asyncio.subprocess.PIPE
        )
        _, err = await process.communicate()

    assert process.returncode == 1
    assert b"can't be listened on" in err


def test_a_post_is_read_as_it_was_written() -> None:
    """What a worker is given fits into one argument."""
    post = Post(1, 4, 5, 6, 7, Path("/tmp/a,b"))  # noqa: S108 - nothing is written there

    assert Post.parse(str(post)) == post


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d,e,f"])
def test_anything_else_is_no_post(text: str) -> None:
    """Only a supervisor starts workers."""
    with pytest.raises(ValueError, match=r".*"):
        Post.parse(text)
