"""The registry API's paths, in both directions. Sans I/O; the numbers are the specification's endpoint ids."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from proxy.oci.errors import NameInvalid, NotFound, RegistryError
from proxy.oci.reference import Digest, Reference, Repository, parse_reference

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,253}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ping:
    """end-1: `/v2/`."""

    @property
    def path(self) -> str:
        """The path."""
        return "/v2/"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Docker's `/v2/_catalog`."""

    @property
    def path(self) -> str:
        """The path."""
        return "/v2/_catalog"


@dataclass(frozen=True, slots=True)
class ManifestAt:
    """end-3, end-7, end-9: a manifest by tag or digest."""

    repository: Repository
    reference: Reference

    @property
    def path(self) -> str:
        """The path."""
        return f"/v2/{self.repository}/manifests/{self.reference}"


@dataclass(frozen=True, slots=True)
class BlobAt:
    """end-2, end-10: a blob."""

    repository: Repository
    digest: Digest

    @property
    def path(self) -> str:
        """The path."""
        return f"/v2/{self.repository}/blobs/{self.digest}"


@dataclass(frozen=True, slots=True)
class UploadAt:
    """end-4 to end-6, end-13, end-14: an upload, begun or going on; *session* is empty to begin one."""

    repository: Repository
    session: str

    @property
    def path(self) -> str:
        """The path."""
        return f"/v2/{self.repository}/blobs/uploads/{self.session}"


@dataclass(frozen=True, slots=True)
class TagsOf:
    """end-8: a repository's tags."""

    repository: Repository

    @property
    def path(self) -> str:
        """The path."""
        return f"/v2/{self.repository}/tags/list"


@dataclass(frozen=True, slots=True)
class ReferrersOf:
    """end-12: what refers to a digest."""

    repository: Repository
    digest: Digest

    @property
    def path(self) -> str:
        """The path."""
        return f"/v2/{self.repository}/referrers/{self.digest}"


Endpoint = Ping | Catalog | ManifestAt | BlobAt | UploadAt | TagsOf | ReferrersOf


class NoSuchEndpoint(NotFound):
    """The path isn't one of the registry API."""


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint and the path component in front of `/v2/`, which may name an upstream; empty: none."""

    prefix: str
    endpoint: Endpoint


def parse(raw_path: str) -> Target:
    """Read a request's path, percent-encoded as it came, without its query.

    It is decoded here, once. An encoded slash, an empty component and `.` or `..` are refused rather than
    interpreted: two readers of the same path would disagree on them. Repositories may contain the words
    `manifests`, `blobs` and `tags`, so it is read from the right.

    Raises:
        NameInvalid, TagInvalid, DigestInvalid: The name doesn't follow its grammar.
        NoSuchEndpoint: It isn't a path of the registry API.
    """
    components = _decode(raw_path)
    if len(components) == 3 and (components[0], components[2]) == ("v2", "_catalog"):
        # In `/v2/<alias>/<repository>/…` the repository holds the alias; a catalog has none, so it moves to the front.
        components = [components[1], "v2", "_catalog"]
    prefix = ""
    if components[:1] != ["v2"] and components[1:2] == ["v2"]:
        prefix = components.pop(0)
        if _PREFIX.fullmatch(prefix) is None:
            raise NoSuchEndpoint(f"no upstream can be called {prefix[:80]!a}")
    if components[:1] != ["v2"]:
        raise NoSuchEndpoint("the registry API starts at /v2/")
    return Target(prefix, _endpoint(components[1:]))


def _decode(raw_path: str) -> list[str]:
    if _BAD_ESCAPE.search(raw_path):
        raise NameInvalid("the path has a % that is not followed by two hex digits")
    components = raw_path.removeprefix("/").split("/")
    decoded = []
    for component in components:
        try:
            text = unquote_to_bytes(component).decode()
        except UnicodeError:  # aiohttp turns raw bytes that aren't UTF-8 into surrogates
            raise NameInvalid("the path is not UTF-8") from None
        if "/" in text or text in {".", ".."}:
            raise NameInvalid("the path has an encoded slash or a dot component")
        decoded.append(text)
    return decoded


def _endpoint(components: list[str]) -> Endpoint:
    match components:
        case [] | [""]:
            return Ping()
        case ["_catalog"]:
            return Catalog()
        case [*name, "manifests", reference] if name:
            return ManifestAt(_repository(name), parse_reference(reference))
        case [*name, "blobs", "uploads"] if name:
            return UploadAt(_repository(name), "")
        case [*name, "blobs", "uploads", session] if name:
            return UploadAt(_repository(name), session)
        case [*name, "blobs", digest] if name:
            return BlobAt(_repository(name), Digest.parse(digest))
        case [*name, "tags", "list"] if name:
            return TagsOf(_repository(name))
        case [*name, "referrers", digest] if name:
            return ReferrersOf(_repository(name), Digest.parse(digest))
    raise _unknown(components)


def _repository(components: list[str]) -> Repository:
    return Repository.parse("/".join(components))


def _unknown(components: list[str]) -> RegistryError:
    """A path with a bad name is told so; the rest is no endpoint."""
    if any(not component for component in components):
        return NameInvalid("the path has an empty component")
    return NoSuchEndpoint("the path is not one of the registry API")
