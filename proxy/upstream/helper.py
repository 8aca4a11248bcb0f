"""Credential helpers of docker: programs that know a password, asked without standing in anybody's way.

The protocol is docker's (docker/docker-credential-helpers): `docker-credential-<name> get`, the registry on standard
input, JSON on standard output. Secrets go through pipes alone.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.oci.errors import BadAnswer, NoAnswer, TimedOut, Unreachable
from proxy.oci.reference import Repository
from proxy.upstream.credentials import Credential, IdentityToken, Login
from proxy.upstream.shared import Shared

NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # nothing that leads to another folder
_PREFIX: Final = "docker-credential-"
_IDENTITY: Final = "<token>"  # as user name: the secret is an identity token
_NOT_FOUND: Final = b"credentials not found"  # how all helpers begin to say so, on standard output
_MOST: Final = 64 * 1024  # bytes of an answer
_PATIENCE: Final = 10.0  # seconds after a refusal or a failure in which a helper isn't asked again


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How helpers are treated.

    Attributes:
        timeout: Seconds that one may take.
        lifetime: Seconds for which its answer counts.
        clock: Seconds that never go backwards.
    """

    timeout: float
    lifetime: float
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer, or why there was none; *since* is in the clock's seconds."""

    since: float
    login: Login | None
    failure: NoAnswer | None = None


class Helper:
    """One helper, asked about one registry."""

    def __init__(self, name: str, upstream: str, server: str, manners: Manners, *, optional: bool = False) -> None:
        """Take what is needed.

        Args:
            name: What stands behind `docker-credential-`.
            upstream: Whose helper it is, for errors.
            server: What the registry is called there.
            optional: Whether it may know nothing; without it, that is no answer.

        Raises:
            ValueError: The name is none.
        """
        if re.fullmatch(NAME, name) is None:
            raise ValueError("a credential helper was expected to be named by letters, digits, dots and dashes")
        self._program = f"{_PREFIX}{name}"
        self._who = f"the credential helper {self._program} of {upstream}"
        self._server = server
        self._manners = manners
        self._optional = optional
        self._kept: _Kept | None = None
        self._asking = Shared[str, Login | None]()

    async def of(self, repository: Repository, *, refused: Login | None = None) -> Login | None:
        """Return what the helper says, for all repositories alike; asked by one while all others wait.

        Raises:
            NoAnswer: It failed, took too long, or said what can't be understood.
        """
        kept = self._kept
        if kept is None or not self._counts(kept, refused):
            return await self._asking.do(self._server, self._ask)
        if kept.failure is not None:
            raise type(kept.failure)(kept.failure.message)
        return kept.login

    def _counts(self, kept: _Kept, refused: Login | None) -> bool:
        age = self._manners.clock() - kept.since
        in_doubt = kept.failure is not None or (refused is not None and kept.login == refused)
        return age < (_PATIENCE if in_doubt else self._manners.lifetime)

    async def _ask(self) -> Login | None:
        try:
            login = await self._answer()
        except NoAnswer as failure:
            self._kept = _Kept(self._manners.clock(), None, failure)
            raise
        self._kept = _Kept(self._manners.clock(), login)
        return login

    async def _answer(self) -> Login | None:
        """Run the program. What it writes to standard error isn't read: it may hold a secret."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                "get",
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=_MOST,
                start_new_session=True,  # so that what it has started itself can be ended with it
            )
        except OSError as error:
            raise Unreachable(f"{self._who} can't be run: {os.strerror(error.errno or 0)}") from None
        try:
            async with asyncio.timeout(self._manners.timeout):
                said = await self._said(process)
                status = await process.wait()
        except TimeoutError:
            raise TimedOut(f"{self._who} didn't answer within {self._manners.timeout:g} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if status != 0 and not said.startswith(_NOT_FOUND):
            raise Unreachable(f"{self._who} failed with exit status {status}")
        login = self._read(said) if status == 0 else None
        if login is None and not self._optional:
            raise BadAnswer(f"{self._who} knows no credentials for {self._server}")
        return login

    async def _said(self, process: Process) -> bytes:
        """Write the registry's name, and return all that the program says, up to a bound."""
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("both are pipes")
        with suppress(ConnectionError):  # it may have ended without reading; of a pipe that is closed uvloop says more
            if not process.stdin.is_closing():
                process.stdin.write(self._server.encode() + b"\n")
                await process.stdin.drain()
        process.stdin.close()
        said = bytearray()
        while piece := await process.stdout.read(_MOST):
            said += piece
            if len(said) > _MOST:
                raise BadAnswer(f"{self._who} said more than {_MOST} bytes")
        return bytes(said)

    def _read(self, said: bytes) -> Login | None:
        try:
            document: Any = orjson.loads(said)
            username, secret = document["Username"], document["Secret"]
        except (orjson.JSONDecodeError, TypeError, KeyError):
            username = secret = None
        if not isinstance(username, str) or not isinstance(secret, str):
            raise BadAnswer(f"{self._who} said something that is not a user name and a secret")
        if not secret:
            return None
        return IdentityToken(secret) if username == _IDENTITY else Credential(username, secret)
