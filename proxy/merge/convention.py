"""Naming conventions in the wild, and the words for architectures that they use.

A token locates a source; the image's config decides what it is. `armel` is arm/v6 to containerd and arm/v5 to
Debian, `x86` may be 386, `arm` may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Final

from proxy.merge.template import Template
from proxy.oci.platform import Platform, covers, normalize

REPOSITORY_SUFFIX: Final = "repository-suffix"
TAG_SUFFIX: Final = "tag-suffix"
REPOSITORY_PREFIX: Final = "repository-prefix"
NAMESPACE: Final = "namespace"
TAG_PREFIX: Final = "tag-prefix"

CONVENTIONS: Final[Mapping[str, str]] = {
    REPOSITORY_SUFFIX: "{repository}-TOKEN:{tag}",
    TAG_SUFFIX: "{repository}:{tag}-TOKEN",
    REPOSITORY_PREFIX: "{namespace}/TOKEN-{name}:{tag}",
    NAMESPACE: "TOKEN/{name}:{tag}",
    TAG_PREFIX: "{repository}:TOKEN-{tag}",
}

_REMEMBERED: Final = 4096  # words of rules: each cold tag of a repository without a written source needs a dozen

DEFAULT_CONVENTIONS: Final = (REPOSITORY_SUFFIX, TAG_SUFFIX)
DEFAULT_PLATFORMS: Final = (Platform("linux", "amd64"), Platform("linux", "arm64"))
# What is tried with no platforms written: the price of guessing is two conventions times these.
DEFAULT_TOKENS: Final = ("x86", "amd64", "x86_64", "arm", "arm64", "aarch64")


def _linux(*names: str) -> tuple[Platform, ...]:
    return tuple(normalize(Platform.parse(f"linux/{name}")) for name in names)


# Token -> the platforms it may mean, likeliest first. Tokens of one platform are tried in this order.
TOKENS: Final[Mapping[str, tuple[Platform, ...]]] = {
    "x86": _linux("amd64", "386"),
    "amd64": _linux("amd64"),
    "x86_64": _linux("amd64"),
    "x86-64": _linux("amd64"),
    "x64": _linux("amd64"),
    "arm": _linux("arm64", "arm/v7", "arm/v6", "arm/v5"),
    "arm64": _linux("arm64"),
    "aarch64": _linux("arm64"),
    "arm64v8": _linux("arm64"),
    "armv8": _linux("arm64"),
    "armv7": _linux("arm/v7"),
    "arm32v7": _linux("arm/v7"),
    "armv7l": _linux("arm/v7"),
    "armv7hf": _linux("arm/v7"),
    "arm-v7": _linux("arm/v7"),
    "arm_v7": _linux("arm/v7"),
    "arm32": _linux("arm/v7"),
    "armhf": _linux("arm/v7", "arm/v6"),
    "armv6": _linux("arm/v6"),
    "arm32v6": _linux("arm/v6"),
    "armv6l": _linux("arm/v6"),
    "rpi": _linux("arm/v6"),
    "armel": _linux("arm/v6", "arm/v5"),
    "armv5": _linux("arm/v5"),
    "arm32v5": _linux("arm/v5"),
    "i386": _linux("386"),
    "386": _linux("386"),
    "i686": _linux("386"),
    "x86_32": _linux("386"),
    "ppc64le": _linux("ppc64le"),
    "ppc64el": _linux("ppc64le"),
    "s390x": _linux("s390x"),
    "riscv64": _linux("riscv64"),
    "loong64": _linux("loong64"),
    "loongarch64": _linux("loong64"),
    "mips64le": _linux("mips64le"),
    "mips64el": _linux("mips64le"),
    "winamd64": (Platform("windows", "amd64"),),
    "windows-amd64": (Platform("windows", "amd64"),),
}


@lru_cache(maxsize=_REMEMBERED)
def tokens_for(platforms: tuple[Platform, ...]) -> tuple[str, ...]:
    """Return the tokens to try for *platforms*, in the order of the platforms; none written means the default."""
    if not platforms:
        return DEFAULT_TOKENS
    found = dict.fromkeys(
        token
        for platform in platforms
        for token, candidates in TOKENS.items()
        if any(covers(platform, candidate) for candidate in candidates)
    )
    return tuple(found)


@lru_cache(maxsize=_REMEMBERED)
def meanings(token: str, platforms: tuple[Platform, ...]) -> tuple[Platform, ...]:
    """Return what *token* may mean where *platforms* are looked for, likeliest first.

    A platform that was asked for by name is likelier than the token's usual meaning: `arm` is arm/v7 to a rule
    whose platforms are amd64 and arm/v7.
    """
    candidates = TOKENS[token]
    asked = tuple(c for c in candidates if any(covers(p, c) for p in platforms or DEFAULT_PLATFORMS))
    return asked + tuple(c for c in candidates if c not in asked)


@cache
def template_for(convention: str, token: str) -> Template:
    """Return the template that *convention* makes of *token*."""
    return Template.parse(CONVENTIONS[convention].replace("TOKEN", token))
