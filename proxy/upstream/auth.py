"""Authenticating to one upstream: anonymous, Basic, Bearer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy.oci.challenge import Challenge
from proxy.oci.errors import NoAnswer, Refused
from proxy.oci.reference import Repository
from proxy.upstream.credentials import Credential, Credentials, Login
from proxy.upstream.tokens import Grant, Service, Token, Tokens
from proxy.upstream.transport import Server, Transport

_TOO_LITTLE: Final = "insufficient_scope"  # RFC 6750: the token is good, and doesn't allow this
_YOUNG: Final = 60.0  # seconds for which nobody believes that a token has expired: a 403 is meant then


@dataclass(frozen=True, slots=True)
class Access:
    """What a request is about.

    Attributes:
        repository: As the upstream calls it; it decides which credential counts.
        scope: What a token has to allow, separated by spaces; empty where nothing but the credential is of interest.
    """

    repository: Repository
    scope: str


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a request was sent with.

    Attributes:
        header: The value of `Authorization`.
        login: In whose name.
        grant, token: Where it is a bearer token: what it is for, and itself.
    """

    header: str = field(repr=False)
    login: Login | None
    grant: Grant | None = None
    token: Token | None = None


class Door:
    """What all who ask one registry share: how it wants to be asked, as it has told, and where tokens come from.

    A registry is asked anonymously while it says nothing.
    """

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        """Take what is needed; *clock* gives seconds that never go backwards."""
        self.name = transport.name
        self.clock = clock
        self.tokens = Tokens(transport, clock)
        self.basic = False
        self.service: Service | None = None
        self.open = False  # it has answered without a challenge, when it was asked in order to get one


class Authorizer:
    """What to put into `Authorization` for one upstream, in somebody's name.

    An upstream is asked anonymously until it challenges; from then on its scheme is known and a token is
    fetched before the first request of a scope, not after its refusal. Tokens are kept by realm, service, scope and
    credential; another upstream has another `Door`.
    """

    def __init__(
        self, door: Door, credentials: Credentials, longest: float = math.inf, server: Server | None = None
    ) -> None:
        """Take what is needed.

        Args:
            longest: Seconds that a token counts, however long it lasts.
            server: The token service as they see it, where that isn't as everybody does.
        """
        self._server = server
        self.door = door
        self._credentials = credentials
        self._longest = longest

    @property
    def introduced(self) -> bool:
        """Whether it is known how to authenticate here."""
        return self.door.open or self.door.basic or self.door.service is not None

    def opened(self) -> None:
        """Note that nobody has to say who they are, until somebody is challenged."""
        self.door.open = True

    async def anonymous(self, repository: Repository) -> bool:
        """Return whether there is no credential for *repository* that could be wrong."""
        return await self._credentials.of(repository) is None

    def decided(self, sent: Authorization | None) -> float:
        """Return when somebody decided on what was just sent: a password is looked at each time."""
        return sent.token.since if sent is not None and sent.token is not None else self.door.clock()

    def ago(self, moment: float) -> float:
        """Return how many seconds ago *moment* was."""
        return self.door.clock() - moment

    async def header(self, access: Access, *, fresh: bool = False) -> Authorization | None:
        """Return what to send as far as it is known.

        Args:
            fresh: Whether a token has to be fetched now, so that it says whether the credential counts now.

        Raises:
            Refused: The token service says no.
            NoAnswer: It can't be asked, or there is no credential to be had.
        """
        service = self.door.service
        if service is None and not self.door.basic:
            return None
        login = await self._credentials.of(access.repository)
        if service is None:
            return _basic(login) if isinstance(login, Credential) else None
        try:
            return await self._bearer(service, access, login, 0.0 if fresh else self._longest)
        except NoAnswer:
            if self.door.service == service:
                self.door.service = None  # it may have moved: the upstream's next challenge says where to
            raise

    async def answer(
        self, challenges: Sequence[Challenge], access: Access, sent: Authorization | None
    ) -> Authorization:
        """Return what to send after a 401.

        Args:
            challenges: Those of the 401.
            sent: What it refused.

        Raises:
            Refused: There is nothing better to send.
            NoAnswer: The token service can't be asked, or there is no credential to be had.
        """
        self.door.open = False
        bearer = next((c for c in challenges if c.scheme == "bearer" and c.parameters.get("realm")), None)
        if bearer is not None:
            service = Service(bearer.parameters["realm"], bearer.parameters.get("service", ""))
            if bearer.parameters.get("error") == _TOO_LITTLE and self._is_young(sent):
                raise Refused(f"{self.door.name} refuses access to {access.repository}", seen=401)
            self._forget(sent)
            login = await self._credentials.of(access.repository)
            found = await self._bearer(service, access, login, self._longest)
            self.door.service = service  # only now: what can't be asked isn't worth remembering
            return found
        if any(c.scheme == "basic" for c in challenges):
            found = await self._by_name(access, sent)
            self.door.basic, self.door.service = True, None
            return found
        raise Refused(f"{self.door.name} refuses the credentials", seen=401)

    async def renewed(self, access: Access, sent: Authorization | None) -> Authorization | None:
        """Return what to send after a 403, or None where it is meant: ECR says 403 of a token that has expired.

        Raises as `answer` does.
        """
        if sent is None:
            return None
        login = sent.login and await self._credentials.of(access.repository, refused=sent.login)
        if sent.grant is None or sent.token is None:
            return _basic(login) if isinstance(login, Credential) and login != sent.login else None
        if login == sent.login and self._is_young(sent):
            return None
        self._forget(sent)
        return await self._bearer(sent.grant.service, access, login, self._longest)

    def _is_young(self, sent: Authorization | None) -> bool:
        """Whether it is a token of a moment ago: another one would allow as much."""
        return sent is not None and sent.token is not None and self.door.tokens.age(sent.token) < _YOUNG

    async def _by_name(self, access: Access, sent: Authorization | None) -> Authorization:
        login = await self._credentials.of(access.repository)
        if sent is not None and login is not None and _is_of(sent, login):
            login = await self._credentials.of(access.repository, refused=login)
        if login is None:
            raise Refused(f"{self.door.name} asks for a user name and password, none is configured", seen=401)
        if not isinstance(login, Credential):
            raise Refused(f"{self.door.name} asks for a user name and password, not for an identity token", seen=401)
        if sent is not None and _is_of(sent, login):
            raise Refused(f"{self.door.name} refuses the credentials", seen=401)
        return _basic(login)

    async def _bearer(self, service: Service, access: Access, login: Login | None, longest: float) -> Authorization:
        """Return a token; where its service refuses the credential, once more with a newer one if there is any."""
        try:
            return await self._granted(Grant(service, access.scope, login), longest)
        except Refused:
            newer = login and await self._credentials.of(access.repository, refused=login)
            if newer == login:
                raise
        return await self._granted(Grant(service, access.scope, newer), longest)

    async def _granted(self, grant: Grant, longest: float) -> Authorization:
        token = await self.door.tokens.get(grant, longest, self._server)
        return Authorization(f"Bearer {token.text}", grant.login, grant, token)

    def _forget(self, sent: Authorization | None) -> None:
        if sent is not None and sent.grant is not None and sent.token is not None:
            self.door.tokens.forget(sent.grant, sent.token)


def _basic(login: Credential) -> Authorization:
    return Authorization(login.basic, login)


def _is_of(sent: Authorization, login: Login) -> bool:
    """Whether this very user name and password was sent."""
    return sent.token is None and sent.login == login
