"""The admin port's own token: whoever shows it may read more than whether the service is well."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from proxy.oci.errors import Unauthorized


class AdminUnauthorized(Unauthorized):
    """The request doesn't have the admin port's token, or there is none that it could have."""


class Token:
    """A token, which may be another one at any moment."""

    def __init__(self, current: Callable[[], str]) -> None:
        """Take what returns the token of the moment."""
        self._current = current

    def check(self, authorization: str) -> None:
        """Raise `AdminUnauthorized` unless the header has the token. Compares in constant time."""
        scheme, _, given = authorization.partition(" ")
        same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._current().encode())
        if scheme.lower() != "bearer" or not same:
            raise AdminUnauthorized("the admin port wants its token: Authorization: Bearer, and admin_token")
