"""Names to addresses, checked where they are found: what is connected to is what was checked."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from proxy.upstream.guard import Bounds


class BoundResolver(AbstractResolver):
    """A resolver that gives no address which the upstream may not send us to.

    It is the one that the connection pools ask, so that nothing is resolved a second time behind the check.
    """

    def __init__(self, resolver: AbstractResolver, bounds: Bounds) -> None:
        self._resolver = resolver
        self._bounds = bounds

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return all addresses of *host*. Raises `BadAnswer` if any of them is out of bounds, `OSError` if none is."""
        found = await self._resolver.resolve(host, port, family)
        self._bounds.check_addresses(host, port, (each["host"] for each in found))
        return found

    async def close(self) -> None:
        """Release the resolver."""
        await self._resolver.close()
