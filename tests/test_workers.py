"""Several workers behind one port: real processes, started by the real command."""

from __future__ import annotations

import asyncio
import os
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import orjson
import pytest

from conftest import HOT, until
from images import push, push_pair
from patience import HANGING
from ports import free_port
from proxy.app import bound
from proxy.supervisor import Post, Supervisor, shared_folder
from scripted import Origin

WORKERS = 2
MOST = 100_000  # requests of a test
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
        whole, _, _ = self.log.read_bytes().rpartition(b"\n")  # the last line may be half there
        found = [orjson.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
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
    """Return what says whether a process has ended; nobody may care for what is left of an orphan."""

    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    return ended


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
        after = set(before)

        async def is_new() -> bool:
            after.clear()
            after.update(await running.everyone(TAG))
            return not after & before

        await until(is_new)

    assert len(after) == 1


async def test_a_worker_that_dies_is_replaced(origin: Origin, tmp_path: Path) -> None:
    """Nobody is refused meanwhile: a connection waits for the next worker. Counters forget nothing."""
    async with service(origin, tmp_path) as running:
        await running.everyone("/v2/")
        os.kill(min(running.workers()), signal.SIGKILL)
        during = await running.everyone("/v2/")
        metrics = (await running.get("/metrics", admin=True))[1].decode()
        died = running.lines("worker died")

    assert during == {(200, b"{}")}
    assert requests(metrics, "ping") == 80
    assert [line["status"] for line in died] == [-9]


async def test_a_worker_counts_where_the_one_before_it_stopped(origin: Origin, tmp_path: Path) -> None:
    """However many die, their counters take no more files than there are workers, and forget nothing."""
    async with service(origin, tmp_path) as running:
        folder = counters(min(running.workers()))
        await running.everyone("/v2/")
        before = {file.name for file in folder.glob("counter_*.db")}
        for worker in running.workers():
            os.kill(worker, signal.SIGKILL)
        await until(lambda: len(running.lines("listening")) == 2 * WORKERS)
        await running.everyone("/v2/")
        after = {file.name for file in folder.glob("counter_*.db")}
        metrics = (await running.get("/metrics", admin=True))[1].decode()

    assert before == after == {"counter_0.db", "counter_1.db"}
    assert requests(metrics, "ping") == 80


SERVICE, PERSON = 999, 1000


@pytest.mark.parametrize(
    ("user", "memory", "temporary", "place"),
    [
        (SERVICE, 1, 1, "memory"),
        (SERVICE, 0, 1, "temporary"),
        (PERSON, 1, 1, "temporary"),
        (PERSON, 1, 0, "memory"),
        (SERVICE, 0, 0, "temporary"),
    ],
)
def test_where_workers_share(
    user: int, memory: int, temporary: int, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory if there is any, but for users who may log out; else where there is room at all."""
    free = {tmp_path / "memory": memory, tmp_path / "temporary": temporary}
    for folder in free:
        folder.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_bavail=free[folder], f_frsize=100))
    with shared_folder(tmp_path / "memory", 100, user) as made:
        assert made.parent == tmp_path / place


async def test_a_worker_is_replaced_though_their_folder_was_cleared_away(origin: Origin, tmp_path: Path) -> None:
    """As is done with files that are some days old, or belong to users who have left."""
    async with service(origin, tmp_path) as running:
        shutil.rmtree(counters(min(running.workers())))
        os.kill(min(running.workers()), signal.SIGKILL)
        await until(lambda: len(running.lines("listening")) == WORKERS + 1)
        answers = await running.everyone("/v2/")
        running.process.terminate()
        status = await running.process.wait()

    assert answers == {(200, b"{}")}
    assert status == 0


async def test_what_a_killed_supervisor_left_is_cleared_away(origin: Origin, tmp_path: Path) -> None:
    """By the next one, which leaves that of others alone who are running."""
    async with service(origin, tmp_path) as running:
        workers, left = running.workers(), counters(min(running.workers()))
        running.process.kill()
        await running.process.wait()
        for worker in workers:
            await until(_gone(worker))
    was_left = left.exists()
    other = tmp_path / "other"
    other.mkdir()
    async with service(origin, tmp_path) as running, service(origin, other):
        kept = counters(min(running.workers()))
        both = (left.exists(), kept.exists())

    assert was_left
    assert both == (False, True)


async def test_a_worker_that_is_told_to_stop_is_no_failure(origin: Origin, tmp_path: Path) -> None:
    """Somebody wanted it; another is started all the same."""
    async with service(origin, tmp_path) as running:
        os.kill(min(running.workers()), signal.SIGTERM)
        await until(lambda: len(running.lines("listening")) == WORKERS + 1)

    assert [(line["level"], line["status"]) for line in running.lines("worker stopped")] == [("info", 0)]
    assert running.lines("worker died") == []


async def test_no_client_notices_a_reload_or_a_worker_that_stops(origin: Origin, tmp_path: Path) -> None:
    """Under traffic of new connections, all of which ask for a hot tag: none is refused or cut, all are counted."""
    push_pair(origin.registry)
    answers: list[tuple[bytes, bytes]] = []
    async with service(origin, tmp_path) as running:
        done = asyncio.Event()
        clients = [asyncio.create_task(pull(running.registry, answers, done)) for _ in range(8)]

        async def more() -> None:
            wanted = len(answers) + 200
            await until(lambda: len(answers) >= wanted)

        await until(lambda: hot_workers(running) == set(range(WORKERS)))
        running.process.send_signal(signal.SIGHUP)
        await more()
        await until(lambda: len(running.lines("configuration loaded")) == WORKERS)
        os.kill(min(running.workers()), signal.SIGTERM)
        await until(lambda: len(running.lines("listening")) == WORKERS + 1)
        await more()
        done.set()
        await asyncio.gather(*clients)
        counted = 0.0

        async def all_are_counted() -> bool:  # what another worker has just tallied is in its file soon
            nonlocal counted
            counted = requests((await running.get("/metrics", admin=True))[1].decode(), "manifest")
            return counted >= len(answers)

        await until(all_are_counted)

    assert {status for status, _ in answers} == {b"HTTP/1.1 200 OK"}
    assert len({body for _, body in answers}) == 1
    assert counted == len(answers)
    assert len(running.lines("request")) == len(answers)


def hot_workers(running: Service) -> set[object]:
    """Return the workers that have answered hot; all that there are where nothing is."""
    if not HOT:
        return set(range(WORKERS))
    return {line["worker"] for line in running.lines("request") if line["ms"] == 0.0}


async def pull(registry: str, answers: list[tuple[bytes, bytes]], done: asyncio.Event) -> None:
    """Ask for the tag by the same head on one new connection after the other; add status lines and bodies."""
    host, port = registry.removeprefix("http://").split(":")
    head = f"GET {TAG} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode()
    while not done.is_set() and len(answers) < MOST:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        lines, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        answers.append((lines.partition(b"\r\n")[0], body))
        await asyncio.sleep(0.01)


def counters(worker: int) -> Path:
    """Return the folder that *worker* counts in."""
    environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    line = next(each for each in environment if each.startswith(b"PROMETHEUS_MULTIPROC_DIR="))
    return Path(os.fsdecode(line.partition(b"=")[2]))


def requests(metrics: str, route: str) -> float:
    """Return how many requests of *route* were counted, those with a good answer."""
    line = rf'^manifuse_requests_total\{{.*route="{route}",status="200"\}} (\S+)$'
    counted = re.findall(line, metrics, re.MULTILINE)
    return sum(map(float, counted))


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
        folder = counters(min(workers))
        running.process.terminate()
        status = await asyncio.wait_for(running.process.wait(), HANGING)

    assert (len(workers), status) == (WORKERS, 0)
    assert not folder.exists()
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


@pytest.mark.parametrize("workers", [1, WORKERS])
async def test_an_address_that_is_taken_is_told(workers: int, origin: Origin, tmp_path: Path) -> None:
    """One sentence and exit status 1, however many there are: two services don't take turns in answering."""
    async with service(origin, tmp_path) as running:
        other = tmp_path / "other.toml"
        text = running.configuration.read_text().replace("workers = 2", f"workers = {workers}")
        other.write_text(
            text.replace('listen = "127.0.0.1:0"', f'listen = "{running.registry.removeprefix("http://")}"', 1)
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "serve", "--config", str(other), stderr=asyncio.subprocess.PIPE
        )
        _, err = await process.communicate()

    assert process.returncode == 1
    assert b"can't be listened on" in err


def test_workers_start_again_while_old_connections_end() -> None:
    """A service that is restarted doesn't wait for what the last one's clients have left."""
    address = ("127.0.0.1", free_port())
    left = bound(address, WORKERS)
    for sock in left:
        sock.listen()
        sock.setblocking(True)
    with socket.create_connection(address):
        ready, _, _ = select.select(left, [], [])
        ready[0].accept()[0].close()
        for sock in left:
            sock.close()
        for sock in bound(address, WORKERS):
            sock.close()


async def supervised(folder: Path, *lines: str) -> int | None:
    """Run one worker that does what the next of *lines* says each time it is started; an empty one can't be.

    Returns the exit status, or None where the last of them is still running when the test stops it.
    """
    begun, stop, left = folder / "begun", asyncio.Event(), list(lines)

    def command(post: Post) -> list[str]:
        line = left.pop(0)
        return ["/bin/sh", "-c", line if left else f"touch {begun}; {line}"] if line else [str(folder / "absent")]

    registry, admin = (bound(("127.0.0.1", 0), 1) for _ in range(2))
    running = asyncio.create_task(Supervisor(command, 1, 1.0).run(registry, admin, stop))
    await until(lambda: running.done() or begun.exists())
    early = running.done()
    stop.set()
    status = await running
    return status if early else None


async def test_a_worker_that_cant_be_started_is_tried_again(tmp_path: Path) -> None:
    """As where no other process may run just now; else its socket would keep connections that nobody takes."""
    assert await supervised(tmp_path, "", "exec sleep 60") is None


async def test_a_configuration_that_cant_be_used_ends_the_start_alone(tmp_path: Path) -> None:
    """At the start it is told of by exit status 2. A file that is broken later costs the other workers nothing."""
    assert await supervised(tmp_path, "exit 2", "exec sleep 60") == 2
    assert await supervised(tmp_path, "exit 1", "exit 2", "exec sleep 60") is None


def test_a_post_is_read_as_it_was_written() -> None:
    """What a worker is given fits into one argument."""
    post = Post(1, 4, 5, 6, 7, Path("/tmp/a,b"))  # noqa: S108 - nothing is written there

    assert Post.parse(str(post)) == post


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d,e,f"])
def test_anything_else_is_no_post(text: str) -> None:
    """Only a supervisor starts workers."""
    with pytest.raises(ValueError, match=r".*"):
        Post.parse(text)
