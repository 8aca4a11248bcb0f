"""Names: repository, tag, digest. Parsed once at the edge; inside nobody validates again.

Grammar of the distribution specification::

    repository  component ("/" component)*
    component   [a-z0-9]+ (("." | "_" | "__" | "-"+) [a-z0-9]+)*
    tag         [a-zA-Z0-9_] [a-zA-Z0-9._-]{0,127}
    digest      "sha256:" 64 lower-case hex  |  "sha512:" 128 lower-case hex
    image       repository [":" tag] ["@" digest]
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, Self

from proxy.oci.errors import DigestInvalid, NameInvalid, TagInvalid

if TYPE_CHECKING:
    from hashlib import _Hash

MAX_REPOSITORY: Final = 255  # characters; what docker, podman and distribution accept for a whole name

# Docker Hub's names: containerd says docker.io in `ns`, regclient registry-1.docker.io, docker's login index.docker.io.
DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}", re.ASCII)
_SHOWN: Final = 80  # characters of a bad name that an error repeats


class Repository(str):
    """A repository's path within its registry, such as `kimoqi/alpine`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return *text* as a repository. Raises `NameInvalid`."""
        if len(text) > MAX_REPOSITORY:
            raise NameInvalid(f"the repository name has {len(text)} characters, at most {MAX_REPOSITORY} are allowed")
        if _REPOSITORY.fullmatch(text) is None:
            raise NameInvalid(f"{_show(text)} is not a repository name: lower-case words joined by . _ - and /")
        return cls(text)

    @property
    def namespace(self) -> str:
        """All but the last component; empty where there is only one."""
        return self.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last component."""
        return self.rpartition("/")[2]


class Tag(str):
    """A tag, such as `1.0`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return *text* as a tag. Raises `TagInvalid`."""
        if _TAG.fullmatch(text) is None:
            raise TagInvalid(f"{_show(text)} is not a tag: at most 128 letters, digits, . _ - not starting with . or -")
        return cls(text)


class Digest(str):
    """A content address, `sha256:…` or `sha512:…`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return *text* as a digest. Raises `DigestInvalid`."""
        if _DIGEST.fullmatch(text) is None:
            raise DigestInvalid(f"{_show(text)} is not a digest: sha256 or sha512 and lower-case hex were expected")
        return cls(text)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the sha256 digest of *data*."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @property
    def algorithm(self) -> str:
        """`sha256` or `sha512`."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The encoded part."""
        return self.partition(":")[2]

    def hasher(self) -> _Hash:
        """Return a fresh hash of this digest's algorithm, to be fed with chunks."""
        return hashlib.new(self.algorithm)

    def matches(self, data: bytes) -> bool:
        """Say whether *data* hashes to this digest."""
        hasher = self.hasher()
        hasher.update(data)
        return hasher.hexdigest() == self.hex


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """Return *text* as a digest where it has a colon, else as a tag. Raises `DigestInvalid` or `TagInvalid`."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def parse_image(text: str) -> tuple[Repository, Reference]:
    """Split `repository[:tag][@digest]`, as people write it. Without either the tag is `latest`.

    A digest wins over a tag, as it does for docker. Raises `Invalid`.
    """
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    repository = Repository.parse(f"{head}{slash}{last}")
    reference = Tag.parse(tag) if colon else Tag("latest")
    return repository, Digest.parse(digest) if at else reference


def _show(text: str) -> str:
    """Quote bad input for an error: escaped, and never more of it than a line holds."""
    return ascii(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")
