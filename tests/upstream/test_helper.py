"""Credential helpers: real programs, which answer, fail, hang and talk too much."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Clock, until
from proxy.oci.errors import BadAnswer, NoAnswer, TimedOut, Unreachable
from proxy.oci.reference import Repository
from proxy.upstream.credentials import Credential, IdentityToken
from proxy.upstream.helper import Helper, Manners

APP = Repository("team/app")
SAYS = """echo '{"ServerURL": "x", "Username": "AWS", "Secret": "planted-secret"}'"""
AWS = Credential("AWS", "planted-secret")


class Program:
    """`docker-credential-test` in a folder of the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def says(self, script: str) -> None:
        """Let it run a script; every run leaves a line in `runs`, with its arguments and what it was told."""
        path = self.folder / "docker-credential-test"
        noting = f'read server; echo "$* $server $$" >> "{self.folder}/runs"'
        path.write_text(f"#!/bin/sh\n{noting}\n{script}\n")
        path.chmod(0o755)

    @property
    def runs(self) -> list[str]:
        """Arguments and input of every run so far."""
        path = self.folder / "runs"
        return [line.rpartition(" ")[0] for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def pids(self) -> list[int]:
        """The process of every run so far."""
        return [int(line.rpartition(" ")[2]) for line in (self.folder / "runs").read_text().splitlines()]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A helper that answers."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = Program(tmp_path)
    program.says(SAYS)
    return program


@pytest.fixture
def helper(clock: Clock) -> Callable[..., Helper]:
    """Make a helper of the program, with as much patience as is said."""

    def make(timeout: float = 10.0, lifetime: float = 300.0, **more: Any) -> Helper:
        manners = Manners(timeout=timeout, lifetime=lifetime, clock=clock)
        return Helper("test", "hub", "registry.example.com", manners, **more)

    return make


async def test_a_helper_is_asked_by_docker_s_protocol(program: Program, helper: Callable[..., Helper]) -> None:
    """`get` is its only argument, the registry is on its standard input."""
    assert await helper().of(APP) == AWS
    assert program.runs == ["get registry.example.com"]


async def test_a_token_s_user_name_is_a_word(program: Program, helper: Callable[..., Helper]) -> None:
    """`<token>` means that the secret is an identity token."""
    program.says("""echo '{"Username": "<token>", "Secret": "refresh"}'""")

    assert await helper().of(APP) == IdentityToken("refresh")


async def test_an_answer_counts_for_its_lifetime(program: Program, helper: Callable[..., Helper], clock: Clock) -> None:
    """After that it is asked again."""
    asked = helper(lifetime=60)
    for moment, runs in ((0, 1), (59, 1), (2, 2)):
        clock.advance(moment)
        assert await asked.of(APP) == AWS
        assert len(program.runs) == runs


async def test_all_who_ask_at_once_share_one_run(program: Program, helper: Callable[..., Helper]) -> None:
    """Fifty pulls of fifty repositories start one program."""
    asked = helper()
    found = await asyncio.gather(*(asked.of(Repository(f"app/{n}")) for n in range(50)))

    assert set(found) == {AWS}
    assert len(program.runs) == 1


async def test_what_was_refused_is_asked_for_anew(
    program: Program, helper: Callable[..., Helper], clock: Clock
) -> None:
    """But not at once, and not where there is a newer one already: an account must not be asked for in a loop."""
    asked = helper()
    assert await asked.of(APP) == AWS
    program.says(SAYS.replace("planted-secret", "newer"))
    newer = Credential("AWS", "newer")

    assert await asked.of(APP, refused=AWS) == AWS
    clock.advance(11)
    found = await asyncio.gather(*(asked.of(APP, refused=AWS) for _ in range(10)))
    assert set(found) == {newer}
    assert await asked.of(APP, refused=AWS) == newer
    assert await asked.of(APP, refused=newer) == newer
    assert len(program.runs) == 2


@pytest.mark.parametrize(
    ("script", "error", "sentence"),
    [
        ("exit 3", Unreachable, "failed with exit status 3"),
        ("echo planted-secret; echo planted-secret >&2; exit 1", Unreachable, "failed with exit status 1"),
        ("kill -9 $$", Unreachable, "failed with exit status -9"),
        ("echo credentials not found in native keychain; exit 1", BadAnswer, "knows no credentials for registry.exam"),
        ("""echo '{"Username": "", "Secret": ""}'""", BadAnswer, "knows no credentials for registry.example.com"),
        ("", BadAnswer, "said something that is not a user name and a secret"),
        ("echo planted-secret", BadAnswer, "said something that is not a user name and a secret"),
        ("echo '[]'", BadAnswer, "said something that is not a user name and a secret"),
        ("""echo '{"Username": "a", "Secret": 5}'""", BadAnswer, "said something that is not a user name and a secret"),
        ("exec yes", BadAnswer, "said more than 65536 bytes"),
    ],
)
async def test_a_helper_that_fails_is_no_answer(
    program: Program, helper: Callable[..., Helper], script: str, error: type[NoAnswer], sentence: str
) -> None:
    """One sentence says so, with nothing of what it said itself; and it isn't started again for each request."""
    program.says(script)
    asked = helper()

    for _ in range(3):
        with pytest.raises(error) as caught:
            await asked.of(APP)
        assert str(caught.value).startswith(f"the credential helper docker-credential-test of hub {sentence}")
        assert "planted-secret" not in repr(caught.value)
    assert len(program.runs) == 1


async def test_a_failure_is_forgotten_soon(program: Program, helper: Callable[..., Helper], clock: Clock) -> None:
    """A network that was away is asked through again after ten seconds."""
    program.says("exit 1")
    asked = helper()
    with pytest.raises(Unreachable):
        await asked.of(APP)
    program.says(SAYS)
    clock.advance(11)

    assert await asked.of(APP) == AWS


async def test_a_helper_may_know_nothing_where_it_is_asked_about_all(
    program: Program, helper: Callable[..., Helper]
) -> None:
    """Docker's store has no login for most registries."""
    program.says("echo credentials not found in native keychain; exit 1")

    assert await helper(optional=True).of(APP) is None


async def test_a_program_that_is_not_there_is_no_answer(clock: Clock) -> None:
    """Nothing was installed: the sentence says so."""
    manners = Manners(timeout=10, lifetime=300, clock=clock)

    with pytest.raises(Unreachable, match="docker-credential-not-there of hub can't be run: No such file"):
        await Helper("not-there", "hub", "registry.example.com", manners).of(APP)


def alive(pid: int) -> bool:
    """Whether a process is there; one that only waits to be noticed isn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_helper_that_hangs_is_ended_with_all_it_started(
    program: Program, helper: Callable[..., Helper]
) -> None:
    """Its time limit holds, and no process is left behind."""
    program.says(f'sleep 30 & echo "x $!" >> "{program.folder}/runs"; wait')

    with pytest.raises(TimedOut, match=r"didn't answer within 2 s"):
        await helper(timeout=2).of(APP)
    assert len(program.pids) == 2
    await until(lambda: not any(alive(pid) for pid in program.pids))


async def test_a_helper_that_nobody_waits_for_is_ended(program: Program, helper: Callable[..., Helper]) -> None:
    """When the last one leaves, so does the program; the next one to ask starts another."""
    program.says("exec sleep 30")
    asked = helper()
    waiting = [asyncio.create_task(asked.of(APP)) for _ in range(2)]
    await until(lambda: len(program.runs) == 1)
    program.says(SAYS)
    waiting[0].cancel()

    assert await waiting[1] == AWS
    await until(lambda: not alive(program.pids[0]))


async def test_a_hanging_helper_is_in_nobody_else_s_way(program: Program, helper: Callable[..., Helper]) -> None:
    """The loop goes on, and so does another upstream's helper."""
    program.says("exec sleep 30")
    hanging = asyncio.create_task(helper().of(APP))
    await until(lambda: len(program.runs) == 1)
    program.says(SAYS)

    assert await helper().of(APP) == AWS
    hanging.cancel()
    await asyncio.wait([hanging])


@pytest.mark.parametrize("name", ["", "../evil", "a/b", "-x", "a b", ".hidden"])
def test_a_helper_s_name_is_a_name(clock: Clock, name: str) -> None:
    """Nothing leads to another folder."""
    with pytest.raises(ValueError, match="expected to be named"):
        Helper(name, "hub", "registry.example.com", Manners(timeout=1, lifetime=1, clock=clock))
