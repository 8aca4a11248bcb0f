"""Who we are, and for which repositories."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Clock
from proxy.oci.reference import Repository
from proxy.upstream.credentials import ByRepository, Credential, Credentials, Fixed, IdentityToken, Kept, Login, secret
from proxy.watched import Watched

ALICE = Credential("alice", "wonder:land")
BOB = Credential("bob", "builder")
REFRESH = IdentityToken("refresh", "alice")
APP = Repository("team/app")


@pytest.mark.parametrize("login", [ALICE, REFRESH])
def test_a_login_never_shows_its_secret(login: Login) -> None:
    """Neither `repr` nor `str` of it has it."""
    shown = f"{login!r} {login} {Fixed(login)!r}"
    assert "wonder" not in shown
    assert "refresh" not in shown
    assert "alice" in shown


def test_basic_is_base64_of_utf_8() -> None:
    """Basic authentication sends user and password as UTF-8 (RFC 7617)."""
    assert Credential("jürgen", "pä:ß").basic == "Basic asO8cmdlbjpww6Q6w58="


def test_an_identity_token_is_a_password_only_with_a_name() -> None:
    """Nobody's name is made up."""
    assert REFRESH.as_password == Credential("alice", "refresh")
    assert IdentityToken("refresh").as_password is None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b" se cret \n\n", " se cret \n"),
        ("ß".encode(), "ß"),
    ],
)
def test_a_newline_at_the_end_of_a_secret_does_not_count(written: bytes, read: str) -> None:
    """Editors put one newline behind a password; everything else is the password."""
    assert secret(written) == read


@pytest.mark.parametrize("written", [b"", b"\n", b"\r\n", b"\xff"])
def test_nothing_is_no_secret(written: bytes) -> None:
    """A file that is being written is empty for a moment; that isn't a password."""
    with pytest.raises(ValueError, match="it is"):
        secret(written)


@pytest.mark.parametrize("choice", [Fixed(ALICE), Fixed(), ByRepository([]), ByRepository([("**", Fixed(ALICE))])])
async def test_who_can_learn_of_nothing_newer_says_the_same(choice: Credentials) -> None:
    """A refusal changes nothing there."""
    assert await choice.of(APP, refused=ALICE) == await choice.of(APP)


async def test_a_file_s_login_is_the_one_of_now(tmp_path: Path, clock: Clock) -> None:
    """When the file changes, so does the login."""
    path = tmp_path / "password"
    path.write_text("one")

    def read(content: bytes) -> Login:
        return Credential("alice", secret(content))

    kept = Kept(Watched(path, read, clock))
    assert await kept.of(APP) == Credential("alice", "one")
    path.write_text("other")
    clock.advance(2)

    assert await kept.of(APP) == Credential("alice", "other")


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("team/app", ALICE),
        ("team/deep/app", BOB),
        ("public/app", None),
        ("library/alpine", REFRESH),
        ("", REFRESH),
    ],
)
async def test_the_first_that_fits_counts(repository: str, expected: Login | None) -> None:
    """Also where it says that we are nobody there."""
    choices = [("team/*", Fixed(ALICE)), ("team/**", Fixed(BOB)), ("public/*", Fixed()), ("**", Fixed(REFRESH))]

    assert await ByRepository(choices).of(Repository(repository)) == expected


async def test_where_none_fits_we_are_nobody() -> None:
    """A credential for some repositories isn't shown for others, nor for the catalog."""
    credentials = ByRepository([("team/*", Fixed(ALICE))])

    assert await credentials.of(Repository("other/app")) is None
    assert await credentials.of(Repository("")) is None


async def test_a_refusal_reaches_the_one_that_counts() -> None:
    """And nobody else."""
    heard: list[tuple[str, Login | None]] = []

    class Listening:
        """Credentials that note what they hear."""

        def __init__(self, name: str) -> None:
            self.name = name

        async def of(self, repository: Repository, *, refused: Login | None = None) -> Login | None:
            """Note it."""
            heard.append((self.name, refused))
            return BOB

    assert await ByRepository([("a/*", Listening("a")), ("**", Listening("all"))]).of(APP, refused=ALICE) == BOB
    assert heard == [("all", ALICE)]
