"""What repositories were seen to hold: that a manifest names something proves nothing about where it is.

Registries take manifests and indexes that name what they don't hold, and what is kept may have come from elsewhere.
"""

from __future__ import annotations

import math
from typing import Final

from proxy.oci.reference import Digest
from proxy.virtual.places import Place
from proxy.virtual.recent import Recent

_MOST: Final = 10_000  # one that was forgotten costs a HEAD


class Holdings:
    """Which manifests and blobs places were seen to hold."""

    def __init__(self) -> None:
        self._held: Recent[tuple[Place, Digest], bool] = Recent(_MOST)

    def saw(self, place: Place, digest: Digest) -> None:
        """Take note that *place* has brought *digest*, or has said that it is there."""
        self._held.put((place, digest), value=True, until=math.inf)

    def has(self, place: Place, digest: Digest) -> bool:
        """Whether *place* was seen to hold *digest*."""
        return self._held.get((place, digest), 0.0) is not None
