"""Which answers may be given again without asking: each until it may have changed, and a minute at most."""

from __future__ import annotations

from typing import Final

from proxy.oci.lease import Lease
from proxy.oci.reference import Digest, Tag
from proxy.store.base import Virtual

Key = tuple[Virtual, Tag | Digest]

_MOST: Final = 10_000  # tags and digests that have a lease; the lease of one that is forgotten ends
_LONGEST: Final = 60.0  # seconds, after which a use has to pass by again, so that what is used is never pruned


class Leases:
    """The leases of tags and digests, one each.

    A lease is opened *before* what it is for is read, and ended *after* that was changed. So an answer that was
    read before a change and is given after it never has a lease that lives.
    """

    def __init__(self) -> None:
        self._leases: dict[Key, Lease] = {}
        self._closed = False

    def open(self, virtual: Virtual, name: Tag | Digest) -> Lease:
        """Return the lease of a name, which promises nothing until it is granted."""
        key = (virtual, name)
        lease = self._leases.get(key)
        if lease is None:
            lease = Lease()
            lease.live = not self._closed
            if len(self._leases) >= _MOST:
                self.end(*next(iter(self._leases)))
            self._leases[key] = lease
        return lease

    def grant(self, lease: Lease, now: float, *, since: float | None, until: float) -> Lease:
        """Let *lease* hold until then, a minute at most; it ends earlier where it is ended."""
        lease.since, lease.begins = since, now
        lease.until = min(until, now + _LONGEST)
        return lease

    def end(self, virtual: Virtual, name: Tag | Digest) -> None:
        """End the lease of a name: what it stands for may be another thing now."""
        lease = self._leases.pop((virtual, name), None)
        if lease is not None:
            lease.live = False

    def end_all(self) -> None:
        """End the leases of all names."""
        for lease in self._leases.values():
            lease.live = False
        self._leases.clear()

    def close(self) -> None:
        """End all leases, and let no other begin: somebody else answers from now on."""
        self._closed = True
        self.end_all()
