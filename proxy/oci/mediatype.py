"""Media types of manifests, and what a client's `Accept` lines say about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
SCHEMA1: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

INDEXES: Final = frozenset({DOCKER_LIST, OCI_INDEX})
MANIFESTS: Final = frozenset({DOCKER_MANIFEST, OCI_MANIFEST})
IMAGE_CONFIGS: Final = frozenset({DOCKER_CONFIG, OCI_CONFIG})

# Upstreams are always asked for everything: ghcr.io, Docker Hub and Harbor answer 404 to a partial list.
ACCEPT_ALL: Final = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, "*/*"))

_WILDCARDS: Final = frozenset({"*/*", "application/*", "application/json"})


def bare(content_type: str) -> str:
    """Return the media type without parameters, in lower case: `; charset=utf-8` breaks ggcr and oras."""
    return content_type.partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Accept:
    """The media types a client listed, parameters stripped; order and q are ignored, as distribution does."""

    types: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Accept:
        """Read all `Accept` lines: dockerd sends one line per type in random order, others one long line."""
        return cls(frozenset(kind for line in lines for part in line.split(",") if (kind := bare(part))))

    @property
    def only_single_images(self) -> bool:
        """Whether the client named image manifests and nothing that an index could pass as.

        No `Accept`, a wildcard or any index type means it can take an index.
        """
        return not self.types & (INDEXES | _WILDCARDS) and bool(self.types & MANIFESTS)


ANYTHING: Final = Accept()
