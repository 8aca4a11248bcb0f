"""Passwords: what files may say, and how often a password is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest

from conftest import Clock
from private import basic
from proxy.access.htpasswd import Htpasswd, read_users
from proxy.access.rights import READ_ALL
from proxy.oci.errors import Overloaded, Unauthorized
from proxy.watched import Watched
from swap import swap


def hashed(password: str, cost: int = 4) -> str:
    """Hash as `htpasswd -B` does."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def write(path: Path, password: str, user: str = "alice") -> None:
    """Let there be one user."""
    swap(path, f"{user}:{hashed(password)}\n".encode())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One user."""
    path = tmp_path / "htpasswd"
    write(path, "alice1")
    return path


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The passwords that were looked at."""
    seen: list[bytes] = []
    original = bcrypt.checkpw

    def check(password: bytes, against: bytes) -> bool:
        seen.append(password)
        return original(password, against)

    monkeypatch.setattr("proxy.access.htpasswd.bcrypt.checkpw", check)
    return seen


@pytest.fixture
def gate(file: Path, clock: Clock) -> Htpasswd:
    """What lets that user in."""
    return Htpasswd(Watched(file, read_users, clock), [READ_ALL], "here", clock, most=1)


def test_files_as_htpasswd_writes_them() -> None:
    """Comments and empty lines are no users; the last line of a name counts."""
    first, second = hashed("a"), hashed("b")
    assert read_users(f"# us\n\nalice:{first}\r\nalice:{second}\n".encode()) == {"alice": second.encode()}
    assert read_users(b"") == {}


HASH = "$2b$04$" + "x" * 21 + "." + "x" * 31


@pytest.mark.parametrize(
    "line",
    [
        "alice",
        "alice:",
        ":" + HASH,
        "alice:secret",
        "alice:$apr1$abcdefgh$0123456789012345678901",
        "alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        "alice:" + HASH.replace("$04$", "$31$"),
        "alice:" + HASH.replace("$04$", "$03$"),
        "alice:" + HASH + "x",
        "alice:" + HASH.replace(".", "x"),
    ],
)
def test_other_files_are_refused(line: str) -> None:
    """With the number of the line, and without what stands in it."""
    with pytest.raises(ValueError, match="line 2") as refused:
        read_users(f"bob:{hashed('x')}\n{line}\n".encode())
    assert "secret" not in str(refused.value)


async def test_a_password_is_looked_at_once(gate: Htpasswd, checked: list[bytes]) -> None:
    """Right or wrong, however many ask at the same time."""
    right = await asyncio.gather(*(gate.admit(basic("alice")) for _ in range(50)))
    assert {caller.name for caller in right} == {"alice"}
    wrong = await asyncio.gather(*(gate.admit(basic("alice", "no")) for _ in range(50)), return_exceptions=True)
    assert {type(each) for each in wrong} == {Unauthorized}
    assert checked == [b"alice1", b"no"]


async def test_a_stranger_takes_as_long(gate: Htpasswd, checked: list[bytes]) -> None:
    """Whether a name exists can't be told from the time."""
    with pytest.raises(Unauthorized, match="user name or the password"):
        await gate.admit(basic("eve"))
    assert checked == [b"eve1"]


async def test_a_stranger_takes_as_long_as_users_do(file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """`htpasswd -B` makes hashes of cost 5, others of 12: a fixed one would tell strangers from users."""
    against: list[bytes] = []

    def check(password: bytes, hashed: bytes) -> bool:
        against.append(hashed)
        return True

    monkeypatch.setattr("proxy.access.htpasswd.bcrypt.checkpw", check)
    gate = Htpasswd(Watched(file, read_users, clock), [READ_ALL], "here", clock, most=1)
    with pytest.raises(Unauthorized):
        await gate.admit(basic("eve", "alice1"))
    assert against[0].startswith(b"$2b$04$")


async def test_guessing_forgets_nobody(
    file: Path, clock: Clock, checked: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong passwords, however many, don't push right ones out: they would have to wait behind the next guesses."""
    monkeypatch.setattr("proxy.access.htpasswd._MOST", 4)
    gate = Htpasswd(Watched(file, read_users, clock), [READ_ALL], "here", clock, most=1)
    await gate.admit(basic("alice"))
    for n in range(10):
        with pytest.raises(Unauthorized):
            await gate.admit(basic("alice", str(n)))
    checked.clear()
    await gate.admit(basic("alice"))
    assert checked == []


async def test_guessing_makes_nobody_wait_for_long(gate: Htpasswd) -> None:
    """More new passwords than can be looked at are turned away, and whoever is known is let in."""
    await gate.admit(basic("alice"))
    guesses = [asyncio.create_task(gate.admit(basic("alice", str(n)))) for n in range(200)]
    await asyncio.sleep(0)
    assert (await gate.admit(basic("alice"))).name == "alice"
    outcomes = await asyncio.gather(*guesses, return_exceptions=True)
    turned_away = [each for each in outcomes if isinstance(each, Overloaded)]
    assert len(turned_away) == 200 - 64
    assert turned_away[0].retry_after == "1"
    assert all(isinstance(each, Unauthorized | Overloaded) for each in outcomes)


async def test_guesses_of_one_client_leave_places_for_others(gate: Htpasswd) -> None:
    """Who comes for the first time, as everybody does after a restart, isn't turned away because somebody guesses."""
    guesses = [asyncio.create_task(gate.admit(basic("alice", str(n)), "192.0.2.1")) for n in range(200)]
    await asyncio.sleep(0)
    assert (await gate.admit(basic("alice"), "192.0.2.2")).name == "alice"
    outcomes = await asyncio.gather(*guesses, return_exceptions=True)
    assert sum(isinstance(each, Unauthorized) for each in outcomes) == 8
    assert sum(isinstance(each, Overloaded) and each.retry_after == "1" for each in outcomes) == 200 - 8
    with pytest.raises(Unauthorized):
        await gate.admit(basic("alice", "one more"), "192.0.2.1")


async def test_long_passwords(file: Path, clock: Clock) -> None:
    """What is behind 72 bytes counts for nothing, as for htpasswd; it is no error."""
    write(file, "x" * 72)
    gate = Htpasswd(Watched(file, read_users, clock), [READ_ALL], "here", clock)
    assert (await gate.admit(basic("alice", "x" * 100))).name == "alice"
    with pytest.raises(Unauthorized):
        await gate.admit(basic("alice", "x" * 71))


async def test_a_change_ends_what_was_found_right(gate: Htpasswd, file: Path, clock: Clock) -> None:
    """The lease of whoever came in before is over, as hot answers look at nothing else."""
    before = (await gate.admit(basic("alice"))).lease
    assert before is not None
    assert before.holds(clock())
    write(file, "new")
    clock.advance(1.1)
    gate.look()
    assert not before.holds(clock())
    with pytest.raises(Unauthorized):
        await gate.admit(basic("alice"))
    assert (await gate.admit(basic("alice", "new"))).name == "alice"


async def test_a_change_while_a_password_is_looked_at(
    gate: Htpasswd, file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file decides."""
    original = bcrypt.checkpw

    def check(password: bytes, against: bytes) -> bool:
        monkeypatch.setattr("proxy.access.htpasswd.bcrypt.checkpw", original)
        write(file, "bob1", "bob")
        clock.advance(1.1)
        gate.look()
        return original(password, against)

    monkeypatch.setattr("proxy.access.htpasswd.bcrypt.checkpw", check)
    with pytest.raises(Unauthorized):
        await gate.admit(basic("alice"))


async def test_a_change_just_after_a_password_was_looked_at(
    gate: Htpasswd, file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the old file said isn't remembered as the new one's word, where it would count for good."""

    def change() -> None:
        write(file, "new")
        clock.advance(1.1)
        gate.look()

    async def at_once(check: Callable[..., bool], *arguments: bytes) -> bool:
        asyncio.get_running_loop().call_soon(change)
        return check(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("proxy.access.htpasswd.asyncio.to_thread", at_once)
        with pytest.raises(Unauthorized):
            await gate.admit(basic("alice"))
    with pytest.raises(Unauthorized):
        await gate.admit(basic("alice"))
    assert (await gate.admit(basic("alice", "new"))).name == "alice"
