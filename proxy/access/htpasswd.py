"""Users by htpasswd: `user:hash`, a line each, with hashes of bcrypt as `htpasswd -B` writes them."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import bcrypt

from proxy.access.rights import Right, granted
from proxy.oci.access import Caller, Login, basic_challenge, read_basic
from proxy.oci.errors import Overloaded, Unauthorized
from proxy.oci.lease import Lease
from proxy.virtual.recent import Recent
from proxy.watched import Watched

# A salt has 128 bits, so its last character has four that are 0: bcrypt takes no other.
_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_MIN_COST: Final = 4  # bcrypt itself takes no less
_MAX_COST: Final = 16  # a check takes seconds then; a file that says more would stop the service
_MAX_PASSWORD: Final = 72  # bytes that bcrypt looks at, and htpasswd as well
_MOST: Final = 10_000  # passwords that needn't be looked at again, right ones and wrong ones each
_MOST_WAITING: Final = 64  # passwords that are being checked, or wait for it
_MOST_OF_ONE: Final = 8  # of these, those of one client: one that guesses leaves places for others
_NOBODY: Final = bcrypt.hashpw(b"", bcrypt.gensalt(10))  # whom a name stands for where there are no users

Users = Mapping[str, bytes]


def read_users(data: bytes) -> Users:
    """Read an htpasswd file. Raises `ValueError` that names the line, and never what stands in it."""
    users: dict[str, bytes] = {}
    for number, line in enumerate(data.decode().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, colon, hashed = text.partition(":")
        found = _HASH.fullmatch(hashed)
        if not colon or not name or found is None:
            raise ValueError(f"line {number} isn't a user name and a bcrypt hash, as `htpasswd -B` writes them")
        if not _MIN_COST <= int(found[1]) <= _MAX_COST:
            raise ValueError(f"line {number} has a hash of cost {found[1]}, {_MIN_COST} to {_MAX_COST} are accepted")
        users[name] = hashed.encode()
    return users


class Htpasswd:
    """Lets in whoever is in the file, with the rights of their name.

    A password is checked once and then known, by a keyed hash, until the file changes: bcrypt takes a twentieth of a
    second on purpose. Checks run in threads, as many at once as there are cores.
    """

    def __init__(
        self, users: Watched[Users], rights: Sequence[Right], realm: str, clock: Callable[[], float], most: int = 0
    ) -> None:
        """Take what is needed.

        Args:
            clock: Seconds since the epoch.
            most: Passwords that are checked at once; as many as there are cores where nothing is said.
        """
        self._users = users
        self._rights = rights
        self._realm = realm
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._slots = asyncio.Semaphore(most or os.cpu_count() or 1)
        self._known: Users = users.content
        self._lease = _endless()
        self._right: Recent[bytes, bool] = Recent(_MOST)
        self._wrong: Recent[bytes, bool] = Recent(_MOST)  # apart, so that guesses push no right one out
        self._checking: dict[bytes, asyncio.Task[bool]] = {}
        self._waiting: Counter[str] = Counter()  # clients, whose passwords are being checked

    def look(self) -> None:
        """See whether the file has changed: then nothing that was found right counts any more, also in hot answers."""
        if self._users.content is not self._known:
            self._known = self._users.content
            self._lease.live = False
            self._lease = _endless()
            self._right, self._wrong = Recent(_MOST), Recent(_MOST)

    async def admit(self, authorization: str | None, client: str | None = None) -> Caller:
        """Return who sent this `Authorization`. Raises `Unauthorized`; `Overloaded` for too many new ones at once.

        Args:
            client: Who shares what one client may have looked at; None for nobody in particular.
        """
        login = read_basic(authorization or "")
        if login is None:
            raise Unauthorized("a user name and password are required", challenge=basic_challenge(self._realm))
        self.look()
        lease = self._lease
        if not await self._is_right(login, client) or not lease.live:
            raise Unauthorized("the user name or the password is wrong", challenge=basic_challenge(self._realm))
        return Caller(login.username, granted(self._rights, login.username), lease=lease)

    async def _is_right(self, login: Login, client: str | None) -> bool:
        key = hmac.digest(self._key, f"{login.username}\0{login.password}".encode("utf-8", "surrogatepass"), "sha256")
        if self._right.get(key, 0.0) or self._wrong.get(key, 0.0):
            return self._right.get(key, 0.0) is not None
        task = self._checking.get(key)
        if task is None:
            if len(self._checking) >= _MOST_WAITING or (client is not None and self._waiting[client] >= _MOST_OF_ONE):
                raise Overloaded("too many passwords are being checked at once", retry_after="1")
            task = self._checking[key] = asyncio.create_task(self._checked(key, login))
            if client is not None:
                self._waiting[client] += 1
                task.add_done_callback(lambda _: self._let_go(client))
        return await asyncio.shield(task)

    async def _checked(self, key: bytes, login: Login) -> bool:
        """Check a password and remember what came of it, with nothing between: the file may change at any await."""
        try:
            right = await self._check(login)
            (self._right if right else self._wrong).put(key, value=True, until=1.0)
            return right
        finally:
            del self._checking[key]

    async def _check(self, login: Login) -> bool:
        password = login.password.encode()[:_MAX_PASSWORD]
        async with self._slots:
            while True:
                users = self._known
                hashed = users.get(login.username)
                right = await asyncio.to_thread(bcrypt.checkpw, password, hashed or self._stand_in(login.username))
                if users is self._known:  # else the file has changed meanwhile
                    return right and hashed is not None

    def _stand_in(self, stranger: str) -> bytes:
        """Return a user's hash, for a name always the same one: an unknown name takes as long as a wrong password."""
        hashes = list(self._known.values())
        number = int.from_bytes(hmac.digest(self._key, stranger.encode("utf-8", "surrogatepass"), "sha256"))
        return hashes[number % len(hashes)] if hashes else _NOBODY

    def _let_go(self, client: str) -> None:
        self._waiting[client] -= 1
        if not self._waiting[client]:
            del self._waiting[client]


def _endless() -> Lease:
    lease = Lease()
    lease.until = float("inf")
    return lease
