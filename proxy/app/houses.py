"""Who may come in, and what they see: one view for all, or one for each who brings upstream credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final, Protocol

from proxy.access.callers import Callers
from proxy.access.logins import Logins
from proxy.app.foundation import Foundation
from proxy.app.views import Eyes, View, impatient, seen
from proxy.oci.access import Caller, Login, basic_challenge, read_basic
from proxy.oci.errors import NameUnknown, Refused, Unauthorized
from proxy.store.memory import MemoryMetadata
from proxy.store.personal import PersonalMetadata
from proxy.upstream.client import Upstream
from proxy.upstream.credentials import Credential, Fixed
from proxy.virtual.budget import Budget
from proxy.virtual.changes import Changes
from proxy.virtual.holdings import Holdings
from proxy.virtual.permissions import Proofs
from proxy.virtual.registry import Directory
from proxy.web.request import Admission, Knock

_MOST_CALLERS: Final = 1_000  # views at once
_LONGEST_LIST: Final = 60.0  # seconds; a caller's lists say what was theirs

Views = Callers[Login, View]
"""The views of all callers, by their logins."""


class Doorkeeper(Protocol):
    """Finds out who somebody is."""

    async def admit(self, authorization: str | None, client: str | None = None) -> Caller:
        """Return who sent this `Authorization`, and from where. Raises `Unauthorized` or `NoAnswer`."""
        ...


class GuardedHouse:
    """A house where who somebody is decides what they may do, and all see the same."""

    def __init__(self, doorkeeper: Doorkeeper, directory: Directory) -> None:
        self._doorkeeper = doorkeeper
        self._directory = directory

    @asynccontextmanager
    async def admit(self, knock: Knock) -> AsyncIterator[Admission]:
        """Let in whoever the doorkeeper knows."""
        yield Admission(await self._doorkeeper.admit(knock.authorization, knock.client), self._directory)


class PersonalHouse:
    """A house where upstreams are asked with the client's own credentials: each sees what is theirs.

    Nothing that an upstream said to one caller is ever an answer to another: tags, refusals and what was learned of
    names are each caller's own. What is shared is bytes by digest, behind a proof that the caller may read where
    they are (`proxy.virtual.permissions`).
    """

    def __init__(
        self, logins: Logins, callers: Views, base: Directory, judges: Sequence[str], realm: str, budget: Budget
    ) -> None:
        """Take what is needed; *budget* is how long a caller waits to be let in.

        Args:
            base: Says which upstream is meant.
            judges: The upstreams that are asked with clients' credentials. One of them says whether a login counts:
                the one that is meant, or else the first.
            realm: What clients are told that they need a login for.
        """
        self._logins = logins
        self._callers = callers
        self._base = base
        self._judges = judges
        self._realm = realm
        self._budget = budget

    @asynccontextmanager
    async def admit(self, knock: Knock) -> AsyncIterator[Admission]:
        """Let in whoever has a login that the upstream accepts."""
        login = read_basic(knock.authorization or "")
        if login is None:
            raise Unauthorized("a user name and password are required", challenge=basic_challenge(self._realm))
        judge = self._judge(knock)
        asking = self._logins.accepted(judge, login, knock.client)
        try:
            lease = await self._budget.spend(asking, f"the login at {judge}")
        except Refused as refused:
            raise Unauthorized(refused.message, challenge=basic_challenge(self._realm)) from None
        async with self._callers.borrow(login) as view:
            yield Admission(Caller(login.username, lease=lease), view.directory)

    def _judge(self, knock: Knock) -> str:
        meant = (knock.host, knock.namespaces, knock.prefix)
        try:
            if knock.repository is not None:
                upstream = self._base.find(*meant, knock.repository)[1].upstream
            else:
                upstream = self._base.catalogue(*meant)[1]
        except NameUnknown:
            upstream = ""  # whoever may come in is told so
        return upstream if upstream in self._judges else self._judges[0]


@asynccontextmanager
async def personal(
    foundation: Foundation, base: View, changes: Changes, retired: Callable[[], bool]
) -> AsyncIterator[tuple[PersonalHouse, Views]]:
    """Open a house for callers with upstream credentials of their own, and yield it with the views of all of them.

    What is seen through views that are made after it is *retired* isn't given again.
    """
    settings = foundation.settings
    judges = [each.name for each in settings.upstream if each.credentials == "client"]
    ttl = settings.access.ttl

    async def greet(upstream: str, login: Login) -> None:
        await foundation.upstreams[upstream].acting_as(_credentials(login)).greet()

    @asynccontextmanager
    async def opened(login: Login) -> AsyncIterator[View]:
        async with _personal_view(foundation, judges, login, changes) as view:
            if retired():
                view.leases.close()
            yield view

    async with AsyncExitStack() as stack:
        logins = Logins(greet, ttl, foundation.clock, foundation.metrics.coalesced)
        stack.push_async_callback(logins.close)
        callers = Callers(opened, _MOST_CALLERS)
        stack.push_async_callback(callers.close)
        realm = settings.access.realm
        yield PersonalHouse(logins, callers, base.directory, judges, realm, foundation.budget), callers


@asynccontextmanager
async def _personal_view(
    foundation: Foundation, judges: Sequence[str], login: Login, changes: Changes
) -> AsyncIterator[View]:
    ttl = foundation.settings.access.ttl
    # A registry believes a token whatever its service has said since. So that a permission ends within `ttl` however it
    # was checked, tokens and lists count for half of it, and proofs for what the token's age leaves of it.
    theirs: dict[str, Upstream] = {}
    holdings = Holdings()
    proofs = Proofs(theirs, ttl, foundation.clock, foundation.metrics.coalesced, holdings, foundation.upstreams)
    for name in judges:
        upstream = foundation.upstreams[name]
        theirs[name] = upstream.acting_as(_credentials(login), longest=ttl / 2, witness=partial(proofs.saw, name))
    eyes = Eyes(
        upstreams={**foundation.upstreams, **theirs},
        rules=impatient(foundation.settings.rules_in_force),
        metadata=PersonalMetadata(MemoryMetadata(foundation.memory), foundation.metadata),
        permissions=proofs,
        holdings=holdings,
        longest=min(ttl / 2, _LONGEST_LIST),
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(proofs.close)
        view = await stack.enter_async_context(seen(foundation, eyes, changes))
        stack.callback(view.leases.close)
        yield view


def _credentials(login: Login) -> Fixed:
    return Fixed(Credential(login.username, login.password))
